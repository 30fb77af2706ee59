"""``predictions.csv``: what a classifier said about each image, written by an evaluation and read by all that follows."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from util.data.tables import Table, read_table, write_table
from util.system.errors import InputError
from util.system.text import readable


class Predictions(NamedTuple):
    """Probabilities of images, and what is known of them.

    Attributes:
        files: ``N`` names, each once.
        probabilities: ``[N, classes]`` in [0, 1], rows adding up to 1.
        classes: names, in the order of the columns.
        labels: ``[N]`` class indices, or None where the truth is not known.
        patients: ``N`` names, or None.
    """

    files: list[str]
    probabilities: np.ndarray
    classes: list[str]
    labels: np.ndarray | None = None
    patients: list[str] | None = None

    @property
    def truth(self) -> np.ndarray:
        """The labels, for what cannot do without; ValueError where they are not known."""
        if self.labels is None:
            raise ValueError("predictions without labels: read them with labelled=True")
        return self.labels


def write_predictions(path: Path, predictions: Predictions, more: Mapping[str, Iterable[str]] | None = None) -> None:
    """Write columns ``file``, ``label`` and ``patient`` where known, ``prediction``, ``p(CLASS)`` for each class, and more.

    Bytes of a file's name that are no UTF-8 become ``\\xNN``. Probabilities have as many digits as their type holds, so that
    ties and orders are the same after reading.
    """
    files, probabilities, classes, labels, patients = predictions
    columns: dict[str, Iterable[str]] = {"file": map(readable, files)}
    if labels is not None:
        columns["label"] = [classes[label] for label in labels]
    columns["prediction"] = [classes[index] for index in probabilities.argmax(1)]
    columns |= {f"p({name})": map(str, column) for name, column in zip(classes, probabilities.T, strict=True)}
    if patients is not None:
        columns["patient"] = patients
    columns |= more or {}
    write_table(path, list(columns), zip(*columns.values(), strict=True))


def read_predictions(path: Path, labelled: bool = True) -> Predictions:
    """Read and check a file that :func:`write_predictions` wrote.

    Args:
        path: the file, or the folder of an evaluation, which holds it as ``predictions.csv``.
        labelled: whether there must be labels.

    Raises:
        InputError: naming the file and line where a class is unknown, probabilities do not add up to 1, the prediction is
            not the most probable class, or a file comes twice.
    """
    if path.is_dir():
        path = path / "predictions.csv"
    table = read_table(path, ["file", "prediction", *(["label"] if labelled else [])], ["label", "patient"])
    columns = [name for name in table.columns if name.startswith("p(") and name.endswith(")")]
    classes = [name[2:-1].strip() for name in columns]  # all cells are stripped
    if len(classes) < 2:
        raise InputError(f"{path} needs a column p(CLASS) for each of two or more classes")
    files = [row["file"] for row in table.rows]
    twice = next((name for name, count in Counter(files).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{path} has two rows for {twice}")
    probabilities = _probabilities(path, table, columns)
    predicted = _indices(path, table, "prediction", classes)
    chosen = probabilities[np.arange(len(predicted)), predicted]
    for row in np.flatnonzero(chosen < probabilities.max(1)):
        likeliest = classes[probabilities[row].argmax()]
        raise InputError(
            f"{path}, line {table.lines[row]}: prediction {classes[predicted[row]]}, but {likeliest} is more probable"
        )
    labels = _indices(path, table, "label", classes) if "label" in table.columns else None
    return Predictions(files, probabilities, classes, labels, _patients(path, table))


def _probabilities(path: Path, table: Table, columns: list[str]) -> np.ndarray:
    probabilities = np.empty((len(table.rows), len(columns)))
    for index, (row, line) in enumerate(zip(table.rows, table.lines, strict=True)):
        try:
            probabilities[index] = [float(row[name]) for name in columns]
        except ValueError:
            raise InputError(f"{path}, line {line}: a probability is no number") from None
    right = (probabilities >= 0).all(1) & (abs(probabilities.sum(1) - 1) < 1e-3)  # a sum of rounded numbers
    for wrong in np.flatnonzero(~right):
        raise InputError(f"{path}, line {table.lines[wrong]}: the probabilities of a row must lie in [0, 1] and add up to 1")
    return probabilities


def _indices(path: Path, table: Table, column: str, classes: list[str]) -> np.ndarray:
    index = {name: number for number, name in enumerate(classes)}
    for row, line in zip(table.rows, table.lines, strict=True):
        if row[column] not in index:
            raise InputError(f"{path}, line {line}: {column} {row[column]!r} has no column p({row[column]})")
    return np.array([index[row[column]] for row in table.rows])


def _patients(path: Path, table: Table) -> list[str] | None:
    if "patient" not in table.columns:
        return None
    for row, line in zip(table.rows, table.lines, strict=True):
        if not row["patient"]:
            raise InputError(f"{path}, line {line}: no patient")
    return [row["patient"] for row in table.rows]
