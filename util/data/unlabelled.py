"""Images without labels, from files, folders and tables; one that cannot be read does not stop the others."""

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from util.data import readers
from util.data.images import read_image
from util.data.readers import is_image
from util.data.readers.base import NoDataSet
from util.data.reading import AS_IT_IS, Reading
from util.data.tables import read_table
from util.data.walk import is_hidden
from util.system import distributed
from util.system.console import say
from util.system.errors import InputError

TABLES = (".csv", ".tsv")


class Files(NamedTuple):
    """Image files, each once, and whose they are (None: not known of all)."""

    paths: list[str]
    patients: list[str] | None

    @property
    def fingerprint(self) -> str:
        """The same for the same files in the same order."""
        return hashlib.blake2b("\0".join(self.paths).encode(errors="surrogateescape"), digest_size=16).hexdigest()

    def some(self, indices: list[int]) -> "Files":
        patients = [self.patients[index] for index in indices] if self.patients else None
        return Files([self.paths[index] for index in indices], patients)


def find_files(given: list[str], option: str = "--predict") -> Files:
    """The image files that paths name: a file itself, those in a folder and its folders, those of a table.

    In a folder, files count as images by name or content, in alphabetical order; the others are mentioned. A table
    (.csv, .tsv) has a column ``path``, relative to the table, and maybe ``patient``. A file that holds a whole data set
    (MedMNIST's) stands for all its images, FILE/SPLIT for those of a split and FILE/SPLIT/NUMBER for one of them. A file
    that comes twice is taken once.

    Args:
        given: the paths.
        option: that they were given by, for errors.

    Raises:
        InputError: naming the path, or the line of a table, where there is no such file, or no image at all.
    """
    patient_of: dict[str, str | None] = {}
    known_as: dict[str, str] = {}  # the first name of a file
    real: dict[str, str] = {}  # where a folder is

    def place(path: str) -> str:
        """Where a file lies, whatever way leads there; a link to a file lies where it is."""
        folder, name = os.path.split(path)
        return os.path.join(real.get(folder) or real.setdefault(folder, os.path.realpath(folder)), name)

    def plain(path: str) -> str:
        """A path without detours; "LINK/.." is not what it seems, and stays."""
        shorter = os.path.normpath(path)
        return shorter if shorter == path or place(shorter) == place(path) else path

    for path in given:
        if os.path.isdir(path):
            listed = dict.fromkeys(images_in(path, option))
        elif held := readers.entries(file := readers.file_of(named := plain(path))):
            listed = {entry.path: None for entry in held if f"{entry.path}{os.sep}".startswith(f"{named}{os.sep}")}
            if not listed:
                raise InputError(f"{option} {path}: {file} has no such image; the first one is {held[0].path}")
        elif not os.path.isfile(path):
            raise InputError(f"{option} {path}: no such file or folder")
        elif path.lower().endswith(TABLES):
            listed = rows_of(Path(path))
        else:
            listed = {path: None}
        for name, patient in listed.items():
            name = plain(name)
            name = known_as.setdefault(place(name), name)
            before = patient_of.setdefault(name, patient)
            if patient and before not in (None, patient):
                raise InputError(f"{option}: {name} is of the patients {before} and {patient}; name it once")
            patient_of[name] = before or patient
    patients = [patient for patient in patient_of.values() if patient is not None]
    return Files(list(patient_of), patients if len(patients) == len(patient_of) else None)


def images_of(file: str) -> list[str]:
    """The image of a file by the file's name; those of a whole data set (MedMNIST's) by theirs; none of any other file."""
    if not is_image(file):
        return []
    try:
        held = None if file.lower().endswith(IMG_EXTENSIONS) else readers.entries(file)
    except NoDataSet:
        return []
    except InputError:  # reading it will say what is wrong
        return [file]
    return [file] if held is None else [entry.path for entry in held]


def images_in(folder: str, option: str) -> list[str]:
    """The image files in a folder and its folders, without hidden ones; links lead through no folder twice."""
    images: list[str] = []
    others: list[str] = []
    seen: set[str] = set()
    for top, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(top)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for path in (os.path.join(top, name) for name in sorted(names) if not is_hidden(name)):
            found = images_of(path)
            images += found
            others += [] if found else [path]
    if not images:
        raise InputError(f"{option} {folder}: no image in it (docs/formats.md names the formats)")
    if others:
        kinds = Counter(Path(name).suffix or "no extension" for name in others).most_common(5)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds)
        say(f"note: files in {folder} that are no images by name or content are not used: {listed}")
    return images


def rows_of(path: Path) -> dict[str, str | None]:
    """The files of a table and, where it has that column, their patients."""
    table = read_table(path, ["path"], ["patient"])
    unused = [name for name in table.columns if name not in ("path", "patient")]
    if unused:
        say(f"note: {path}: these columns are not used: {', '.join(unused)}")
    patients: dict[str, str | None] = {}
    for row, line in zip(table.rows, table.lines, strict=True):
        for name, value in row.items():
            if name not in unused and not value:
                raise InputError(f"{path}, line {line}: no {name}")
        file = os.path.join(path.parent, row["path"])
        if not os.path.isfile(file):
            raise InputError(f"{path}, line {line}: no file {row['path']} (paths are relative to the folder of the table)")
        patient = row.get("patient")
        if patients.setdefault(file, patient) != patient:
            raise InputError(f"{path}, line {line}: {row['path']} is of the patients {patients[file]} and {patient}")
    return patients


class NewImages(Dataset):
    """Images without labels as :func:`util.data.images.read_image` gives them, each read when it is asked for.

    One that cannot be read is a black pixel, so that the others of its batch are computed; :meth:`problems` names it.

    Args:
        paths: of the files.
        reading: how they are read, as the checkpoint says.
    """

    split = "new images"  # what titles of progress call them

    def __init__(self, paths: list[str], reading: Reading = AS_IT_IS):
        self.paths, self.reading = paths, reading
        self._problems: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        try:
            return read_image(self.paths[index], self.reading)
        except InputError as error:
            self._problems[self.paths[index]] = str(error)
            return torch.zeros(3, 1, 1, dtype=torch.uint8)

    def problems(self) -> dict[str, str]:
        """What is wrong with those that could not be read, by their paths, once all were asked for."""
        problems = distributed.gather_dicts(self._problems)
        return {path: problems[path] for path in self.paths if path in problems}
