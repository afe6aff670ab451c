"""Files of arrays beyond pictures: DICOM by pydicom, NIfTI by nibabel, .npz; each as pages of bands."""

import importlib
import io
import math
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num

from mae_kit.errors import BadImage

SUFFIXES = frozenset(("dcm", "dicom", "nii", "nii.gz", "npz"))
MOST_BYTES = 1 << 30  # of the values of a file
_DICOM, _GZIP, _ZIP = b"DICM", b"\x1f\x8b", b"PK\x03\x04"
_NIFTI = {344: (b"n+1\0",), 4: (b"n+2\0",)}  # place of the magic bytes
_NIFTI_START = 348  # bytes that tell


class Volume(NamedTuple):
    """The pages of a file: frames, slices or arrays.

    Attributes:
        count: How many.
        kind: What they are called.
        page: Reads one, [h w c].
    """

    count: int
    kind: str
    page: Callable[[int], Num[np.ndarray, "h w c"]]


def is_volume(data: bytes) -> bool:
    return data[128:132] == _DICOM or data.startswith(_ZIP) or _is_nifti(data)


def open_volume(data: bytes, max_pixels: int) -> Volume:
    """Read the header, hold it against the caps, and make ready to read pages.

    Raises:
        BadImage: Over a cap, cut, encrypted, compressed in a way that nothing installed reads, or without its library.
    """
    if data[128:132] == _DICOM:
        return _dicom(data, max_pixels)
    return _arrays(data, max_pixels) if data.startswith(_ZIP) else _nifti(data, max_pixels)


def _check(shape: tuple[int, ...], bytes_each: int, max_pixels: int) -> None:
    """Of [pages h w c]."""
    _, height, width, _ = shape
    if min(shape) < 1 or height * width > max_pixels:
        raise BadImage(f"{width} x {height} pixels, over the cap of {max_pixels:,}" if min(shape) > 0 else "no pixels")
    if (size := math.prod(shape) * bytes_each) > MOST_BYTES:
        raise BadImage(f"{size:,} bytes of values, over the cap of {MOST_BYTES:,}")


def _library(name: str, kind: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BadImage(f"a {kind} file, which {name} reads: pip install 'mae_kit[medical]'") from None


# DICOM


def _dicom(data: bytes, max_pixels: int) -> Volume:
    pydicom = _library("pydicom", "DICOM")
    _check_deflated(data, pydicom)
    image = pydicom.dcmread(io.BytesIO(data))
    if "EncryptedAttributesSequence" in image and "PixelData" not in image:
        raise BadImage("an encrypted DICOM file")
    if "Rows" not in image or ("PixelData" not in image and "FloatPixelData" not in image):
        raise BadImage("a DICOM file without pixels")
    frames, bands = int(image.get("NumberOfFrames") or 1), int(image.get("SamplesPerPixel") or 1)
    shape, bits = (frames, image.Rows, image.Columns, bands), int(image.get("BitsAllocated", 32))
    _check(shape, bits // 8 or 1, max_pixels)
    stored, syntax = len(image.get("PixelData", b"")), image.file_meta.TransferSyntaxUID
    if stored and not syntax.is_compressed and stored < pydicom.pixels.utils.get_expected_length(image):
        raise BadImage("a DICOM file that is cut")
    try:
        if not pydicom.pixels.get_decoder(syntax).is_available:
            fix = "pip install 'pylibjpeg[all]'"
            raise BadImage(f"DICOM in {syntax.name}, for which no decoder is installed: {fix}")
    except NotImplementedError:
        raise BadImage(f"DICOM in {syntax.name}, which is not read") from None

    def page(number: int) -> np.ndarray:
        try:
            values = pydicom.pixels.pixel_array(image, index=number)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()  # each decoder has a line
            raise BadImage(f"DICOM in {syntax.name} that does not decode: {reason}") from None
        if image.get("PhotometricInterpretation") == "PALETTE COLOR":
            return pydicom.pixels.apply_color_lut(values, image)
        return _rescaled(values.reshape(image.Rows, image.Columns, bands), image, _transformation(image, number))

    return Volume(frames, "frames", page)


def _check_deflated(data: bytes, pydicom: Any) -> None:
    """Hold the size of a deflated file against the cap, since pydicom inflates all of it."""
    stream = io.BytesIO(data)
    stream.seek(len(data[:128]) + len(_DICOM))
    meta = pydicom.filereader.read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
        unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
        unpacking.decompress(stream.read(), MOST_BYTES)
        if not unpacking.eof:
            raise BadImage("a deflated DICOM file that is cut, or over the cap")


def _transformation(image: Any, number: int) -> Any:
    """Where the slope and intercept of a frame are: enhanced files have them per frame, or once for all frames."""
    for groups, place in (("PerFrameFunctionalGroupsSequence", number), ("SharedFunctionalGroupsSequence", 0)):
        if found := image.get(groups) and image[groups][place].get("PixelValueTransformationSequence"):
            return found[0]
    return image


def _rescaled(values: Num[np.ndarray, "h w c"], image: Any, meant: Any) -> Num[np.ndarray, "h w c"]:
    """Stored values to those that are meant: `RescaleSlope` and `RescaleIntercept`; bright is much also in MONOCHROME1.

    Integers where the header says that all of them can be uint16 or int16, so that one series is of one kind.
    """
    if values.dtype.kind == "f" or values.shape[2] > 1:
        return values
    bits, signed = int(image.BitsStored), bool(image.PixelRepresentation)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if image.get("PhotometricInterpretation") == "MONOCHROME1":
        values = (low + high - values.astype(np.int64)).astype(values.dtype)
    if "ModalityLUTSequence" in image:
        raise BadImage("a DICOM file with a table of values (ModalityLUTSequence), which is not read")
    slope, intercept = float(meant.get("RescaleSlope", 1) or 1), float(meant.get("RescaleIntercept", 0) or 0)
    if (slope, intercept) == (1, 0):
        return values
    ends = sorted((slope * low + intercept, slope * high + intercept))
    scaled = values.astype(np.float64) * slope + intercept
    if slope.is_integer() and intercept.is_integer() and ends[0] >= -(2**15) and ends[1] < 2**15:
        return scaled.astype(np.int16)
    return scaled.astype(np.float32)


# NIfTI


def _is_nifti(data: bytes) -> bool:
    if not data.startswith(_GZIP):
        start = data[:_NIFTI_START]
    else:
        try:
            start = zlib.decompressobj(31).decompress(data[:4096], _NIFTI_START)
        except zlib.error:
            return False
    return any(start[place : place + 4] in magic for place, magic in _NIFTI.items())


def _nifti(data: bytes, max_pixels: int) -> Volume:
    """Slices along the third axis, of each volume in turn; rows are the second axis."""
    nibabel = _library("nibabel", "NIfTI")
    if data.startswith(_GZIP):
        unpacking = zlib.decompressobj(31)
        data = unpacking.decompress(data, MOST_BYTES + (1 << 20))
        if not unpacking.eof:
            raise BadImage("a NIfTI file that is cut, or over the cap")
    with nibabel.imageglobals.LoggingOutputSuppressor():  # a line of it for each damaged field
        image = (nibabel.Nifti1Image if data[344:348] == b"n+1\0" else nibabel.Nifti2Image).from_bytes(data)
    width, height, *deep = (*image.shape, 1)[: max(3, len(image.shape))]
    kind = image.get_data_dtype()
    if kind.kind not in "uif":
        raise BadImage(f"a NIfTI file of {kind} values, which are not read")
    _check((math.prod(deep), height, width, 1), kind.itemsize, max_pixels)
    if len(data) < int(image.dataobj.offset) + math.prod(image.shape) * kind.itemsize:
        raise BadImage("a NIfTI file that is cut")

    def page(number: int) -> np.ndarray:
        place = np.unravel_index(number, deep, order="F")
        values = image.dataobj[(slice(None), slice(None), *map(int, place))[: max(2, len(image.shape))]]
        return np.ascontiguousarray(np.asarray(values).reshape(width, height).T)[..., None]

    return Volume(math.prod(deep), "slices", page)


# .npz


def _arrays(data: bytes, max_pixels: int) -> Volume:
    """Arrays [h w] or [h w c] of a .npz, a page each; nothing is unpickled."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        names = [entry.filename for entry in file.infolist() if entry.filename.endswith(".npy")]
        if not names:
            raise BadImage("a zip file without arrays")
        if sum(entry.file_size for entry in file.infolist()) > MOST_BYTES:
            raise BadImage(f"a .npz of more than {MOST_BYTES:,} bytes")

    def page(number: int) -> np.ndarray:
        with zipfile.ZipFile(io.BytesIO(data)) as file, file.open(names[number]) as stream:
            shape, _, dtype = array_header(stream)
            if len(shape) not in (2, 3) or dtype.kind not in "uif":
                raise BadImage(f"an array of {dtype} {list(shape)}, not [h w] or [h w c]")
            _check((1, *shape, 1)[:4], dtype.itemsize, max_pixels)  # before it is unpacked
            stream.seek(0)
            values = np.lib.format.read_array(stream, allow_pickle=False)
        return values[..., None] if values.ndim == 2 else values

    return Volume(len(names), "arrays", page)


def array_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, whether it is in Fortran order, and type of a .npy from a binary stream: a literal, not unpickled."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)
