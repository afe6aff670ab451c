"""The decoder against every odd file at hand, against Pillow on sound photos, and against made-up damage."""
# Also tests data/jpeg.py.

import contextlib
import importlib.util
import io
import random
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.gates import Measured

from mae_kit.data.decode import decode, decode_raw, decode_scaled, image_size
from mae_kit.data.jpeg import cut_short
from mae_kit.data.packing.encode import encode
from mae_kit.errors import BadImage

UPRIGHT = {
    "exif-Landscape_6.jpg": ((1200, 1800), (98.4, 115.7, 134.2)),
    "ljt-128022904-bbc07c3b-a332-4033-8155-8d58eb73cff6.jpg": ((288, 32), (118.4, 110.9, 131.2)),
    "ljt-testorig_transverse_422_q95_prog_ari.jpg": ((227, 149), (146.5, 90.6, 81.8)),
    "made name with spaces é.jpg": ((96, 76), (150.7, 141.1, 127.9)),
    "made-4000x2.jpg": ((2, 4000), (10.0, 99.0, 201.0)),
    "made-I16.png": ((160, 120), (157.4, 157.4, 157.4)),
    "made-bitflips.jpg": ((160, 120), (98.7, 105.8, 37.7)),
    "made-constant-white.png": ((96, 96), (255.0, 255.0, 255.0)),
    "made-ok.jpg": ((160, 120), (157.4, 152.6, 144.5)),
    "made-orientation-99.jpg": ((160, 120), (157.4, 152.5, 144.6)),
    "made-png-named.jpg": ((96, 72), (151.5, 70.1, 69.6)),
    "made-uppercase.JPEG": ((96, 72), (174.1, 168.1, 157.0)),
    "pil-16bit.cropped.tif": ((64, 64), (1.0, 1.0, 1.0)),
    "pil-1_trns.png": ((64, 64), (124.1, 124.1, 124.1)),
    "pil-apng_chunk_multi_actl.png": ((64, 128), (0.0, 255.0, 0.0)),
    "pil-bmp_q_rgba32.bmp": ((64, 127), (113.8, 113.1, 109.8)),
    "pil-exif_typeerror.jpg": ((531, 800), (160.5, 159.6, 141.7)),
    "pil-hopper_orientation_3.jpg": ((128, 128), (89.7, 80.1, 95.3)),
    "pil-hopper_orientation_5.jpg": ((128, 128), (89.7, 80.1, 95.3)),
    "pil-hopper_orientation_6.webp": ((128, 128), (89.8, 80.2, 95.7)),
    "pil-hopper_orientation_7.jpg": ((128, 128), (89.7, 80.1, 95.3)),
    "pil-icc-after-SOF.jpg": ((10, 10), (0.0, 0.0, 0.0)),
    "pil-jpeg_ff00_header.jpg": ((225, 300), (116.4, 78.9, 77.2)),
    "pil-multipage.tiff": ((10, 10), (0.0, 128.0, 0.0)),
    "pil-no_palette.gif": ((1, 1), (0.0, 0.0, 0.0)),
    "pil-orientation_rectangle.jpg": ((2, 1), (254.0, 0.0, 0.0)),
    "pil-p_16.png": ((128, 128), (95.6, 95.6, 95.6)),
    "pil-padded_idat.png": ((10, 256), (127.5, 127.5, 127.5)),
    "pil-pil_sample_cmyk.jpg": ((100, 100), (31.1, 6.4, 7.6)),
    "pil-sugarshack_bad_mpo_header.jpg": ((480, 640), (120.5, 108.9, 99.1)),
    "pil-tiff_16bit_RGB.tiff": ((40, 100), (41.8, 28.8, 21.6)),
    "pil-tiff_wrong_bits_per_sample.tiff": ((53, 52), (135.7, 135.6, 140.9)),
    "pil-transparent.gif": ((150, 200), (211.0, 202.7, 204.1)),
    "pil-truncated_exif_dpi.jpg": ((640, 480), (255.0, 255.0, 255.0)),
    "pngsuite-basn0g01.png": ((32, 32), (124.5, 124.5, 124.5)),
    "pngsuite-basn2c16.png": ((32, 32), (127.5, 127.5, 43.8)),
    "pngsuite-basn3p08.png": ((32, 32), (135.3, 135.3, 111.4)),
    "pngsuite-basn4a16.png": ((32, 32), (126.3, 126.3, 126.3)),
    "pngsuite-basn6a16.png": ((32, 32), (127.5, 127.5, 63.8)),
    "pngsuite-cdfn2c08.png": ((32, 8), (186.1, 132.5, 35.1)),
    "pngsuite-tbbn3p08.png": ((32, 32), (167.1, 174.4, 169.3)),
}
NO_IMAGE = "not a readable"
QUARANTINED = {
    "afl-03.jpg": NO_IMAGE,
    "afl-07.jpg": NO_IMAGE,
    "afl-11.jpg": "broken data stream when reading image file",
    "afl-15.jpg": NO_IMAGE,
    "afl-19.jpg": NO_IMAGE,
    "afl-23.jpg": NO_IMAGE,
    "libpng-bad_iCCP.png": NO_IMAGE,
    "libpng-badadler.png": "broken data stream when reading image file",
    "libpng-huge_iCCP_chunk.png": "Truncated File Read",
    "made-big-10000x10000.png": "10000 x 10000 pixels, over the cap of 64,000,000",
    "made-crlf.jpg": "Corrupt JPEG data: 1 extraneous bytes before marker 0xc4",
    "made-cut-header.jpg": NO_IMAGE,
    "made-cut-last2.jpg": "Premature end of JPEG file",
    "made-lfs-pointer.jpg": "a git-LFS pointer, not the image itself",
    "made-one-byte.jpg": NO_IMAGE,
    "made-png-lies-8000.png": "image file is truncated",
    "pil-apng_syntax_num_frames_zero.png": "cannot load this image",
    "pil-bmp_b_badwidth.bmp": "Image size",
    "pil-bmp_b_shortfile.bmp": "image file is truncated",
    "pil-broken.png": NO_IMAGE,
    "pil-combined_larger_than_size.psd": NO_IMAGE,
    "pil-crash-2020-10-test.tif": "are cut",
    "pil-decompression_bomb.gif": "Image size",
    "pil-decompression_bomb.ico": NO_IMAGE,
    "pil-hopper_bad_exif.jpg": "Corrupt JPEG data: 1214 extraneous bytes before marker 0xd0",
    "pil-libtiff_segfault.tif": "a TIFF of 65,535 bands",
    "pil-negative_size.ppm": NO_IMAGE,
    "pil-timeout-9139147ce93e20eb14088fe238e541443ffd64b3.fli": NO_IMAGE,
    "pil-truncated_image.png": "image file is truncated",
    "pil-truncated_jpeg.jpg": "Premature end of JPEG file",
    "pil-unbound_variable.jp2": NO_IMAGE,
    "pil-unknown_compression_method.png": NO_IMAGE,
    "pngsuite-xc1n0g08.png": NO_IMAGE,
    "pngsuite-xcrn0g04.png": NO_IMAGE,
    "pngsuite-xd0n2c08.png": NO_IMAGE,
    "pngsuite-xd9n2c08.png": NO_IMAGE,
    "pngsuite-xhdn0g08.png": NO_IMAGE,
    "pngsuite-xs1n0g01.png": NO_IMAGE,
}


def photo(height: int = 24, width: int = 40) -> Image.Image:
    """Smooth colors without any symmetry, so that every turn of it differs."""
    y, x = np.mgrid[:height, :width]
    planes = (6 * x, 4 * y + 2 * x, 255 - 9 * y)
    return Image.fromarray(np.stack(planes, 2).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def apart(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


# Real files


@pytest.mark.parametrize("name", UPRIGHT)
@pytest.mark.gate("R10")
def test_decodes_the_odd_file(shared: Path, name: str):
    data = (shared / "data/bad/images" / name).read_bytes()
    (height, width), color = UPRIGHT[name]
    image = decode(data)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.mean((0, 1)) == pytest.approx(color, abs=1)
    assert image_size(data) == (width, height)
    assert decode(data, channels=1).shape == (height, width, 1)


@pytest.mark.parametrize("name", QUARANTINED)
@pytest.mark.gate("R10")
def test_quarantines_the_damaged_file(shared: Path, name: str):
    data = (shared / "data/bad/images" / name).read_bytes()
    with pytest.raises(BadImage, match=QUARANTINED[name]):
        decode(data)
    with pytest.raises(BadImage):
        decode(data, channels=1)


@pytest.mark.gate("R10")
def test_no_odd_file_is_left_out(shared: Path, measured: Measured):
    files = {path.name for path in (shared / "data/bad/images").iterdir()}
    assert files <= UPRIGHT.keys() | QUARANTINED.keys()
    measured(f"{len(files & UPRIGHT.keys())} as they should look, {len(files & QUARANTINED.keys())} quarantined")


@pytest.mark.parametrize("name", [name for name in UPRIGHT if "orientation" in name or "Landscape" in name])
def test_orientation_as_pillow_applies_it(shared: Path, name: str):
    path = shared / "data/bad/images" / name
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert apart(decode(path.read_bytes()), upright) < 1.5


@pytest.mark.parametrize("shard", ["clothing128/val-000.tar", "imagenette112/val-000.tar"])
def test_sound_photos_equal_pillow(shared: Path, shard: str):
    import tarfile

    with tarfile.open(shared / "data" / shard) as tar:
        for member in tar.getmembers()[:200:2]:
            stream = tar.extractfile(member)
            assert stream is not None
            data = stream.read()
            with Image.open(io.BytesIO(data)) as image:
                expected = np.asarray(image.convert("RGB"))
            assert apart(decode(data), expected) < 0.5
            assert image_size(data) == (expected.shape[1], expected.shape[0])


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("PNG", {}),
        ("WEBP", {"quality": 95}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_every_orientation_in_every_format(kind: str, options: dict, orientation: int):
    data = encoded(photo(), kind, exif=exif(orientation), **options)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert apart(decode(data), upright) < 1.5
    assert image_size(data) == (upright.shape[1], upright.shape[0])


def test_png_that_keeps_its_orientation_behind_its_pixels():
    plain, tagged = encoded(photo(), "PNG"), encoded(photo(), "PNG", exif=exif(6))
    start = tagged.index(b"eXIf") - 4
    chunk = tagged[start : start + 12 + int.from_bytes(tagged[start : start + 4], "big")]
    data = plain[:-12] + chunk + plain[-12:]
    assert decode(data).shape == (40, 24, 3)
    assert image_size(data) == (24, 40)


def test_damaged_exif_leaves_a_sound_photo_alone():
    data = bytearray(encoded(photo(), "JPEG", exif=exif(6)))
    start = data.index(b"Exif\0\0") + 6
    for damage in (b"\xff" * 4, b"\0\0\xff\xff"):
        data[start + 4 : start + 8] = damage
        assert decode(bytes(data)).shape == (24, 40, 3)


def test_scaled_decoding_keeps_the_asked_size_and_the_orientation():
    data = encoded(photo(480, 640), "JPEG", exif=exif(6))
    image = decode_scaled(data, min_height=160, min_width=100)
    assert image.shape == (160, 120, 3)
    expected = Image.fromarray(decode(data)).resize((120, 160), Image.Resampling.BOX)
    assert apart(image, np.asarray(expected)) < 3
    assert decode_scaled(encoded(photo(), "PNG"), 2, 2).shape == (24, 40, 3)


# Depth, color, channels


def test_a_bitmap_without_its_file_header():
    data = encoded(photo(), "DIB")
    np.testing.assert_array_equal(decode(data), decode(encoded(photo(), "BMP")))
    assert image_size(data) == (40, 24)
    assert encode(data, None, 90, 3).suffix == "dib"


def test_lab_is_gray_by_way_of_its_colors():
    data = encoded(Image.merge("LAB", photo().split()), "TIFF")
    gray = np.asarray(Image.fromarray(decode(data)).convert("L"))
    np.testing.assert_array_equal(decode(data, channels=1)[:, :, 0], gray)


def test_16_bit_gray_is_scaled_not_saturated():
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    for kind in ("PNG", "TIFF"):
        image = decode(encoded(Image.fromarray(values), kind))
        np.testing.assert_array_equal(image[:, :, 1], values >> 8)


def test_integers_of_32_bits():
    values = np.linspace(0, 65535, 64).astype(np.int32).reshape(8, 8)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(values), "TIFF"))[:, :, 0], values >> 8)
    with pytest.raises(BadImage, match="no fixed scale"):
        decode(encoded(Image.fromarray(values * 1000 - 70000), "TIFF"))


def test_floats():
    ramp = np.linspace(0.2, 0.6, 64, dtype=np.float32).reshape(8, 8)
    unit = decode(encoded(Image.fromarray(ramp), "TIFF"))
    np.testing.assert_array_equal(unit[:, :, 2], np.rint(ramp * 255))
    for other in (ramp * 1e5 - 3e4, np.full((4, 4), 7, np.float32)):
        with pytest.raises(BadImage, match="no fixed scale"):
            decode(encoded(Image.fromarray(other), "TIFF"))
    for bad in (np.nan, np.inf):
        ramp[3, 3] = bad
        with pytest.raises(BadImage, match="finite"):
            decode(encoded(Image.fromarray(ramp), "TIFF"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_modes(mode: str):
    data = encoded(photo().convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    expected = photo().convert(mode).convert("RGB")
    assert apart(decode(data), np.asarray(expected)) == 0
    assert apart(decode(data, 1)[:, :, 0], np.asarray(expected.convert("L"))) < 1


def test_palette_with_transparency_keeps_its_colors():
    palette = photo().quantize(16)
    data = encoded(palette, "PNG", transparency=bytes(range(16)))
    assert apart(decode(data), np.asarray(palette.convert("RGB"))) == 0


def test_cmyk_jpeg_is_not_a_negative():
    assert apart(decode(encoded(photo().convert("CMYK"), "JPEG", quality=95)), np.asarray(photo())) < 6


def test_arrays_of_any_channels():
    values = np.arange(5 * 7 * 6, dtype=np.uint8).reshape(5, 7, 6)
    stream = io.BytesIO()
    np.save(stream, values)
    np.testing.assert_array_equal(decode(stream.getvalue(), channels=6), values)
    assert image_size(stream.getvalue()) == (7, 5)
    assert decode(stream.getvalue(), channels=6).flags.writeable
    with pytest.raises(BadImage, match="not of 3 channels"):
        decode(stream.getvalue())
    with pytest.raises(BadImage, match="6 channels"):
        decode(encoded(photo(), "PNG"), channels=6)


@pytest.mark.parametrize(
    "values", [np.zeros((4, 4, 3), np.float32), np.zeros(4, np.uint8), np.array([{"a": 1}], dtype=object)]
)
def test_other_arrays_are_refused(values: np.ndarray):
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=True)
    with pytest.raises(BadImage, match=r"a \.npy of"):
        decode(stream.getvalue())


def test_an_array_of_one_band_may_be_flat():
    values = np.arange(20, dtype=np.uint16).reshape(4, 5)
    stream = io.BytesIO()
    np.save(stream, values)
    raw = decode_raw(stream.getvalue(), 0)
    assert raw is not None and image_size(stream.getvalue()) == (5, 4)
    np.testing.assert_array_equal(raw.values, values[..., None])


@pytest.mark.parametrize("values", [np.zeros((2, 2, 2, 2), np.uint16), np.zeros((2, 2), complex)])
def test_arrays_that_are_no_images_are_not_taken_for_those_of_8_bits(values: np.ndarray):
    stream = io.BytesIO()
    np.save(stream, values)
    with pytest.raises(BadImage, match=r"a \.npy of .* not of numbers"):
        decode_raw(stream.getvalue(), 0)


def test_array_that_is_cut():
    stream = io.BytesIO()
    np.save(stream, np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(BadImage):
        decode(stream.getvalue()[:-1])


# Bounds and damage


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.gate("R12")
def test_the_cap_holds_in_every_format(kind: str):
    data = encoded(photo(), kind)
    assert decode(data, max_pixels=24 * 40).shape == (24, 40, 3)
    for read in (decode, image_size):
        with pytest.raises(BadImage, match="40 x 24 pixels, over the cap of 959"):
            read(data, max_pixels=959)


@pytest.mark.gate("R12")
def test_a_webp_canvas_is_capped_before_it_is_allocated():
    data = bytearray(encoded(photo(), "WEBP", exif=exif(1)))
    assert data[12:16] == b"VP8X"
    data[24:30] = b"\xff\x3f\0\xff\x3f\0"
    with pytest.raises(BadImage, match="16384 x 16384"):
        decode(bytes(data))


@pytest.mark.parametrize("size", [(1, 1), (65_500, 1), (1, 65_500)])
@pytest.mark.gate("R10")
def test_extreme_sizes(size: tuple[int, int]):
    for kind in ("JPEG", "PNG"):
        data = encoded(Image.new("RGB", size, (200, 10, 90)), kind)
        assert decode(data).shape == (size[1], size[0], 3)
        assert image_size(data) == size


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"<!DOCTYPE html><html>404</html>",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
        b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(64),
        b"8BPS\0\x01" + bytes(64),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x93NUMPY\x01\0\xff\xff{" + b"(" * 400,
        b"RIFF\x20\0\0\0WEBP",
    ],
)
def test_what_is_no_image_at_all(data: bytes):
    for read in (decode, image_size):
        with pytest.raises(BadImage) as caught:
            read(data)
        assert 0 < len(str(caught.value)) <= 160
        assert "0x" not in str(caught.value)


def test_a_cut_jpeg_shows_without_decoding():
    data = encoded(photo(200, 300), "JPEG")
    assert not cut_short(data)
    assert cut_short(data[:-2])
    with pytest.raises(BadImage, match="Premature end"):
        decode(data[: len(data) // 2])


def test_garbage_inside_a_jpeg_is_refused():
    data = bytearray(encoded(photo(200, 300), "JPEG"))
    middle = len(data) // 2
    data[middle : middle + 200] = random.Random(0).randbytes(200)
    with pytest.raises(BadImage):
        decode(bytes(data))


def test_damage_raises_nothing_but_bad_image():
    chance = random.Random(1)
    sound = [encoded(photo(), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM")]
    for _ in range(600):
        data = bytearray(chance.choice(sound))
        for _ in range(chance.choice((1, 3, 10))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        for read in (decode, image_size):
            try:
                read(bytes(data[: chance.randrange(len(data))] if chance.random() < 0.3 else data), max_pixels=10**6)
            except BadImage as error:
                assert str(error)


def test_no_global_state_changes_and_threads_agree(shared: Path):
    data = (shared / "data/bad/images/pil-apng_chunk_multi_actl.png").read_bytes()  # Pillow warns of this one
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    seen = []

    def work() -> None:
        seen.extend(zlib.crc32(decode(data).tobytes()) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 80
    assert len(set(seen)) == 1
    assert warnings.filters == filters
    assert limit == Image.MAX_IMAGE_PIXELS


def test_damaged_images_write_nothing_to_the_terminal(shared: Path, capfd: pytest.CaptureFixture[str]):
    for path in sorted((shared / "data/bad/images").iterdir()):
        with contextlib.suppress(BadImage):
            decode(path.read_bytes())
    said = capfd.readouterr()
    assert said.out == said.err == ""


def test_a_damaged_color_profile_is_no_damage_of_the_pixels():
    """Two segments that both say to be the first of one."""
    file = io.BytesIO()
    Image.fromarray(np.full((16, 24, 3), 90, np.uint8)).save(file, "JPEG")
    data, profile = file.getvalue(), b"ICC_PROFILE\0\1\1" + bytes(99)
    segment = b"\xff\xe2" + (len(profile) + 2).to_bytes(2, "big") + profile
    assert (decode(data[:2] + 2 * segment + data[2:]) == decode(data)).all()


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is None, reason="needs pillow_heif")
def test_heic(monkeypatch: pytest.MonkeyPatch):
    importlib.import_module("pillow_heif").register_heif_opener()
    values = np.repeat(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], 48, 0).repeat(3, axis=2)
    data = encoded(Image.fromarray(values), "HEIF", quality=100)
    assert image_size(data) == (64, 48) and np.abs(decode(data).astype(int) - values).mean() < 3
    with pytest.raises(BadImage, match="over the cap"):
        decode(data, max_pixels=100)
    with pytest.raises(BadImage, match="damaged"):
        decode(data[:200])
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadImage, match="mae_kit"):
        decode(data[:200])
