"""DICOM and NIfTI files of arrays."""

import io
from typing import Any

import numpy as np
import pytest

pydicom: Any = pytest.importorskip("pydicom")
nibabel: Any = pytest.importorskip("nibabel")


def dicom(values: np.ndarray, **tags) -> bytes:
    """An uncompressed DICOM of one or more gray frames."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = tags.pop("syntax", pydicom.uid.ExplicitVRLittleEndian)
    image = pydicom.dataset.Dataset()
    image.file_meta = meta
    image.Rows, image.Columns = values.shape[-2:]
    if values.ndim == 3:
        image.NumberOfFrames = len(values)
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = int(values.dtype.kind == "i")
    for name, value in tags.items():
        setattr(image, name, value)
    packed = meta.TransferSyntaxUID.is_compressed
    image.PixelData = pydicom.encaps.encapsulate([b"no image"]) if packed else values.tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, image, enforce_file_format=True)
    return stream.getvalue()


def nifti(values: np.ndarray, **how) -> bytes:
    image = nibabel.Nifti1Image(values, np.eye(4))
    if how:
        image.header.set_slope_inter(**how)
    return image.to_bytes()
