"""NIfTI: one slice of a volume, upright, whatever way its axes lie in the file."""

import gzip
import math
import zlib
from typing import Any

import numpy as np

from util.data.readers.base import Pixels, chosen_frame, chosen_slice, from_array, need, reader
from util.data.reading import Reading


def _header(head: bytes) -> bytes:
    if head[:2] != b"\x1f\x8b":
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head)
    except zlib.error:
        return b""


def _is_nifti(head: bytes) -> bool:
    head = _header(head)
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


@reader("NIfTI", _is_nifti)
def read(path: str, reading: Reading) -> Pixels:
    """A slice seen from the right, the back or above (``--slice`` 0, 1, 2), with the head or else the front up.

    Of several volumes (time, diffusion), --frame says which.
    """
    nibabel = need("nibabel")
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else open(path, "rb") as stream:
        header = stream.read(348)
        stream.seek(0)
        if header[344:348] == b"ni1\0" or header[4:8] == b"ni2\0":
            return from_array(upright_slice(nibabel, nibabel.load(path), reading))  # its pixels lie in NAME.img
        kind = nibabel.Nifti2Image if header[4:8] == b"n+2\0" else nibabel.Nifti1Image
        return from_array(upright_slice(nibabel, kind.from_stream(stream), reading))


def upright_slice(nibabel: Any, image: Any, reading: Reading) -> np.ndarray:
    """The slice ``[H, W]`` of a nibabel image. Only the slice is read where the file allows it."""
    shape = (*image.shape, 1, 1)[: max(3, len(image.shape))]
    if shape[:3] == (1, 1, 1):
        raise ValueError("it holds single values and no picture")
    volume = np.unravel_index(chosen_frame(math.prod(shape[3:]), reading), shape[3:]) if shape[3:] else ()
    # for each axis in the file: which of left-right, back-front, bottom-top it is, and whether it runs backwards
    directions = nibabel.io_orientation(image.affine)
    if np.isnan(directions).any():
        raise ValueError("its affine does not tell how its axes lie")
    position, sign = directions[:, 0].astype(int), directions[:, 1]
    axis, index = chosen_slice(tuple(shape[axis] for axis in np.argsort(position)), reading)
    cut = int(np.flatnonzero(position == axis)[0])
    selection = [slice(None)] * 3 + [int(number) for number in volume]
    selection[cut] = index if sign[cut] > 0 else shape[cut] - 1 - index
    plane = np.asanyarray(image.dataobj[tuple(selection[: len(image.shape)])])
    first, second = (number for number in range(3) if number != cut)
    plane = plane.reshape(shape[first], shape[second])[:: int(sign[first]), :: int(sign[second])]
    if position[first] > position[second]:
        plane = plane.T
    return np.rot90(plane)
