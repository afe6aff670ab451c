"""Files that hold several samples or bands, and samples that lie in several files: other sources of the same images."""

import io
import re
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import tifffile

from mae_kit.data.decode import Raw, count_pages, decode, decode_raw
from mae_kit.data.index.listing import Skip
from mae_kit.data.packing.source import Reader, Source
from mae_kit.data.tiff import describe
from mae_kit.errors import BadImage, UserError

Pages = Literal["first", "split", "stack"]
_NODATA = 42113  # GDAL's tag


class PageReader(NamedTuple):
    """Reads one page of a file, or all as bands of one image."""

    read: Reader
    rows: list[int]
    names: list[str]
    pages: list[int] | None
    max_pixels: int

    def __call__(self, row: int, name: str) -> bytes:
        data = self.read(self.rows[row], self.names[row])
        count = count_pages(data, self.max_pixels)
        if count == 1:
            return data
        numbers = range(count) if self.pages is None else [self.pages[row]]
        return stacked([page_of(data, number, self.max_pixels, 3) for number in numbers])


class GroupReader(NamedTuple):
    """Reads the files of a sample as bands of one image."""

    read: Reader
    rows: list[list[int]]
    names: list[list[str]]
    bands: list[str]
    max_pixels: int

    def __call__(self, row: int, name: str) -> bytes:
        parts = []
        for place, file, band in zip(self.rows[row], self.names[row], self.bands, strict=True):
            part = page_of(self.read(place, file), 0, self.max_pixels, 1)
            parts.append(part._replace(names=(band,)) if part.values.shape[2] == 1 else part)
        return stacked(parts)


def page_of(data: bytes, number: int, max_pixels: int, colors: int) -> Raw:
    """One page of a file, also of 8 bits, in gray (1) or RGB (3)."""
    return decode_raw(data, 0, max_pixels, number) or Raw(decode(data, colors, max_pixels, number))


def stacked(parts: list[Raw]) -> bytes:
    """A TIFF of the bands of images, one behind the other.

    Raises:
        BadImage: They differ in size, kind of number or the value of pixels without data.
    """
    seen = {(part.values.shape[:2], part.values.dtype.name, part.nodata) for part in parts}
    if len(seen) > 1:
        (one, kind, _), (other, another, _) = sorted(seen, key=str)[:2]
        raise BadImage(f"bands of different size or kind: {list(one)} of {kind} and {list(other)} of {another}")
    values = np.concatenate([part.values for part in parts], axis=2)
    stream = io.BytesIO()
    nodata = parts[0].nodata
    tags: list = [] if nodata is None else [(_NODATA, "s", 0, f"{nodata:g}", True)]
    names = [name for part in parts for name in part.names]
    tags += [describe(names)] if len(set(names)) == values.shape[2] else []
    values, planes = (values[..., 0], None) if values.shape[2] == 1 else (values, "contig")
    tifffile.imwrite(stream, values, photometric="minisblack", planarconfig=planes, extratags=tags)
    return stream.getvalue()


def with_pages(source: Source, pages: Pages, max_pixels: int) -> Source:
    """The source with every page a sample of its own (split), or a band (stack)."""
    if pages == "first":
        return source
    _must_be_plain(source, "pages")
    rows = list(range(len(source.names)))
    if pages == "stack":
        return replace(source, read=PageReader(source.read, rows, source.names, None, max_pixels), sizes=None)
    counts = [_count(source.read, row, name, max_pixels) for row, name in enumerate(source.names)]
    rows = np.repeat(rows, counts).tolist()
    numbers = [number for count in counts for number in range(count)]
    files = [source.names[row] for row in rows]
    names = [
        f"{file}#{number + 1}" if counts[row] > 1 else file
        for row, file, number in zip(rows, files, numbers, strict=True)
    ]
    return _taken(source, rows, names, PageReader(source.read, rows, files, numbers, max_pixels))


def _count(read: Reader, row: int, name: str, max_pixels: int) -> int:
    """At least one: what does not decode is left to whoever packs it."""
    try:
        return max(1, count_pages(read(row, name), max_pixels))
    except BadImage:
        return 1


def with_groups(source: Source, pattern: str, max_pixels: int) -> Source:
    """The source with the files that a pattern brings together as bands of one sample.

    Args:
        source: A folder of images.
        pattern: Of file names, with {sample} and {band}; bands come in the order of their names.
        max_pixels: As in `decode`.

    Raises:
        UserError: `shard.group`: it has not these two places, or fits no file.
    """
    _must_be_plain(source, "group")
    found: dict[str, dict[str, int]] = defaultdict(dict)
    skipped = list(source.skipped)
    for row, name in enumerate(source.names):
        if match := re.fullmatch(_expression(pattern), name):
            found[match["sample"]][match["band"]] = row
        else:
            skipped.append(Skip(name, "does not fit --group"))
    if not found:
        what = f"no file is called {pattern}, the first is {source.names[0]}"
        raise UserError("shard.group.none", what, "give the file name with {sample} and {band} in it")
    common = Counter(tuple(sorted(bands, key=_natural)) for bands in found.values()).most_common(1)[0][0]
    whole = {sample: bands for sample, bands in found.items() if set(bands) == set(common)}
    for sample in found.keys() - whole.keys():
        lost, more = set(common) - set(found[sample]), set(found[sample]) - set(common)
        reason = f"without band {min(lost)}" if lost else f"with a band {min(more)} that others lack"
        skipped.append(Skip(sample, reason))
    rows = [[bands[band] for band in common] for bands in whole.values()]
    files = [[source.names[row] for row in some] for some in rows]
    reader = GroupReader(source.read, rows, files, list(common), max_pixels)
    kind = f"{source.kind}, {len(common)} files a sample ({', '.join(common)})"
    taken = _taken(source, [some[0] for some in rows], list(whole), reader)
    return replace(taken, kind=kind, skipped=sorted(skipped))


def _expression(pattern: str) -> str:
    if pattern.count("{sample}") != 1 or pattern.count("{band}") != 1:
        what = f"--group {pattern} does not contain {{sample}} and {{band}} exactly once each"
        raise UserError("shard.group", what, "give, for example, '{sample}_{band}.tif'")
    return re.escape(pattern).replace(r"\{sample\}", "(?P<sample>.+)").replace(r"\{band\}", "(?P<band>[^/]+)")


def _natural(name: str) -> list[tuple[int, str]]:
    """B2 before B10."""
    return [(int(part or 0), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _must_be_plain(source: Source, setting: str) -> None:
    if source.masks is not None or source.boxes is not None:
        raise UserError(f"shard.{setting}.masks", f"--{setting} is not for images with masks or boxes", "leave it out")


def _taken(source: Source, rows: list[int], names: list[str], read: Reader) -> Source:
    """Some samples, or some several times, under other names."""
    return replace(
        source,
        read=read,
        names=names,
        labels=source.labels[rows],
        sizes=None,
        held_out=None if source.held_out is None else source.held_out[rows],
        keys=None,
        sets=None if source.sets is None else source.sets.take(np.array(rows)),
        targets=None if source.targets is None else [source.targets[row] for row in rows],
    )
