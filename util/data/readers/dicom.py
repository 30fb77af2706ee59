"""DICOM: one frame, as its modality transform and its window (VOI LUT) show it. Only what the pixels need is read:
patients' data never enter memory."""

import logging
import warnings
from typing import Any

import numpy as np

from util.data.readers.base import Pixels, chosen_frame, from_array, need, reader
from util.data.reading import Ends, Reading

DIRECTORY = b"1.2.840.10008.1.3.10"  # a DICOMDIR: a list of files
LUT_PARTS = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
TAGS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "FloatPixelData"),
    *("DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "SOPClassUID"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(f"{part}{end}" for part in LUT_PARTS for end in ("Descriptor", "Data")),
    *(f"Segmented{part}Data" for part in LUT_PARTS),
]
FAR = 1e12  # beyond any window


@reader("DICOM", lambda head: head[128:132] == b"DICM" and DIRECTORY not in head)
def read(path: str, reading: Reading) -> Pixels:
    """A frame. ``--window`` replaces the file's window; without either, the data set's range is used."""
    pydicom = quiet(need("pydicom"))
    pixels, processing = need("pydicom.pixels"), need("pydicom.pixels.processing")
    dataset = pydicom.dcmread(path, specific_tags=TAGS)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ValueError("it holds no image")
    frames = int(dataset.get("NumberOfFrames") or 1)
    frame = chosen_frame(frames, reading)
    array = pixels.pixel_array(dataset, index=frame)
    kind = dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        array = processing.apply_color_lut(array, dataset)
        return from_array(array, window=None if array.dtype == np.uint8 else (0, 2**16 - 1))
    if not kind.startswith("MONOCHROME"):
        return from_array(array, stored_range(dataset))
    return grey(array, of_frame(dataset, frame), reading, processing)


def quiet(pydicom: Any) -> Any:
    """pydicom, silenced: its warnings may quote what a header says."""
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    return pydicom


def of_frame(dataset: Any, frame: int) -> Any:
    """The data set with what enhanced files say of modality and window for all frames or for this one."""
    for name, number in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", frame)):
        groups = dataset.get(name)
        group = groups[number] if groups and number < len(groups) else {}
        for sequence in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in group.get(sequence) or []:
                dataset.update({element.tag: element for element in item})
    return dataset


def grey(array: np.ndarray, dataset: Any, reading: Reading, processing: Any) -> Pixels:
    """A frame of grey levels ``[H, W]`` after the modality transform and, unless --window replaces it, the VOI window."""
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    windowed, table = has_window(dataset), bool(dataset.get("VOILUTSequence"))
    bit_range = stored_range(dataset)
    levels = array
    if dataset.get("ModalityLUTSequence"):
        levels = processing.apply_modality_lut(array, dataset)
        bit_range = (0, 2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    elif (rescale := (stated(dataset, "RescaleSlope", 1), stated(dataset, "RescaleIntercept", 0))) != (1, 0):
        slope, intercept = rescale
        levels = array * slope + intercept
        if bit_range:
            low, high = sorted(slope * end + intercept for end in bit_range)
            bit_range = (low, high)
    if table and reading.window is None:
        *entries, depth = dataset.VOILUTSequence[0].LUTDescriptor
        dataset.VOILUTSequence[0].LUTDescriptor = [*entries, 16]  # pydicom would count entries in as few bits as this says
        return from_array(
            processing.apply_voi(np.rint(levels).astype(np.int64), dataset), window=(0, 2**depth - 1), inverted=inverted
        )
    if windowed and reading.window is None:
        with np.errstate(over="ignore"):  # in the tail of a sigmoid
            black, white = processing.apply_windowing(np.array([-FAR, FAR]), dataset).tolist()
            return from_array(processing.apply_windowing(levels, dataset), window=(black, white), inverted=inverted)
    if windowed or table or levels is not array or array.dtype != np.uint8:
        deep = levels.astype(np.float32) if levels.dtype == np.uint8 else levels
        return from_array(deep, bit_range, inverted=inverted)
    top = 2**dataset.BitsStored - 1
    return from_array(array if top == 255 else np.rint(array * (255 / top)).astype(np.uint8), inverted=inverted)


def stated(dataset: Any, name: str, otherwise: float) -> float:
    """The number of an element; ``otherwise`` where it is missing or empty."""
    value = dataset.get(name)
    return otherwise if value in (None, "") else float(value)


def stored_range(dataset: Any) -> Ends | None:
    """The range that Bits Stored tells; None where it is all that is allocated, which tells nothing beyond 8 bits."""
    bits = dataset.get("BitsStored")
    if not bits or (bits == dataset.BitsAllocated and bits > 8):
        return None
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)


def has_window(dataset: Any) -> bool:
    """Whether the file has a window of a width that the standard allows."""
    centre, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if centre in (None, "") or width in (None, ""):
        return False
    width = float(width if isinstance(width, int | float) else width[0])
    return width >= 1 or (width > 0 and dataset.get("VOILUTFunction", "LINEAR") != "LINEAR")
