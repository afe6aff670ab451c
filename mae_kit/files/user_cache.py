"""The folder of what can be made again: packed images, indices of read-only folders, remote shards, downloads."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path


def user_cache() -> Path:
    """The user's cache; in the folder for temporary files where the user has no home, as in some containers."""
    with suppress(RuntimeError):  # of a newer platformdirs; an older one answers ~/.cache
        if (folder := user_cache_path("mae_kit")).is_absolute():
            return folder
    return Path(tempfile.gettempdir()) / f"mae_kit-{os.getuid()}"
