"""How a picture is turned upright: EXIF 2.3, table 4.6.4, and the same number in XMP."""

import re
import struct
from collections.abc import Iterator

import numpy as np
from jaxtyping import Num

TAG = 0x0112
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_XMP_VALUE = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")
_APP1, _SCAN, _END = 0xE1, 0xDA, 0xD9
_UNUSUAL = frozenset((_APP1, *range(0xD0, _SCAN), 0xFF))  # APP1, markers without a length, fill bytes
_INTEGERS = {1: "B", 3: "H", 4: "I"}  # types of EXIF: BYTE, SHORT, LONG
# orientation -> (swap rows and columns, step over rows, step over columns)
UPRIGHT = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}


def upright(image: Num[np.ndarray, "h w c"], orientation: int) -> Num[np.ndarray, "upright_h upright_w c"]:
    """Turn and mirror an image as its orientation, 1 to 8, asks; any other number leaves it as it is."""
    if orientation not in UPRIGHT:
        return image
    swap, rows, columns = UPRIGHT[orientation]
    turned = image.swapaxes(0, 1) if swap else image
    return np.ascontiguousarray(turned[::rows, ::columns])


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Walk the segments of a JPEG up to its first scan: marker, and where the segment begins and ends."""
    position = 2
    while 0 <= position < len(data) - 3:
        marker = data[position + 1]
        if data[position] != 0xFF or marker == 0:
            position = data.find(b"\xff", position + 1)
        elif marker in (_SCAN, _END):
            return
        elif marker == 0xFF or marker == 1 or 0xD0 <= marker <= 0xD8:  # fill byte, or a marker without a length
            position += 1 if marker == 0xFF else 2
        else:
            end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
            yield marker, position, end
            position = end


def jpeg_orientation(data: bytes) -> int:
    """Read the orientation of a JPEG from EXIF, or from XMP where EXIF has none; 1 without either."""
    if not _may_turn(data):
        return 1
    found = [data[start + 4 : end] for marker, start, end in segments(data) if marker == _APP1]
    exif = next((part for part in found if part.startswith(_EXIF)), None)
    orientation = exif_orientation(exif[len(_EXIF) :]) if exif else None
    if orientation is None:
        orientation = next((xmp_orientation(part) for part in found if part.startswith(_XMP)), None)
    return orientation or 1


def _may_turn(data: bytes) -> bool:
    """Whether there may be an APP1 segment, where EXIF and XMP are: `segments` for the usual header, much faster."""
    position = 2
    try:
        while data[position] == 0xFF:
            marker = data[position + 1]
            if marker == _SCAN:
                return False
            if marker < 0xC0 or marker in _UNUSUAL:
                return True
            position += 2 + (data[position + 2] << 8 | data[position + 3])
    except IndexError:
        pass
    return True


def xmp_orientation(packet: bytes) -> int | None:
    value = _XMP_VALUE.search(packet)
    return int(value[1]) if value else None


def exif_orientation(tiff: bytes) -> int | None:
    """Read the orientation in the first directory of an EXIF block; None without one, 1 where it is out of range."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None:
            return None
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, _ = struct.unpack_from(order + "HHI", tiff, entry)
            if tag == TAG:
                (value,) = struct.unpack_from(order + _INTEGERS.get(kind, "H"), tiff, entry + 8)
                return value if value in UPRIGHT else 1
    except struct.error:
        pass
    return None
