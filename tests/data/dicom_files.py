"""DICOM files for tests: those that pydicom brings, and made-up ones."""

from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

DICOM = Path(pydicom.__file__).parent / "data" / "test_files"
DICOM_FILES = sorted(path for path in DICOM.rglob("*") if path.is_file())
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def write_dicom(path, array, **elements):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3"
    bits = elements.pop("bits", 12)
    dataset.set_pixel_data(array, elements.pop("kind", "MONOCHROME2"), bits)
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return str(path)
