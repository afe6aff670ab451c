"""Orientation in EXIF and XMP: parsed, never searched for."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from mae_kit.data.decode import decode, image_size
from mae_kit.data.orientation import exif_orientation, jpeg_orientation


def photo() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(24 * 40 * 3, dtype=np.uint8).reshape(24, 40, 3)).save(stream, "JPEG")
    return stream.getvalue()


def exif(orientation: int, kind: int = 3, order: str = "<") -> bytes:
    letter = {1: "B", 3: "H", 4: "I"}[kind]
    value = struct.pack(order + letter, orientation).ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
    return head + struct.pack(order + "HHI", 0x0112, kind, 1) + value


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def with_segments(*segments: bytes) -> bytes:
    data = photo()
    return data[:2] + b"".join(segments) + data[2:]


@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_of_integer(kind: int, order: str):
    assert exif_orientation(exif(6, kind, order)) == 6
    data = with_segments(segment(0xE1, b"Exif\0\0" + exif(6, kind, order)))
    assert image_size(data) == (24, 40) and decode(data).shape == (40, 24, 3)


def test_behind_large_segments():
    large = [segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000))] * 3
    assert jpeg_orientation(with_segments(*large, segment(0xE1, b"Exif\0\0" + exif(8)))) == 8


@pytest.mark.parametrize(
    "before", [b"", b"\xff", b"\xff\x01", b"\xff\xd0", segment(0xEC, b"\xff\xda\xff\xd9"), b"\0\0"]
)
def test_behind_whatever_may_stand_before_it(before: bytes):
    assert jpeg_orientation(with_segments(before, segment(0xE1, b"Exif\0\0" + exif(8)))) == 8


@pytest.mark.parametrize("packet", [b'tiff:Orientation="6"', b"<tiff:Orientation>6</tiff:Orientation>"])
def test_xmp_counts_where_exif_has_none(packet: bytes):
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x " + packet + b"/>")
    assert jpeg_orientation(with_segments(xmp)) == 6
    assert jpeg_orientation(with_segments(xmp, segment(0xE1, b"Exif\0\0" + exif(3)))) == 3


@pytest.mark.parametrize("marker", [0xFE, 0xE2, 0xED])
def test_bytes_that_only_look_so(marker: int):
    assert jpeg_orientation(with_segments(segment(marker, b"Exif\0\0" + exif(6)))) == 1


@pytest.mark.parametrize("data", [b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8" + b"\xff" * 50, b"\xff\xd8" + bytes(50)])
def test_files_without_segments(data: bytes):
    assert jpeg_orientation(data) == 1


def test_padding_is_no_damage():
    data = photo()
    for padded in (
        data[:-2] + bytes(700) + data[-2:],
        data[:2] + b"\0\0" + data[2:],
        data[:2] + b"\xff" * 9 + data[2:],
        data.replace(b"\xff\xda", bytes(40) + b"\xff\xda", 1),
    ):
        np.testing.assert_array_equal(decode(padded), decode(data))
