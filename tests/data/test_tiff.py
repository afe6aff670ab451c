"""TIFF of every kind of number and layout of bands, against the values that were written."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from mae_kit.data.decode import decode, decode_raw, image_size
from mae_kit.data.packing.encode import encode
from mae_kit.data.tiff import describe
from mae_kit.errors import BadImage


def tiff(values: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def ramp(kind: Any, bands: int = 1) -> np.ndarray:
    info = np.iinfo(kind)
    values = np.linspace(int(info.min), int(info.max), 24 * 40 * bands).astype(kind)
    return values.reshape(24, 40, bands) if bands > 1 else values.reshape(24, 40)


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int16, np.uint32, np.int32])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "lzw", "predictor": True}])
def test_integers(kind: Any, options: dict):
    raw = decode_raw(tiff(ramp(kind), **options))
    assert raw is not None
    np.testing.assert_array_equal(raw.values[..., 0], ramp(kind))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_16_bit_colors(planar: str):
    values = ramp(np.uint16, 3)
    data = tiff(values if planar == "contig" else np.moveaxis(values, 2, 0), photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(decode(data), values >> 8)
    assert image_size(data) == (40, 24)


@pytest.mark.parametrize("bands", [4, 6, 13])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_bands(bands: int, kind: Any):
    data = tiff(ramp(kind, bands), photometric="minisblack", planarconfig="contig")
    assert decode(data, bands).shape == (24, 40, bands)
    with pytest.raises(BadImage, match=f"{bands} bands"):
        decode(data)


def test_white_is_zero():
    data = tiff(ramp(np.uint16), photometric="miniswhite")
    np.testing.assert_array_equal(decode(data, 1)[..., 0], (65535 - ramp(np.uint16)) >> 8)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_strips_that_are_cut(kind: Any):
    data = tiff(ramp(kind), photometric="minisblack")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        offset = file.pages[0].dataoffsets[0]  # type: ignore[union-attr]
    if offset + 24 * 40 * np.dtype(kind).itemsize >= len(data):
        with pytest.raises(BadImage):
            decode(data[: len(data) - 300])


@pytest.mark.parametrize("orders", ["<>", "><"])
def test_a_header_of_the_other_order_of_bytes(orders: str):
    data = tiff(ramp(np.uint16), byteorder=orders[0])
    with pytest.raises(BadImage, match="other order of bytes"):
        decode_raw(tiff(ramp(np.uint16), byteorder=orders[1])[:4] + data[4:])


def test_tiles_that_are_larger_than_any_image_are_not_allocated(tmp_path: Path):
    (tmp_path / "a.tif").write_bytes(tiff(ramp(np.uint16), tile=(16, 16), compression="zlib"))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for name in ("TileWidth", "TileLength"):
            file.pages[0].tags[name].overwrite(100_000, dtype="I")  # type: ignore[union-attr]
    with pytest.raises(BadImage, match=r"tiles of .* over the cap"):
        decode_raw((tmp_path / "a.tif").read_bytes())


def test_pages_are_bands_where_they_are_asked_for_and_counted_where_not():
    data = tiff(np.stack([ramp(np.uint16) // (page + 1) for page in range(5)]), photometric="minisblack")
    assert decode(data, 5).shape == (24, 40, 5)
    raw = decode_raw(data)
    assert raw is not None and "4 of 5 pages" in raw.left_out
    plain = tiff(np.stack([ramp(np.uint8)] * 3), photometric="minisblack")
    assert "2 of 3 pages" in encode(plain, None, 90, 3).left_out


def test_the_value_of_pixels_without_data_is_read():
    values = np.linspace(0.2, 0.8, 960, dtype=np.float32).reshape(24, 40)
    values[0, 0] = -9999
    raw = decode_raw(tiff(values, extratags=[(42113, "s", 0, "-9999", True)]))
    assert raw is not None and raw.nodata == -9999


def test_a_thumbnail_before_the_image_is_not_the_image():
    values = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as pages:
        pages.write(values[::4, ::4], photometric="rgb", subfiletype=1)
        pages.write(values, photometric="rgb")
    assert image_size(file.getvalue()) == (56, 40) and (decode(file.getvalue()) == values).all()


def names(data: bytes, page: int = 0) -> tuple[str, ...]:
    raw = decode_raw(data, 0, page=page)
    assert raw is not None
    return raw.names


def test_names_of_bands_as_gdal_and_ome_write_them():
    values = ramp(np.uint16, 4)
    geo = tiff(
        values, photometric="minisblack", planarconfig="contig", extratags=[describe(["B2", "B3", "<NIR>", "B8"])]
    )
    assert names(geo) == ("B2", "B3", "<NIR>", "B8")
    stack = np.moveaxis(values, 2, 0)
    how: dict[str, Any] = {"photometric": "minisblack", "ome": True}
    ome = tiff(stack, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "A & B", "red"]}}, **how)
    assert [names(ome, page) for page in range(4)] == [("DAPI",), ("GFP",), ("A & B",), ("red",)]


@pytest.mark.parametrize("given", [["B2", "", "B3", "B4"], ["B2", "B2", "B3", "B4"], ["B2"]])
def test_names_that_do_not_tell_bands_apart_are_none(given: list[str]):
    data = tiff(ramp(np.uint16, 4), photometric="minisblack", planarconfig="contig", extratags=[describe(given)])
    assert names(data) == ()
