"""JPEG XL: its header against what was encoded, every kind of number, and lies in one line."""

import imagecodecs
import numpy as np
import pytest

from mae_kit.data.decode import decode, decode_raw, image_size, orientation_of
from mae_kit.data.jxl import jxl_header
from mae_kit.errors import BadImage


def noise(*shape: int, kind: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(kind)


def encoded(values: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(values, lossless=True))


@pytest.mark.parametrize("size", [(24, 40), (37, 41), (1, 1), (108, 192), (64, 64), (3000, 5), (600, 8)])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])  # in a codestream alone, and in a container
def test_sizes(size: tuple[int, int], kind: str):
    data = encoded(noise(*size, kind=kind))
    assert image_size(data) == size[::-1] and orientation_of(data) == 1
    with pytest.raises(BadImage, match="over the cap"):
        decode(data, max_pixels=size[0] * size[1] - 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_8_bits_with_and_without_alpha(channels: int):
    values = noise(24, 40, channels)
    with_alpha = np.concatenate([values, noise(24, 40, 1)], axis=2)
    for data in (encoded(values.squeeze()), encoded(with_alpha)):
        assert decode_raw(data) is None
        np.testing.assert_array_equal(decode(data, channels), values)


def test_16_bits_are_more_than_8():
    values = noise(24, 40, 3, kind="uint16") * 100
    raw = decode_raw(encoded(values))
    assert raw is not None and raw.values.dtype == np.uint16
    np.testing.assert_array_equal(raw.values, values)
    np.testing.assert_array_equal(decode(encoded(values)), values >> 8)


def header(*numbers: tuple[int, int]) -> bytes:
    """A codestream that begins with these (value, bits)."""
    rest = at = 0
    for value, bits in numbers:
        rest, at = rest | value << at, at + bits
    return b"\xff\x0a" + rest.to_bytes(32, "little")


def test_the_header():
    """Height 1000 in 13 bits, ratio 4 to 3, then metadata with an orientation of 6."""
    start = (0, 1), (1, 2), (999, 13)
    more = (0, 1), (1, 1)  # not all is as usual
    assert jxl_header(header(*start, (3, 3), *more, (5, 3))) == (1000, 1333, 6, False)
    assert jxl_header(header(*start, (0, 3), (0, 2), (99, 9), (1, 1))) == (100, 1000, 1, False)
    assert jxl_header(header(*start, (3, 3), *more, (0, 3), (0, 2), (1, 1))).animated
    intrinsic, preview = ((1, 1), (7, 5), (1, 3)), ((0, 1), (0, 2), (9, 6), (1, 3))
    assert jxl_header(header(*start, (3, 3), *more, (0, 3), (1, 1), *intrinsic, (1, 1), *preview, (1, 1))).animated


def test_lies_are_refused_before_memory_is_taken():
    lying = header((0, 1), (3, 2), (100_000, 30), (1, 3), (1, 1))
    with pytest.raises(BadImage, match="100001 x 100001 pixels, over the cap"):
        decode(lying)
    for data in (encoded(noise(24, 40))[:40], b"\xff\x0a", encoded(noise(24, 40, kind="uint16"))[:40]):
        with pytest.raises(BadImage) as error:
            decode(data)
        assert len(str(error.value).splitlines()) == 1
