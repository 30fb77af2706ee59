"""DICOM: each file of pydicom's own is read as pydicom reads it, or refused in one line; windows, tables, frames."""

import numpy as np
import pytest
import torch
from data.dicom_files import DICOM_FILES, RAMP, pydicom, write_dicom

from util.data.images import read_image, read_mask, read_pixels
from util.data.reading import Reading
from util.system.errors import InputError


def by_pydicom(path, frame):
    """A frame as pydicom shows it, from 0 to 255; grey levels that no window settles, and their ends, from 0 to 255 too."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

    dataset = pydicom.dcmread(path)
    array = pixel_array(dataset, index=frame)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return apply_color_lut(array, dataset) / 65535 * 255
    if dataset.SamplesPerPixel > 1:
        return array if array.dtype == np.uint8 else None
    levels = apply_modality_lut(array, dataset)
    shown = apply_voi_lut(levels, dataset)
    if shown is levels:  # no window
        if array.dtype == np.uint8:
            return array * (255 / (2**dataset.BitsStored - 1))  # a segmentation has one bit
        low, high = np.percentile(levels, (0.1, 99.9))
        if 8 < dataset.BitsStored < dataset.BitsAllocated:
            low, high = 0, 2**dataset.BitsStored - 1
    else:
        signed = dataset.PixelRepresentation
        low, high = (-(2 ** (dataset.BitsStored - 1)) if signed else 0), 2 ** (dataset.BitsStored - signed) - 1
        low, high = (end * dataset.get("RescaleSlope", 1) + dataset.get("RescaleIntercept", 0) for end in (low, high))
    shown = 255 * ((shown - low) / (high - low)).clip(0, 1)
    return 255 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_file_of_pydicoms_is_read_as_pydicom_does_or_refused_by_name():
    read = {"images": 0, "frames": 0, "refused": 0}
    for path in DICOM_FILES:
        reading = Reading()
        try:
            image = read_image(str(path))
        except InputError as error:
            assert path.name in str(error) and "\n" not in str(error)
            if "--frame" not in str(error):
                read["refused"] += 1
                continue
            reading = Reading(frame=1)
            image = read_image(str(path), reading)
        read["frames" if reading.frame else "images"] += 1
        expected = by_pydicom(path, reading.frame or 0)
        if expected is not None:  # colours of 16 bits have their own test
            expected = torch.from_numpy(np.array(expected, dtype=np.float32))
            expected = expected.permute(2, 0, 1) if expected.ndim == 3 else expected.expand(3, -1, -1)
            torch.testing.assert_close(image.float(), expected, atol=2e-3, rtol=0, msg=str(path))
    assert read["images"] > 60 and read["frames"] > 4, read


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_refused_of_pydicoms_holds_no_image_or_is_broken():
    """What pydicom shows, this shows: a refused file is one without pixels or meta data, or that pydicom cannot decode."""
    from pydicom.pixels import pixel_array

    for path in DICOM_FILES:
        try:
            read_image(str(path), Reading(frame=0))
        except InputError:
            with pytest.raises(Exception):  # noqa: B017 (of any kind)
                pixel_array(path, index=0)


def test_windows_of_dicom(tmp_path):
    """None: the bits in use; the file's; a typed one goes before it. Slope and intercept come first."""
    hu = RAMP.astype(np.float64) - 1024
    ramp = torch.from_numpy(hu).float()
    plain = write_dicom(tmp_path / "plain", RAMP, RescaleSlope=1, RescaleIntercept=-1024)
    windowed = write_dicom(tmp_path / "windowed", RAMP, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=[40, 600],
                           WindowWidth=[400, 1500])  # fmt: skip
    assert read_pixels(plain, Reading()).bit_range == (-1024, 3071)
    torch.testing.assert_close(read_image(plain)[0], (ramp + 1024) / 4095 * 255)
    torch.testing.assert_close(read_image(plain, Reading((0, 1000)))[0], (ramp / 1000).clamp(0, 1) * 255)
    own = ((ramp - 39.5) / 399 + 0.5).clamp(0, 1) * 255  # PS3.3 C.11.2.1.2
    for reading in (Reading(), Reading((0, 1000))):
        torch.testing.assert_close(read_image(windowed, reading)[0], own, atol=1e-3, rtol=0)
    typed = (ramp / 80).clamp(0, 1) * 255
    for path in (plain, windowed):
        torch.testing.assert_close(read_image(path, Reading(window=(40, 80)))[0], typed)
    unusable = write_dicom(tmp_path / "unusable", RAMP, WindowCenter=0, WindowWidth=0)
    torch.testing.assert_close(read_image(unusable)[0], torch.from_numpy(RAMP).float() / 4095 * 255)


@pytest.mark.parametrize("lacking", ["RescaleSlope", "RescaleIntercept"])
def test_half_a_rescaling(lacking, tmp_path):
    path = write_dicom(tmp_path / "x", RAMP)
    dataset = pydicom.dcmread(path)
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
    del dataset[lacking]
    dataset.save_as(path)
    slope, intercept = (1, -1024) if lacking == "RescaleSlope" else (2, 0)
    levels = torch.from_numpy(RAMP).float() * slope + intercept
    shown = read_image(path, Reading((-1000, 1000)))[0]
    torch.testing.assert_close(shown, (255 * (levels + 1000) / 2000).clamp(0, 255))


def test_monochrome1_is_inverted(tmp_path):
    plain, inverse = (write_dicom(tmp_path / kind, RAMP, kind=kind) for kind in ("MONOCHROME2", "MONOCHROME1"))
    for reading in (Reading(), Reading((100, 300)), Reading(window=(40, 80))):
        torch.testing.assert_close(read_image(inverse, reading), 255 - read_image(plain, reading))
    eight = write_dicom(tmp_path / "eight", (RAMP % 256).astype(np.uint8), kind="MONOCHROME1", bits=8)
    assert read_image(eight).dtype == torch.uint8 and (read_image(eight)[0, 0, :3] == torch.tensor([255, 254, 253])).all()


@pytest.mark.parametrize("bits", [12, 16])
def test_a_mask_marks_what_looks_brighter(tmp_path, bits):
    mask = np.zeros((8, 8), np.uint16)
    mask[2:4, 3:6] = 1
    for kind, marked in (("MONOCHROME2", mask), ("MONOCHROME1", 1 - mask)):
        found = read_mask(write_dicom(tmp_path / kind, mask, kind=kind, bits=bits))
        np.testing.assert_array_equal(found, 255 * marked)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_lookup_table_of_dicom(tmp_path, depth):
    """A VOI table of 8 bits over 4,096 levels: counted in 8 bits, its entries would wrap around."""
    from pydicom.dataset import Dataset

    item = Dataset()
    table = (255 * np.sqrt(RAMP.ravel() / 4095)).astype(np.uint16) * (1 if depth == 8 else 257)
    item.LUTDescriptor, item.LUTData = [4096, 0, depth], table.tolist()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
    path = write_dicom(tmp_path / "table", RAMP, VOILUTSequence=[item])
    expected = torch.from_numpy(table.reshape(64, 64).astype(np.float32)) / (1 if depth == 8 else 257)
    torch.testing.assert_close(read_image(path)[0], expected)


def test_an_enhanced_file_has_a_window_for_each_frame(tmp_path):
    from pydicom.dataset import Dataset

    def group(centre):
        group, window, rescale = Dataset(), Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth, window.VOILUTFunction = centre, 100, "LINEAR_EXACT"
        rescale.RescaleSlope, rescale.RescaleIntercept = 2, 0
        group.FrameVOILUTSequence, group.PixelValueTransformationSequence = [window], [rescale]
        return group

    path = write_dicom(
        tmp_path / "enhanced", np.stack([RAMP, RAMP]), PerFrameFunctionalGroupsSequence=[group(50), group(500)]
    )
    with pytest.raises(InputError, match="2 frames: choose one by --frame, 0 to 1"):
        read_image(path)
    with pytest.raises(InputError, match="--frame 2 is not among 0 to 1"):
        read_image(path, Reading(frame=2))
    for frame, low in ((0, 0), (1, 450)):
        expected = ((2 * torch.from_numpy(RAMP).float() - low) / 100).clamp(0, 1) * 255
        torch.testing.assert_close(read_image(path, Reading(frame=frame))[0], expected, atol=1e-3, rtol=0)


def test_patients_data_never_enter_memory(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "named", RAMP, PatientName="Doe^Jane", PatientID="4711")
    seen = []
    read = pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda *args, **kwargs: seen.append(read(*args, **kwargs)) or seen[-1])
    read_image(path)
    assert len(seen) == 1 and "Jane" not in str(seen[0]) and "4711" not in str(seen[0]) and "PixelData" in seen[0]
