"""JPEG bytes to pixels, strictly: libjpeg's warnings of damage are errors, since it fills what it cannot read."""

import numpy as np
import simplejpeg

from mae_kit.data.orientation import jpeg_orientation, segments, upright

START, _END = b"\xff\xd8", b"\xff\xd9"
_PADDING, _PROFILE = "extraneous bytes before marker", "bad ICC marker"
_APP2 = 0xE2  # the segments of a color profile
_MOST_JUNK = 8  # bytes between two segments that are not all 00 or FF


class UnusualError(Exception):
    """TurboJPEG does not read this kind, odd chroma sampling for instance; the file may be sound."""


def decode_jpeg(data: bytes, channels: int, min_height: int = 0, min_width: int = 0) -> np.ndarray:
    """Decode, upright; scaled down by k/8 to no less than `min_height` x `min_width` where these are not zero.

    Returns:
        uint8 [h w channels].

    Raises:
        ValueError: The bytes are damaged.
        UnusualError: TurboJPEG cannot tell.
    """
    orientation = jpeg_orientation(data)
    if orientation >= 5:
        min_height, min_width = min_width, min_height
    space = "GRAY" if channels == 1 else "RGB"

    def decode(sound: bytes) -> np.ndarray:
        return simplejpeg.decode_jpeg(sound, space, min_height=min_height, min_width=min_width)

    return upright(_strictly(decode, data), orientation)


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Read width and height of the upright image from the header.

    Raises:
        ValueError: The bytes are damaged.
        UnusualError: TurboJPEG cannot tell.
    """
    width, height = stored_size(data)
    return (height, width) if jpeg_orientation(data) >= 5 else (width, height)


def stored_size(data: bytes) -> tuple[int, int]:
    """Read width and height from the header, of the image before it is turned upright.

    Raises:
        ValueError: The bytes are damaged.
        UnusualError: TurboJPEG cannot tell.
    """
    height, width, _, _ = _strictly(simplejpeg.decode_jpeg_header, data)
    return int(width), int(height)


def cut_short(data: bytes) -> bool:
    """Whether a JPEG holds no end marker at all; searched from the back, so a sound file costs next to nothing."""
    return data.startswith(START) and data.rfind(_END) < 0


def _strictly(read, data: bytes):
    """Read, without what libjpeg reports as it does damage: padding of webcams and camera traps, a damaged profile."""
    try:
        return read(data)
    except ValueError as error:
        if not str(error).startswith(("Corrupt JPEG data", "Premature end")):
            raise UnusualError from None
        bare = _without_padding(data) if _PADDING in str(error) else data
        bare = _without_profile(data) if _PROFILE in str(error) else bare
        if bare == data:
            raise
        try:
            return read(bare)
        except ValueError:
            raise error from None


def _without_padding(data: bytes) -> bytes:
    """Leave out what lies between two segments, and a run of one byte before the end marker."""
    parts, position = [START], 2
    for _, start, end in segments(data):
        junk = data[position:start]
        parts.append(data[start:end] if _is_junk(junk) else data[position:end])
        position = end
    scan = data.find(b"\xff\xda", position)
    rest = data[scan if scan >= 0 and _is_junk(data[position:scan]) else position :]
    body, end, tail = rest.rpartition(_END)
    stripped = body.rstrip(body[-1:])
    if len(body) - len(stripped) > 1:
        body = stripped + b"\0" * stripped.endswith(b"\xff")  # a stuffed zero belongs to the scan
    return b"".join([*parts, body, end, tail])


def _is_junk(between: bytes) -> bool:
    return len(between) <= _MOST_JUNK or not between.strip(b"\0\xff")


def _without_profile(data: bytes) -> bytes:
    """Leave out the color profile, which has no part in the pixels."""
    parts, position = [START], 2
    for marker, _, end in segments(data):
        if marker != _APP2:
            parts.append(data[position:end])
        position = end
    return b"".join([*parts, data[position:]])
