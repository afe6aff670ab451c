"""Find out what the user has: a folder of images, tar shards, or a dataset of another library."""

import os
from pathlib import Path

from mae_kit.data.index.listing import list_images
from mae_kit.data.index.patterns import TAR, has_pattern
from mae_kit.data.packing.folder import folder_source, no_image
from mae_kit.data.packing.hubs import open_hub
from mae_kit.data.packing.source import FROM_SOURCE, Source
from mae_kit.data.packing.tars import tar_source
from mae_kit.errors import UserError


def open_source(src: str, labels: str) -> Source:
    """Recognize SRC and list it.

    Raises:
        UserError: SRC is missing, empty, holds no image, or needs a library that is absent.
    """
    path = Path(src)
    if src.startswith(("hf:", "torchvision:")):
        return open_hub(src, labels)
    if labels not in FROM_SOURCE and not path.is_dir():
        fix = "give the folder that contains them"
        raise UserError("shard.labels.source", f"{labels} names files, and {src} is not a folder of images", fix)
    if path.is_dir():
        return _open_folder(path, labels)
    if path.is_file() and path.suffix != ".tar":
        fix = "give its folder, a .tar, or a quoted pattern such as 'DIR/*.tar'"
        raise UserError("shard.src.file", f"{src} is a file", fix)
    if path.is_file() or has_pattern(src):
        return tar_source(src, labels)
    fix = "give a folder of images, tar shards, hf:NAME or torchvision:NAME"
    raise UserError("shard.src.missing", f"{src} does not exist", fix)


def _open_folder(root: Path, labels: str) -> Source:
    sizes, skipped = list_images(root)
    tars = [skip.name for skip in skipped if TAR.search(skip.name) and os.sep not in skip.name]
    if sizes and tars:
        what = f"{root} holds both tars, such as {tars[0]}, and images, such as {next(iter(sizes))}"
        raise UserError("shard.src.mixed", what, f"give '{root}/*.tar' for the tars, or move them away")
    if sizes:
        return folder_source(root, labels, sizes, skipped)
    if tars and labels in FROM_SOURCE:
        return tar_source(str(root), labels)
    raise no_image(root, skipped)
