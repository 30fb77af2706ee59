"""MedMNIST's ``.npz``: a whole data set in one file, with its own splits (Yang et al., 2023, arXiv 2110.14795)."""

import math
import os
import threading
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from util.data.readers.base import Entry, NoDataSet, Pixels, chosen_slice, from_array, reader
from util.data.reading import Reading
from util.system.errors import InputError

SPLITS = ("train", "val", "test")
DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError)  # what NumPy raises
_one_at_a_time = threading.Lock()


def labels(path: str) -> list[Entry]:
    """The images of the file, ``FILE/SPLIT/NUMBER``, with their labels: "0", "1" and so on, as the arrays have them."""
    needed = [f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")]
    try:
        with np.load(path) as arrays:
            if lacking := [name for name in needed if name not in arrays]:
                raise NoDataSet(f"{path} is no data set of MedMNIST: it holds no {lacking[0]}")
            labels_of = {split: np.atleast_1d(arrays[f"{split}_labels"]) for split in SPLITS}
    except DAMAGE as error:
        raise InputError(f"{path} is damaged ({error})") from None
    for split, array in labels_of.items():
        if array.dtype.kind not in "iu":
            raise NoDataSet(f"{path}: {split}_labels are no whole numbers")
    return [
        Entry(f"{path}/{split}/{number:06d}", split, tuple(map(str, row)))
        for split, array in labels_of.items()
        for number, row in enumerate(array.reshape(len(array), math.prod(array.shape[1:])).tolist())
    ]


@reader("MedMNIST", lambda head: head[:4] == b"PK\x03\x04" and b".npy" in head[:64], labels)
def read(path: str, reading: Reading) -> Pixels:
    """An image of the file by the path of its :class:`Entry`; of a volume (``[N, a, b, c]``), the slice of --slice."""
    file = Path(path).parent.parent
    if not file.is_file():
        raise ValueError("it holds a whole data set: name one of its images as FILE/SPLIT/NUMBER")
    status = os.stat(file)
    with _one_at_a_time:  # else each thread would read it
        images = _images(str(file), Path(path).parent.name, status.st_size, status.st_mtime_ns)
    image = images[int(Path(path).name)]
    if image.ndim == 3 and image.shape[-1] > 4:
        axis, index = chosen_slice(image.shape, reading)
        image = image.take(index, axis)
    return from_array(image)


@lru_cache(maxsize=len(SPLITS))
def _images(file: str, split: str, size: int, changed: int) -> np.ndarray:
    """``[N, ...]``; size and time of change tell a new file of the old name apart."""
    with np.load(file) as arrays:
        return arrays[f"{split}_images"]
