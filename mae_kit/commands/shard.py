"""`mae-kit shard`: pack images into shards."""

import logging
import math
import shlex
from pathlib import Path
from typing import Any

from mae_kit.data.decode import IGNORED, MAX_PIXELS
from mae_kit.data.index.patterns import has_pattern
from mae_kit.data.packing.pack import PLAN, SMALLEST_SHARD, pack_source
from mae_kit.data.packing.plan import Settings
from mae_kit.data.packing.sources import open_source
from mae_kit.data.packing.stats import SKIPPED, summary
from mae_kit.errors import UserError
from mae_kit.files.recipe_file import QUICK
from mae_kit.parallel import Engine

log = logging.getLogger(__name__)

LARGEST = 178_000_000  # pixels; Pillow refuses more


def shard(
    src: str,
    out: Path,
    resize: int | None = None,
    quality: int = 90,
    val_fraction: float = 0.0,
    max_shard_size: int = 256_000_000,
    workers: int = 0,
    seed: int = 0,
    labels: str = "auto",
    channels: int = 3,
    black: float | None = None,
    white: float | None = None,
    max_pixels: int = MAX_PIXELS,
    ignore: int = IGNORED,
    engine: Engine = "processes",
) -> dict[str, Any]:
    """Pack images into tar shards for training. After an interruption, repeat the command to resume.

    OUT will contain train-000000.tar, ..., val-000000.tar, ..., stats.json (counts, bytes, channel mean and std),
    files.csv (the source file of each sample), skipped.jsonl (files left out, and why), classes.txt (line k names label
    k) and shards.json (the plan). First-level folders, tars or splits named train and val (or valid, validation, dev,
    test) remain the two splits.

    Args:
        src: A folder of images or of class folders; tar shards (a folder, a .tar, or a quoted pattern); hf:NAME[:SPLIT]
            or torchvision:NAME[:SPLIT].
        out: Folder for the shards: a new one, or that of the same command after an interruption.
        resize: Shorter side in pixels: larger images are scaled down to it, smaller ones keep their size, and all are
            encoded as JPEG. Without it, files are packed unchanged.
        quality: JPEG quality with --resize, 1 to 100.
        val_fraction: Fraction of the images for the val shards, at least 0 and below 1, chosen by a hash of the file
            name.
        max_shard_size: Largest size of a shard in bytes (an estimate with --resize); small datasets get smaller shards.
        workers: Shards written at once; 0 = one per core. The shards do not depend on it.
        seed: Seed of the order and of the val split.
        labels: auto = masks, if images/NAME.jpg has masks/NAME.png; boxes, if there are files of boxes; class folders,
            if all images are in at least two first-level folders; else none. folders = always the first-level folders;
            masks = always the masks, the class of each pixel as grayscale or palette PNG, named by SRC/classes.txt;
            boxes = always the boxes of COCO JSON, Pascal VOC XML or YOLO text files; none = no labels. Or a CSV file
            with the columns file (relative to SRC) and label (the name of one class) or labels (any number of names,
            separated by ; or |, or empty), or, for regression, file and columns of numbers. With hf:NAME, the name of a
            column.
        channels: 3 = RGB, 1 = grayscale; another number for .npy and TIFF images with that many bands or pages.
        black: The pixel value that becomes 0; needs --white; by default 0.
        white: The pixel value that becomes 255 in images of more than 8 bits, for example 4095 for 12 bits; they are
            stored as 8-bit PNG or .npy. Without it, one scale for the whole dataset is computed from percentiles and
            reported.
        max_pixels: Skip images with more pixels than this; above 64 million it needs --resize.
        ignore: Value of the mask pixels to ignore, besides 255.
        engine: processes = on this machine; ray = on all nodes of a Ray cluster, which see SRC and OUT under the same
            paths: the cluster at RAY_ADDRESS, else the one this machine belongs to, else this machine alone.

    Returns:
        What stats.json holds, `out`, and `next`, the command that comes after it for color images.

    Raises:
        UserError: Nothing to pack, an argument out of range, another job in OUT, no space left, and the like.
    """
    settings = Settings(
        resize, quality, val_fraction, max_shard_size, seed, str(labels), channels, black, white, max_pixels, ignore
    )
    _check_settings(settings, workers)
    _check_out(src, out)
    source = open_source(src, settings.labels)
    log.info(f"{src}: {source.kind}, {len(source.names):,} images")
    if val_fraction and source.held_out is not None:
        fix = "leave out --val-fraction, or give its train part alone"
        raise UserError("shard.val_fraction.split", f"{src} has its own val split", fix)
    stats = pack_source(source, out, settings, workers, engine)
    for line in summary(out, stats):
        log.info(line)
    following = shlex.join(["mae-kit", "pretrain", QUICK, "--data", str(out)])
    return stats | ({"next": following} if channels == 3 else {})


def _check_settings(settings: Settings, workers: int) -> None:
    checks = {
        "resize": ("1 or more pixels", settings.resize is None or settings.resize >= 1),
        "quality": ("1 to 100, with --resize", _quality_fits(settings)),
        "val_fraction": ("0 up to but not including 1", 0 <= settings.val_fraction < 1),
        "max_shard_size": (f"{SMALLEST_SHARD:,} bytes or more", settings.max_shard_size >= SMALLEST_SHARD),
        "channels": ("1 or more, and 1 or 3 with --resize", _channels_fit(settings)),
        "white": ("a number above --black", _white_fits(settings)),
        "black": ("--white, too", settings.black is None or settings.white is not None),
        "max_pixels": (f"1 to {LARGEST:,}, above {MAX_PIXELS:,} with --resize", _pixels_fit(settings)),
        "ignore": ("0 to 255", 0 <= settings.ignore <= IGNORED),
        "workers": ("0 (one per core) or more", workers >= 0),
    }
    for name, (allowed, holds) in checks.items():
        if not holds:
            value = workers if name == "workers" else getattr(settings, name)
            raise UserError(f"shard.{name}", f"{name} is {value}", f"give {allowed}")


def _pixels_fit(settings: Settings) -> bool:
    return 1 <= settings.max_pixels <= (LARGEST if settings.resize else MAX_PIXELS)


def _white_fits(settings: Settings) -> bool:
    return settings.white is None or 0 < settings.white - (settings.black or 0) < math.inf


def _quality_fits(settings: Settings) -> bool:
    return 1 <= settings.quality <= 100 and (settings.resize is not None or settings.quality == Settings().quality)


def _channels_fit(settings: Settings) -> bool:
    return settings.channels in (1, 3) if settings.resize else settings.channels >= 1


def _check_out(src: str, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError("shard.out.file", f"{out} is a file", "give a folder for the shards")
    if has_pattern(str(out)):
        raise UserError("shard.out.pattern", f"{out} would be read as a pattern", "give a folder without any of *?[{")
    source = Path(src).resolve()
    if source.is_dir() and (out.resolve() == source or source in out.resolve().parents):
        raise UserError("shard.out.inside", f"{out} is inside {src}", "give a folder for the shards elsewhere")
    # Hidden files do not count: a first plan that was cut off by a kill leaves no more than these. Nor does the list of
    # what was skipped, all that is left of a job that packed nothing.
    others = out.is_dir() and any(not entry.name.startswith(".") and entry.name != SKIPPED for entry in out.iterdir())
    if others and not (out / PLAN).exists():
        raise UserError("shard.out.not_empty", f"{out} holds other files", "give a new folder")
