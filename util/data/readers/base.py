"""What a reader gives and what it is told: the parts that every format shares. A format is one file beside this one."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from util.data.reading import Ends, Reading
from util.system.errors import InputError


class MissingPackage(InputError):
    """A format needs a package that is not installed: no fault of the file."""


class NoDataSet(InputError):
    """A file looks like one that holds a whole data set and holds none that can be used."""


class Pixels(NamedTuple):
    """An image as its file holds it.

    Attributes:
        values: ``[1 or 3, H, W]``; uint8 needs nothing more (0 is black, 255 white), any other type is scaled.
        bit_range: the ends of the values by the bits that the file says it uses.
        window: the ends that the file itself wants to be black and white: its window was applied.
        inverted: the low end is white.
    """

    values: Tensor
    bit_range: Ends | None = None
    window: Ends | None = None
    inverted: bool = False


def from_array(
    array: np.ndarray, bit_range: Ends | None = None, window: Ends | None = None, inverted: bool = False
) -> Pixels:
    """Pixels of an array ``[H, W]`` or ``[H, W, channels]``; of a second or fourth channel (transparency) nothing is used.

    Raises:
        ValueError: when it has another shape, or values that are no numbers.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 2, 3, 4) or 0 in array.shape:
        raise ValueError(f"an array of shape {array.shape} is no image")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"pixels of type {array.dtype} are no grey levels or colours")
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    array = array[..., : 3 if array.shape[-1] > 2 else 1]
    if array.dtype == np.uint8 and window is None:
        bit_range, array, inverted = None, 255 - array if inverted else array, False
    elif array.dtype.kind == "f" or array.dtype.itemsize > 2 or array.dtype == np.uint8:
        array = array.astype(np.float32)
    elif array.dtype == np.int8:
        array = array.astype(np.int16)
    native = np.require(np.moveaxis(array, -1, 0), array.dtype.newbyteorder("="), ["C", "W"])
    return Pixels(torch.from_numpy(native).expand(3, -1, -1) if native.dtype == np.uint8 else torch.from_numpy(native),
                  bit_range, window, inverted)  # fmt: skip


def upright(values: Tensor, orientation: int) -> Tensor:
    """Pixels ``[..., H, W]`` turned as the EXIF tag Orientation (1 to 8) says that they are to be seen."""
    if orientation in (5, 6, 7, 8):
        values = values.transpose(-1, -2)
    flipped = {2: (-1,), 3: (-1, -2), 4: (-2,), 6: (-1,), 7: (-1, -2), 8: (-2,)}
    return values.flip(flipped[orientation]).contiguous() if orientation in flipped else values.contiguous()


def chosen_frame(count: int, reading: Reading) -> int:
    """Which frame of a file to read; raise ValueError where it has several and none, or one that is not there, is chosen."""
    if count <= 1:
        return 0
    if reading.frame is None:
        raise ValueError(f"it has {count} frames: choose one by --frame, 0 to {count - 1}")
    if reading.frame >= count:
        raise ValueError(f"it has {count} frames: --frame {reading.frame} is not among 0 to {count - 1}")
    return reading.frame


def chosen_slice(shape: tuple[int, ...], reading: Reading) -> tuple[int, int]:
    """Axis and index of the slice of a volume ``[a, b, c]``; of one that is a single slice thick, that one.

    Raises:
        ValueError: where none is chosen, or one that is not there.
    """
    if 1 in shape:
        return shape.index(1), 0
    if reading.slice is None:
        raise ValueError(f"it is a volume of {' x '.join(map(str, shape))}: choose a slice by --slice AXIS INDEX|middle")
    axis, index = reading.slice
    index = shape[axis] // 2 if index == "middle" else int(index)
    if index >= shape[axis]:
        raise ValueError(f"it has {shape[axis]} slices along axis {axis}: --slice {axis} {index} is not among them")
    return axis, index


def need(package: str) -> ModuleType:
    """Import an optional package; raise :class:`MissingPackage` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingPackage(
            f"{package.split('.')[0]} is needed for images of this format: pip install -r requirements-formats.txt"
        ) from None


class Entry(NamedTuple):
    """An image of a file that holds a whole data set: a path that stands for it, its split and its class, or classes."""

    path: str
    split: str
    labels: tuple[str, ...]


class Reader(NamedTuple):
    """A format.

    Attributes:
        name: of the format.
        recognises: whether a file is of it, by its first bytes.
        read: the image of a path; any exception says that it cannot be read, and why.
        entries: where a file holds a data set: its images, whose paths are ``FILE/...``.
    """

    name: str
    recognises: Callable[[bytes], bool]
    read: Callable[[str, Reading], Pixels]
    entries: Callable[[str], list[Entry]] | None = None


READERS: list[Reader] = []


def reader(name: str, recognises: Callable[[bytes], bool], entries: Callable[[str], list[Entry]] | None = None):
    """Register the decorated function as the ``read`` of a :class:`Reader`."""

    def register(read: Callable[[str, Reading], Pixels]) -> Callable[[str, Reading], Pixels]:
        READERS.append(Reader(name, recognises, read, entries))
        return read

    return register
