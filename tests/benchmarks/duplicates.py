"""Duplicates: recall and precision by kind of copy, images per second to fingerprint, and hours for 10 million images.

python tests/benchmarks/duplicates.py "DIR/train-*.tar" --encoder runs/tiny
"""

import io
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from command import run
from PIL import Image, ImageDraw, ImageEnhance

from mae_kit.data.decode import decode
from mae_kit.data.index.open import Index, open_index
from mae_kit.duplicates.findings import find
from mae_kit.duplicates.fingerprints import fingerprint_shard
from mae_kit.duplicates.hamming import HammingTables
from mae_kit.duplicates.pairs import Pairs
from mae_kit.duplicates.similarity import FeatureSearch

Copy = Callable[[Image.Image], Image.Image]
_MILLION = 1_000_000
COSINES = (0.99, 0.98, 0.97, 0.95)


def scaled(factor: float) -> Copy:
    return lambda photo: photo.resize(
        (round(photo.width * factor), round(photo.height * factor)), Image.Resampling.BICUBIC
    )


def cropped(share: float) -> Copy:
    """Crop this fraction of width and height, half of it at each side."""

    def crop(photo: Image.Image) -> Image.Image:
        x, y = photo.width * share / 2, photo.height * share / 2
        return photo.crop((round(x), round(y), round(photo.width - x), round(photo.height - y)))

    return crop


def hue(degrees: int) -> Copy:
    def recolor(photo: Image.Image) -> Image.Image:
        pixels = np.array(photo.convert("HSV"))
        pixels[..., 0] += np.uint8(round(degrees / 360 * 256))
        return Image.fromarray(pixels, "HSV").convert("RGB")

    return recolor


def marked(photo: Image.Image) -> Image.Image:
    """A line of white text in the lower right corner."""
    copy = photo.copy()
    ImageDraw.Draw(copy).text((photo.width // 2, photo.height - 14), "(c) someone", fill=(255, 255, 255))
    return copy


def several(photo: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(scaled(0.5)(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))).enhance(0.8)


def unchanged(photo: Image.Image) -> Image.Image:
    return photo


COPIES: dict[str, tuple[Copy, int]] = {
    "mirrored": (lambda photo: photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 90),
    "upside down, mirrored": (lambda photo: photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM), 90),
    "turned by 90": (lambda photo: photo.transpose(Image.Transpose.ROTATE_90), 90),
    "turned by 180": (lambda photo: photo.transpose(Image.Transpose.ROTATE_180), 90),
    "turned by 270": (lambda photo: photo.transpose(Image.Transpose.ROTATE_270), 90),
    "half the size": (scaled(0.5), 90),
    "twice the size": (scaled(2), 90),
    "JPEG quality 50": (unchanged, 50),
    "JPEG quality 30": (unchanged, 30),
    "JPEG quality 10": (unchanged, 10),
    "brightness 1.4": (lambda photo: ImageEnhance.Brightness(photo).enhance(1.4), 90),
    "brightness 0.6": (lambda photo: ImageEnhance.Brightness(photo).enhance(0.6), 90),
    "contrast 1.4": (lambda photo: ImageEnhance.Contrast(photo).enhance(1.4), 90),
    "contrast 0.6": (lambda photo: ImageEnhance.Contrast(photo).enhance(0.6), 90),
    "hue by 60 degrees": (hue(60), 90),
    "hue by 180 degrees": (hue(180), 90),
    "gray": (lambda photo: photo.convert("L"), 90),
    "text on it": (marked, 90),
    "cropped by 5%": (cropped(0.05), 90),
    "cropped by 10%": (cropped(0.1), 90),
    "mirrored, half the size, darker, quality 50": (several, 50),
}
"""Transformation of a copy, and its JPEG quality."""


def duplicates(
    shards: str, encoder: Path | None = None, photos: int = 400, hashes: int = _MILLION, queries: int = _MILLION
) -> dict[str, Any]:
    """Make copies of photos, look for them among all photos, and time fingerprints and the comparing of hashes.

    Args:
        shards: Photos, a folder of tar shards or a pattern.
        encoder: A pretraining run: what its features find is a column of its own.
        photos: How many are copied; all others are strangers to the copies.
        hashes: Of the timed search; a tenth of `queries` is also held against ten times as many.
        queries: Of the timed search.
    """
    index = open_index(Path(shards))
    with tempfile.TemporaryDirectory() as folder:
        copied = np.sort(np.random.default_rng(0).permutation(len(index))[:photos])
        for number, (copy, quality) in enumerate(COPIES.values()):
            _write(Path(folder) / f"copies-{number:02d}.tar", index, copied, copy, quality)
        copies = open_index(Path(folder))
        pairs = find(index, copies, 10, 1, "processes").pairs
        thresholds = {f"{bits} bits": pairs.take(pairs.distance <= bits) for bits in (4, 6, 8, 10)}
        if encoder:
            pairs = FeatureSearch(encoder, min(COSINES), 1)([index, copies])
            thresholds |= {f"cosine {cosine}": pairs.take(pairs.score >= cosine) for cosine in COSINES}
    rows = _rows(index, copies, thresholds)
    return {"rows": rows, "speed": _speed(index), "search": _search(hashes, queries)}


def _write(path: Path, index: Index, rows: np.ndarray, copy: Copy, quality: int) -> None:
    """A shard of copies; the key of each is the row of its photo."""
    with tarfile.open(path, "w") as tar:
        for row in rows.tolist():
            file = io.BytesIO()
            copy(Image.fromarray(decode(index.read(row)))).save(file, "JPEG", quality=quality)
            info = tarfile.TarInfo(f"{row}.jpg")
            info.size = file.tell()
            file.seek(0)
            tar.addfile(info, file)


def _rows(index: Index, copies: Index, thresholds: dict[str, Pairs]) -> list[dict[str, Any]]:
    """Recall and number of false positives by kind of copy and threshold."""
    cells = {at: _cells(index, copies, pairs.take(pairs.second >= len(index))) for at, pairs in thresholds.items()}
    rows = [{"copy": name, **{at: cells[at][number] for at in cells}} for number, name in enumerate(COPIES)]
    copied = len(copies) // len(COPIES)
    print(f"{len(index):,} photos, {copied} of them copied; recall in % / pairs with a photo that is not the original")
    print(f"{'':44}" + "".join(f"{at:>14}" for at in thresholds))
    for row in rows:
        print(f"{row['copy']:44}" + "".join(f"{100 * row[at][0]:8.1f} /{row[at][1]:4}" for at in thresholds))
    return rows


def _cells(index: Index, copies: Index, pairs: Pairs) -> list[tuple[float, int]]:
    copy = pairs.second - len(index)
    right = np.array([int(key) for key in copies.keys])[copy] == pairs.first
    kind, totals = copies.shard[copy], np.bincount(copies.shard)
    found = [len(np.unique(copy[right & (kind == number)])) for number in range(len(totals))]
    strangers = np.bincount(kind[~right], minlength=len(totals))
    return [(hits / total, int(wrong)) for hits, total, wrong in zip(found, totals, strangers, strict=True)]


def _speed(index: Index) -> dict[str, float]:
    part = index.apart()[0]
    start, used = time.perf_counter(), time.process_time()
    fingerprint_shard(part, lambda: None)
    wall, core = len(part) / (time.perf_counter() - start), len(part) / (time.process_time() - used)
    print(
        f"fingerprints: {wall:,.0f} images/s, {core:,.0f} a core-second; 10 million: {1e7 / core / 3600:.1f} core-hours"
    )
    return {"images_per_second": wall, "images_per_core_second": core}


def _search(hashes: int, queries: int) -> list[dict[str, float]]:
    """At distance 8, in one orientation of eight; in this thread."""
    rows = []
    for count, asked in ((hashes, queries), (10 * hashes, queries // 10)):
        made = synthetic_hashes(count)
        tables, used, found = HammingTables(made, 8), time.process_time(), 0
        for start in range(0, asked, 1 << 15):
            found += len(tables.search(made[start : min(start + (1 << 15), asked)])[0])
        seconds = time.process_time() - used
        whole = seconds / asked * count * 8 / 3600
        print(
            f"{asked:,} queries in {count:,} hashes: {seconds:,.1f} core-seconds, {found - asked:,} pairs; "
            f"all in 8 orientations {whole:.2f} core-hours"
        )
        rows.append(
            {"hashes": count, "queries": asked, "core_seconds": seconds, "pairs": found - asked, "core_hours": whole}
        )
    return rows


def synthetic_hashes(count: int) -> np.ndarray:
    """Random bits; a hundredth are copies of another but for up to 8 bits, a twentieth crowds around 1,000 centers."""
    dice = np.random.default_rng(0)
    hashes = dice.integers(0, 2**64, count, dtype=np.uint64)
    near, crowd = count // 100, count // 20
    hashes[:near] = hashes[-near:]
    hashes[near : near + crowd] = dice.choice(hashes[-1000:], crowd)
    for flips, rows in ((8, slice(0, near)), (12, slice(near, near + crowd))):
        for _ in range(flips):
            hashes[rows] ^= np.uint64(1) << dice.integers(0, 63, len(hashes[rows]), dtype=np.uint64)
    return dice.permutation(hashes | np.uint64(1 << 63))


if __name__ == "__main__":
    run(duplicates)
