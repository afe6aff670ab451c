"""`mae-kit shard`: pack images into shards."""

import logging
import math
import shlex
from pathlib import Path
from typing import Any

from mae_kit.data.decode import IGNORED, MAX_PIXELS
from mae_kit.data.index.patterns import has_pattern
from mae_kit.data.packing.pack import PLAN, SMALLEST_SHARD, pack_source
from mae_kit.data.packing.plan import PERCENTILE, PackSettings
from mae_kit.data.packing.several import Pages, with_groups, with_pages
from mae_kit.data.packing.sources import open_source
from mae_kit.data.packing.stats import SKIPPED, summary
from mae_kit.errors import UserError
from mae_kit.files.recipe_file import QUICK
from mae_kit.parallel import Engine

log = logging.getLogger(__name__)

SATELLITE = "mae_satellite_64px"
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
    channels: int | None = None,
    scale: str = PERCENTILE,
    nodata: float | None = None,
    bands: str | None = None,
    pages: Pages = "first",
    group: str | None = None,
    max_pixels: int = MAX_PIXELS,
    ignore: int = IGNORED,
    engine: Engine = "processes",
) -> dict[str, Any]:
    """Pack images into tar shards for training. After an interruption, repeat the command to resume.

    OUT will contain train-000000.tar, ..., val-000000.tar, ..., stats.json (counts, bytes, channel mean and std),
    files.csv (the source file of each sample), skipped.jsonl (files left out, and why), classes.txt (line k names label
    k) and shards.json (the plan). Top-level folders, tars or splits named train and val (or valid, validation, dev,
    test) remain the two splits.

    Args:
        src: A folder of images or of class folders; tar shards (a folder, a .tar, or a quoted pattern); hf:NAME[:SPLIT]
            or torchvision:NAME[:SPLIT].
        out: Folder for the shards: a new one, or that of the same command after an interruption.
        resize: Shorter side in pixels: larger images are scaled down to it, smaller ones keep their size; 8-bit images
            are encoded as JPEG, others keep their values. Without it, files are packed unchanged.
        quality: JPEG quality with --resize, 1 to 100.
        val_fraction: Fraction of the images for the val shards, at least 0 and below 1, chosen by a hash of the file
            name.
        max_shard_size: Largest size of a shard in bytes (an estimate with --resize); small datasets get smaller shards.
        workers: Shards written at once; 0 = one per core. The shards do not depend on it.
        seed: Seed of the order and of the val split.
        labels: auto = masks, if images/NAME.jpg has masks/NAME.png, or NAME.jpg has NAME_mask.png or NAME.png next to
            it; boxes, if there are annotation files; class folders, if all images are in at least two top-level
            folders; else none. folders = always the top-level folders; masks = always the masks, the class of each
            pixel as grayscale or palette PNG, named by SRC/classes.txt; boxes = always the boxes of COCO JSON, Pascal
            VOC XML or YOLO text files; none = no labels. Or a CSV file with the columns file (relative to SRC) and
            label (the name of one class) or labels (any number of names, separated by ; or |, or empty), or, for
            regression, the column file and columns of numbers. With hf:NAME, the name of a column.
        channels: 3 = RGB, 1 = grayscale; by default RGB for 8-bit images, and all bands of others.
        scale: How values of more than 8 bits, which are stored unscaled, become model input from 0 to 1, band by band:
            percentile = from the 0.1th to the 99.9th percentile of the training images; range = from the smallest to
            the largest value; none = they are 0 to 1 already; or two numbers, for example "0,4095" for 12-bit images.
        nodata: The value of pixels without data, which are left out of statistics and filled with the mean of the band;
            by default a GeoTIFF's own. NaN is never data.
        bands: Bands to keep, of images with more than 8 bits, in this order, counted from 1 or by the names that GDAL,
            OME or --group gives them: "4,3,2" or "B4,B3,B2"; none = all.
        pages: How files with several pages (TIFF), frames (DICOM), slices (NIfTI) or arrays (.npz) are packed: first =
            only the first; split = each is a sample; stack = they are the bands of one sample.
        group: A pattern of file names with {sample} and {band}, such as "{sample}_{band}.tif": the files of a sample
            become its bands, in the order of their names.
        max_pixels: Skip images with more pixels than this; above 64 million it needs --resize.
        ignore: Value of the mask pixels to ignore, besides 255.
        engine: processes = on this machine; ray = on all nodes of a Ray cluster, which see SRC and OUT under the same
            paths: the cluster at RAY_ADDRESS, else the one this machine belongs to, else this machine alone.

    Returns:
        What stats.json holds, `out`, and `next`, the command that comes after it.

    Raises:
        UserError: Nothing to pack, an argument out of range, another job in OUT, no space left, and the like.
    """
    form = resize, quality, val_fraction, max_shard_size, seed, str(labels), channels
    chosen = tuple(band.strip() for band in bands.split(",")) if bands else ()
    kept = scale, None if nodata != nodata else nodata, chosen, pages, group
    settings = PackSettings(*form, max_pixels, ignore, *kept)
    _check_settings(settings, workers)
    _check_out(src, out)
    source = with_pages(open_source(src, settings.labels), pages, max_pixels)
    source = with_groups(source, group, max_pixels) if group else source
    log.info(f"{src}: {source.kind}, {len(source.names):,} images")
    if val_fraction and source.held_out is not None:
        fix = "leave out --val-fraction, or give its train part alone"
        raise UserError("shard.val_fraction.split", f"{src} has its own val split", fix)
    stats = pack_source(source, out, settings, workers, engine)
    for line in summary(out, stats):
        log.info(line)
    count = len(stats["mean"])
    recipe = [QUICK] if count in (1, 3) else [SATELLITE, "--objective.encoder.in_chans", str(count)]
    return stats | {"next": shlex.join(["mae-kit", "pretrain", *recipe, "--data", str(out)])}


def _check_settings(settings: PackSettings, workers: int) -> None:
    checks = {
        "resize": ("1 or more pixels", settings.resize is None or settings.resize >= 1),
        "quality": ("1 to 100, with --resize", _quality_fits(settings)),
        "val_fraction": ("0 up to but not including 1", 0 <= settings.val_fraction < 1),
        "max_shard_size": (f"{SMALLEST_SHARD:,} bytes or more", settings.max_shard_size >= SMALLEST_SHARD),
        "channels": ("1 or more", _channels_fit(settings)),
        "scale": ("percentile, range, none, or two ascending numbers, such as 0,4095", _scale_fits(settings.scale)),
        "bands": ("names of bands, or numbers from 1", all(band.strip("0") for band in settings.bands)),
        "max_pixels": (f"1 to {LARGEST:,}, above {MAX_PIXELS:,} with --resize", _pixels_fit(settings)),
        "ignore": ("0 to 255", 0 <= settings.ignore <= IGNORED),
        "workers": ("0 (one per core) or more", workers >= 0),
    }
    for name, (allowed, holds) in checks.items():
        if not holds:
            value = workers if name == "workers" else getattr(settings, name)
            raise UserError(f"shard.{name}", f"{name} is {value}", f"give {allowed}")


def _pixels_fit(settings: PackSettings) -> bool:
    return 1 <= settings.max_pixels <= (LARGEST if settings.resize else MAX_PIXELS)


def _scale_fits(scale: str) -> bool:
    try:
        low, high = map(float, scale.split(","))
    except ValueError:
        return scale in ("percentile", "range", "none")
    return 0 < high - low < math.inf


def _quality_fits(settings: PackSettings) -> bool:
    return 1 <= settings.quality <= 100 and (settings.resize is not None or settings.quality == PackSettings().quality)


def _channels_fit(settings: PackSettings) -> bool:
    return settings.channels is None or settings.channels >= 1


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
