"""The tables of a cross-validation, as ``python -m util.split --folds`` writes them, and checked to be such."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from util.data.records import SPLITS, Record, read_records
from util.system.errors import InputError
from util.system.text import some


class Fold(NamedTuple):
    """One table: its number, its file, and its images in train, val and test."""

    number: int
    table: Path
    records: list[Record]

    def paths(self, split: str) -> list[str]:
        return [record.path for record in self.records if record.split == split]


def open_folds(source: Path) -> list[Fold]:
    """All folds of a cross-validation.

    Args:
        source: the folder of the tables, one of them, or the name that ``--output`` gave them (``split.csv`` for
            ``split-fold1.csv`` and so on).

    Raises:
        InputError: where there are no such tables, one of them is wrong, or they are not of one cross-validation: all hold
            the same images, and each image is in test once.
    """
    folds = [Fold(number, table, read_records(table, needed=SPLITS)) for number, table in find_tables(source)]
    foreign = f"{source} is not what python -m util.split --folds writes"
    first = identities(folds[0])
    for fold in folds[1:]:
        if odd := first ^ identities(fold):
            path = min(path for path, *_ in odd)
            raise InputError(
                f"{foreign}: {path} is not in both {folds[0].table.name} and {fold.table.name}, with one label and patient"
            )
    tested = Counter(path for fold in folds for path in fold.paths("test"))
    for path, *_ in sorted(first):
        if tested[path] != 1:
            times = "in no fold" if not tested[path] else f"in {tested[path]} folds"
            raise InputError(f"{foreign}: {path} is in test {times} of the {len(folds)}; it must be in test of one")
    return folds


def identities(fold: Fold) -> set[tuple]:
    return {(record.path, record.label, record.patient or "") for record in fold.records}


def find_tables(source: Path) -> list[tuple[int, Path]]:
    """The tables ``NAME-fold1.csv``, ``NAME-fold2.csv`` and so on, with their numbers, in order."""
    folder = source if source.is_dir() else source.parent
    there: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.glob("*-fold*.csv")):
        if match := re.fullmatch(r"(.+)-fold([1-9]\d*)\.csv", path.name):
            there.setdefault(match[1], {})[int(match[2])] = path
    if source.is_dir():
        names = sorted(there)
        if len(names) > 1:
            raise InputError(f"{source} holds the folds of {some(names)}: give one of them, as {source / names[0]}.csv")
    else:
        names = [re.sub(r"-fold[1-9]\d*$", "", source.name.removesuffix(".csv"))]
    tables = there.get(names[0], {}) if names else {}
    if len(tables) < 2:
        output = (source / "split.csv") if source.is_dir() else source
        raise InputError(
            f"{source}: no tables of folds; write them by python -m util.split IMAGES --folds 5 --output {output}"
        )
    return sorted(tables.items())
