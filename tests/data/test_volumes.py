"""DICOM, NIfTI and .npz: their values as they are meant, and damaged ones in one line."""

import gzip
import io
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.volumes import dicom, nifti, pydicom

from mae_kit.data.decode import count_pages, decode_raw
from mae_kit.errors import BadImage


def read(data: bytes, page: int = 0) -> np.ndarray:
    raw = decode_raw(data, 0, page=page)
    assert raw is not None
    return raw.values


RAMP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100


def test_dicom():
    np.testing.assert_array_equal(read(dicom(RAMP))[..., 0], RAMP)
    assert read(dicom(RAMP)).dtype == np.uint16


def test_dicom_is_rescaled():
    """Hounsfield units stay integers; a slope of .5 makes floats."""
    found = read(dicom(RAMP, RescaleSlope=1, RescaleIntercept=-1024))
    assert found.dtype == np.int16 and (found[..., 0] == RAMP.astype(int) - 1024).all()
    halves = read(dicom(RAMP, RescaleSlope=0.5, RescaleIntercept=3))
    assert halves.dtype == np.float32 and (halves[..., 0] == RAMP * 0.5 + 3).all()


def test_dicom_where_much_is_black_is_inverted():
    found = read(dicom(RAMP, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(found[..., 0], 4095 - RAMP)


def test_frames_of_a_dicom():
    frames = np.stack([RAMP, RAMP + 1, RAMP + 2])
    data = dicom(frames)
    assert count_pages(data) == 3
    for number in range(3):
        np.testing.assert_array_equal(read(data, number)[..., 0], frames[number])
    raw = decode_raw(data)
    assert raw is not None and "2 of 3 frames" in raw.left_out


def enhanced(frames: np.ndarray, shared: float | None, slopes: list[float]) -> bytes:
    """Slopes where enhanced CT and MR have them: once for all frames, or for each."""

    def group(slope: float) -> Any:
        inside, outside = pydicom.Dataset(), pydicom.Dataset()
        inside.RescaleSlope, inside.RescaleIntercept = slope, -10
        outside.PixelValueTransformationSequence = pydicom.Sequence([inside])
        return outside

    tags = {"SharedFunctionalGroupsSequence": pydicom.Sequence([group(shared) if shared else pydicom.Dataset()])}
    each = [group(slope) for slope in slopes] or [pydicom.Dataset() for _ in frames]
    return dicom(frames, PerFrameFunctionalGroupsSequence=pydicom.Sequence(each), **tags)


@pytest.mark.parametrize(("shared", "slopes"), [(2.0, []), (None, [2.0, 0.5]), (3.0, [2.0, 0.5])])
def test_frames_of_an_enhanced_dicom_are_rescaled(shared: float | None, slopes: list[float]):
    frames = np.stack([RAMP, RAMP + 1])
    for number, slope in enumerate(slopes or [2.0, 2.0]):
        found = read(enhanced(frames, shared, slopes), number)[..., 0]
        np.testing.assert_array_equal(found, frames[number] * slope - 10)


def test_colors_of_a_palette_dicom():
    colors = np.array([[0, 65535], [0, 256], [512, 0]], np.uint16)
    table, tags = "{}PaletteColorLookupTable{}", {}
    for name, levels in zip(("Red", "Green", "Blue"), colors, strict=True):
        tags |= {table.format(name, "Data"): levels.tobytes(), table.format(name, "Descriptor"): [2, 0, 16]}
    found = read(dicom(np.array([[0, 1, 1]], np.uint16), PhotometricInterpretation="PALETTE COLOR", **tags))
    np.testing.assert_array_equal(found, colors.T[[0, 1, 1]][None])


def test_a_deflated_dicom():
    data = dicom(RAMP, syntax=pydicom.uid.DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(read(data)[..., 0], RAMP)


def test_a_deflated_dicom_is_held_against_the_cap_before_it_is_inflated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mae_kit.data.volumes.MOST_BYTES", 1_000_000)
    data = dicom(np.zeros((6000, 6000), np.uint16), syntax=pydicom.uid.DeflatedExplicitVRLittleEndian)
    tracemalloc.start()
    with pytest.raises(BadImage, match="cap"):
        decode_raw(data, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000, "of 72 MB"


def samples() -> list[Path]:
    """The files that pydicom brings along: every transfer syntax, and files that are damaged or no images."""
    folder = Path(pydicom.__file__).parent / "data/test_files"
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.read_bytes()[128:132] == b"DICM")


@pytest.mark.parametrize("path", samples(), ids=lambda path: path.name)
def test_samples_of_pydicom_are_read_or_have_a_line_that_is_no_error_of_python(path: Path):
    try:
        pages = count_pages(path.read_bytes())
        assert read(path.read_bytes(), pages - 1).ndim == 3
    except BadImage as error:
        words = str(error)
        assert len(words.splitlines()) == 1 and "object has no attribute" not in words


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["int16", "uint8", "float32"])
def test_slices_of_a_nifti(kind: str, packed: bool):
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(kind)
    data = gzip.compress(nifti(values)) if packed else nifti(values)
    assert count_pages(data) == 4
    for number in range(4):
        np.testing.assert_array_equal(read(data, number)[..., 0], values[..., number].T)


def test_a_nifti_is_rescaled_and_may_be_flat_or_deep():
    np.testing.assert_allclose(read(nifti(np.array([[[1], [2]]], np.int16), slope=2, inter=5))[..., 0], [[7], [9]])
    assert count_pages(nifti(np.zeros((2, 3), np.int16))) == 1
    deep = np.arange(24, dtype=np.int16).reshape(2, 1, 3, 4)
    found = [read(nifti(deep), number)[0, :, 0].tolist() for number in range(12)]
    assert found == [deep[:, 0, number % 3, number // 3].tolist() for number in range(12)]


def test_arrays_of_a_npz():
    stream = io.BytesIO()
    np.savez(stream, first=RAMP, second=np.zeros((2, 2, 5), np.float32))
    data = stream.getvalue()
    assert count_pages(data) == 2 and read(data, 1).shape == (2, 2, 5)
    np.testing.assert_array_equal(read(data)[..., 0], RAMP)


def test_an_array_over_the_cap_is_not_unpacked():
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.zeros((4000, 8000), np.float32))
    tracemalloc.start()
    with pytest.raises(BadImage, match="cap"):
        decode_raw(stream.getvalue(), 0, max_pixels=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000, "of 128 MB"


def lying(**sizes: int) -> bytes:
    """A DICOM whose header claims more than it holds."""
    return dicom(RAMP, **sizes)


def cut_nifti() -> bytes:
    return nifti(np.zeros((20, 20, 20), np.int16))[:-100]


def huge_nifti() -> bytes:
    data = bytearray(nifti(np.zeros((2, 2, 2), np.int16)))
    data[40:48] = np.array([3, 30000, 2000, 30000], "<i2").tobytes()
    return bytes(data)


def pickled() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.array([{}], dtype=object))
    return stream.getvalue()


def encrypted() -> bytes:
    image = pydicom.dcmread(io.BytesIO(dicom(RAMP)))
    del image.PixelData
    image.EncryptedAttributesSequence = pydicom.Sequence([pydicom.Dataset()])
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, image)
    return stream.getvalue()


def without_rows() -> bytes:
    image = pydicom.dcmread(io.BytesIO(dicom(RAMP)))
    del image.Rows
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, image)
    return stream.getvalue()


BAD = {
    "a large image": (lambda: lying(Rows=60000, Columns=60000), "cap"),
    "many frames": (lambda: lying(NumberOfFrames=10**8), "cap"),
    "more rows": (lambda: lying(Rows=200), "cut"),
    "cut pixels": (lambda: dicom(RAMP)[:-10], "cut"),
    "cut header": (lambda: dicom(RAMP)[:140], ""),
    "encrypted": (encrypted, "encrypted"),
    "no decoder": (lambda: dicom(RAMP, syntax=pydicom.uid.JPEGLSLossless), "decoder is installed.*pylibjpeg.all"),
    "no image inside": (lambda: dicom(RAMP, syntax=pydicom.uid.JPEG2000), "JPEG 2000.*does not decode: pillow"),
    "a video": (lambda: dicom(RAMP, syntax=pydicom.uid.MPEG2MPML), "MPEG2.*not read"),
    "a table of values": (lambda: dicom(RAMP, ModalityLUTSequence=pydicom.Sequence([pydicom.Dataset()])), "table"),
    "no size": (without_rows, "without pixels"),
    "cut slices": (cut_nifti, "cut"),
    "many slices": (huge_nifti, "cap"),
    "cut gzip": (lambda: gzip.compress(nifti(np.zeros((4, 4, 4), np.int16)))[:-20], ""),
    "complex": (lambda: nifti(np.zeros((2, 2, 2), np.complex64)), "complex"),
    "pickled": (pickled, ""),
    "no zip": (lambda: b"PK\x03\x04" + bytes(100), ""),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_have_one_line(name: str):
    make, word = BAD[name]
    with pytest.raises(BadImage, match=word or None) as error:
        decode_raw(make(), 0)
    assert len(str(error.value).splitlines()) == 1


def test_damaged_fields_print_nothing(capfd: pytest.CaptureFixture[str]):
    data = bytearray(nifti(np.zeros((2, 3, 2), np.int16)))
    data[252:256] = b"\xff" * 4  # codes of the coordinates
    assert read(bytes(data)).shape == (3, 2, 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("library", ["pydicom", "nibabel"])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, library: str):
    monkeypatch.setitem(sys.modules, library, None)
    data = dicom(RAMP) if library == "pydicom" else nifti(np.zeros((2, 2, 2), np.int16))
    with pytest.raises(BadImage, match="medical"):
        decode_raw(data, 0)
