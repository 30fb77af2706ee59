"""Formats of image files: a module each, chosen by what a file holds and not by its name (docs/formats.md).

A new format is a new module here: a function under ``@reader(name, recognises)``. Nothing else needs to know of it.
"""

import importlib
import os
import pkgutil
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from util.data.readers.base import READERS, Entry, Pixels, Reader
from util.data.reading import Reading

HEAD = 4096  # bytes of a file that are looked at

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def file_of(path: str) -> str:
    """The file that holds an image: the path itself, or where an image is part of a file, that file."""
    if os.path.isfile(path):
        return path
    return next((str(parent) for parent in Path(path).parents if parent.is_file()), path)


def find(path: str) -> Reader | None:
    """The reader that recognises a file; None where none does.

    Raises:
        OSError: when it cannot be opened.
    """
    with open(file_of(path), "rb") as file:
        head = file.read(HEAD)
    return next((reader for reader in READERS if reader.recognises(head)), None)


def is_image(path: str) -> bool:
    """Whether a file in a folder of images is one: by its name, as torchvision's ImageFolder has it, else by its content."""
    if path.lower().endswith(IMG_EXTENSIONS):
        return True  # should it be none, reading it will say so
    try:
        return find(path) is not None
    except OSError:
        return False


def entries(path: str) -> list[Entry] | None:
    """The images of a file that holds a whole data set; None for any other file."""
    try:
        reader = find(path)
    except OSError:
        return None
    return reader.entries(path) if reader and reader.entries else None


def read(path: str, reading: Reading) -> Pixels:
    """Decode an image. Any exception says that it cannot be read, and why."""
    reader = find(path) or next(reader for reader in READERS if reader.name == "ordinary")
    return reader.read(path, reading)
