"""The folder of what can be made again: packed images, indices of read-only folders, remote shards, downloads."""

import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path


def user_cache() -> Path:
    """The user's cache; in the folder for temporary files where the user has no home, as in some containers."""
    folder = user_cache_path("mae_kit")
    return folder if folder.is_absolute() else Path(tempfile.gettempdir()) / f"mae_kit-{os.getuid()}"
