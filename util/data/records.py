"""A data set as one list of labelled images, from folders or from a table, checked before any long work.

Folders are ``DIR/{train,val,test}/CLASS/*`` as torchvision's ImageFolder reads them, without hidden ones; a table is a CSV
file with columns ``path`` (relative to the file), ``label``, ``split`` (train, val or test) and, if known, ``patient``.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from util.data import readers
from util.data.tables import read_table
from util.data.walk import class_names, images_below, refuse_loop, refuse_shared
from util.system.errors import InputError
from util.system.text import counted, readable, some

SPLITS = ("train", "val", "test")


class Record(NamedTuple):
    """An image file, its class, which part of the data it belongs to, and whose it is (None: not known)."""

    path: str
    label: str
    split: str
    patient: str | None = None


def read_records(
    data_path: Path,
    splits: Sequence[str] = SPLITS,
    needed: Sequence[str] = ("train", "val"),
    patients: Path | None = None,
    on_patient_leak: str = "error",
    note: Callable[[str], None] = print,
) -> list[Record]:
    """The images of a data set, split by split: folders in ImageFolder's order, a table's rows in the file's.

    Args:
        data_path: a folder, a table, or a file that holds a whole data set.
        splits: those to read, where they are there.
        needed: those of them that must be there.
        patients: a CSV file with columns ``path`` and ``patient`` (:func:`with_patients`), beside folders.
        on_patient_leak: "error" where a patient is in two splits, or "note" to go on.
        note: told what is odd and no error.

    Raises:
        InputError: naming the file, the image, the label or the patients, if something is missing, twice there or unknown,
            if train and val differ in their labels, or test has another label, or symbolic links lead in a circle or make
            two folders one.
    """
    if data_path.is_dir():
        records = [record for split in splits for record in _folder(data_path / split, split, split in needed)]
        refuse_shared([data_path / split for split in splits])
    elif data_path.is_file() and (held := readers.entries(str(data_path))) is not None:
        records = [Record(entry.path, _one_label(entry), entry.split) for entry in held if entry.split in splits]
    elif data_path.is_file():
        records = [record for record in read_rows(data_path, ("path", "label", "split"), note) if record.split in splits]
        records.sort(key=lambda record: SPLITS.index(record.split))  # rows of a split keep their order
    else:
        raise InputError(f"--data_path {data_path}: no such folder or table")
    if patients:
        records = with_patients(records, patients, data_path)
    _check_splits(records, needed, data_path)
    _check_patients(records, on_patient_leak, data_path, note)
    return records


def _one_label(entry: readers.Entry) -> str:
    if len(entry.labels) != 1:
        raise InputError(f"{entry.path} has {len(entry.labels)} labels, where one is needed (ChestMNIST is such a set)")
    return entry.labels[0]


def read_rows(path: Path, needed: Sequence[str], note: Callable[[str], None] = print) -> list[Record]:
    """The rows of a table, checked: each file exists and is listed once, and no cell that is needed is empty.

    Args:
        path: of the table.
        needed: columns that must be there: ``path``, ``label`` and, if wanted, ``split``.
        note: told of columns that are not used.
    """
    known = ("path", "label", "split", "patient")
    table = read_table(path, needed, known)
    filled = [*needed, *({"patient"} & set(table.columns))]
    unused = [name for name in table.columns if name not in known]
    if unused:
        note(f"note: {path}: these columns are not used: {', '.join(unused)}")
    folder, records = os.path.realpath(path.parent), []
    first: dict[str, int] = {}  # line of each file
    for row, line in zip(table.rows, table.lines, strict=True):
        for name in filled:
            if not row[name]:
                raise InputError(f"{path}, line {line}: no {name}")
        if "split" in needed and row["split"] not in SPLITS:
            raise InputError(f"{path}, line {line}: split {row['split']!r}; a split is train, val or test")
        # as the system spells it: the table is UTF-8, whatever the locale
        file = os.path.normpath(os.path.join(folder, os.fsdecode(row["path"].encode())))
        if not os.path.isfile(file):
            raise InputError(f"{path}, line {line}: no file {row['path']} (paths are relative to the folder of the table)")
        if file in first:
            raise InputError(f"{path}: {row['path']} is in lines {first[file]} and {line}")
        first[file] = line
        records.append(Record(file, row["label"], row.get("split", ""), row.get("patient")))
    return records


def image_folder(folder: Path, split: str) -> list[Record]:
    """The images of ``folder/CLASS/*`` in ImageFolder's order, hidden ones left out; a class folder may be empty."""
    names = class_names(folder)
    if not names:
        raise InputError(f"{folder}: no folder of a class in it; images belong in {folder}/CLASS/")
    return [Record(path, readable(name), split) for name in names for path in images_below(folder / name)]


def _folder(folder: Path, split: str, needed: bool) -> list[Record]:
    refuse_loop(folder)
    if not folder.is_dir():
        if needed:
            raise InputError(f"--data_path {folder.parent}: no {split}/ in it; images belong in {split}/CLASS/")
        return []
    records = image_folder(folder, split)
    empty = empty_classes([folder], records)
    if not records or (empty and split != "test"):
        raise InputError(f"{folder}: no image in {some(empty)}")
    return records


def empty_classes(folders: list[Path], records: list[Record]) -> list[str]:
    """Class folders in ``folders`` of which no image is among the records."""
    names = {readable(name) for folder in folders for name in class_names(folder)}
    return sorted(f"{name}/" for name in names - {record.label for record in records})


def with_patients(records: list[Record], path: Path, data_path: Path) -> list[Record]:
    """Records with the patients of a CSV file with columns ``path`` and ``patient``; rows of other images are
    ignored.

    A path there is relative to the file, or to the data folder, or a bare file name that only one image has.

    Raises:
        InputError: naming an image without a row, or a row that contradicts another.
    """
    if any(record.patient for record in records):
        raise InputError(f"--patients {path}: {data_path} has a column patient already; use one of them")
    table = read_table(path, ("path", "patient"))
    patient_of: dict[str, str] = {}
    for row, line in zip(table.rows, table.lines, strict=True):
        key = os.path.normpath(row["path"])
        if not row["path"] or not row["patient"]:
            raise InputError(f"{path}, line {line}: no {'patient' if row['path'] else 'path'}")
        if patient_of.setdefault(key, row["patient"]) != row["patient"]:
            raise InputError(f"{path}, line {line}: {row['path']} belongs to patient {patient_of[key]} in an earlier line")
    beside, inside = os.path.realpath(path.parent), os.path.realpath(data_path if data_path.is_dir() else data_path.parent)
    names = Counter(os.path.basename(record.path) for record in records)

    def patient(file: str) -> str:
        real, name = os.path.realpath(file), os.path.basename(file)
        linked = os.path.join(os.path.realpath(os.path.dirname(file)), name)  # where a link lies, not what it points at
        places = [os.path.relpath(path, folder) for path in (real, linked) for folder in (beside, inside)]
        keys = (os.path.abspath(file), real, *places, name)
        key = next((key for key in keys if key in patient_of), None)
        if key is None:
            raise InputError(f"--patients {path}: no row for {os.path.relpath(linked, inside)}")
        if key == name and names[name] > 1:
            raise InputError(f"--patients {path}: {name} names {names[name]} images; write their folders too")
        return patient_of[key]

    return [record._replace(patient=patient(record.path)) for record in records]


def _check_splits(records: list[Record], needed: Iterable[str], data_path: Path) -> None:
    labels = {split: {record.label for record in records if record.split == split} for split in SPLITS}
    for split in needed:
        if not labels[split]:
            raise InputError(f"--data_path {data_path}: no image of split {split}")
    train, val, test = labels.values()
    if train and val and train != val:
        only = "; only in ".join(
            f"{split}: {some(own - other)}"
            for split, own, other in (("train", train, val), ("val", val, train))
            if own - other
        )
        raise InputError(f"--data_path {data_path}: train and val must have the same labels; only in {only}")
    if (train or val) and test - (train or val):
        raise InputError(
            f"--data_path {data_path}: only in test: {some(test - (train or val))}; labels must be in train and val"
        )


def _check_patients(records: list[Record], on_leak: str, data_path: Path, note: Callable[[str], None]) -> None:
    where: dict[str, set[str]] = {}
    for record in records:
        if record.patient:
            where.setdefault(record.patient, set()).add(record.split)
    leaks = [patient for patient, splits in where.items() if len(splits) > 1]
    if leaks:
        message = f"{data_path}: {counted(len(leaks), 'patient is', 'patients are')} in more than one split: {some(leaks)}"
        if on_leak == "error":
            raise InputError(
                f"{message}; split by patient (python -m util.split), or --on_patient_leak note if that is meant"
            )
        note(f"note: {message}")
