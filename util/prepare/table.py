"""Tables: the label tables of downloads, and the table that says which image is in which split."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from util.prepare.download import Entry, contents
from util.prepare.record import Record
from util.system.errors import InputError

SPLITS = ("train", "val", "test")


def parse(data: bytes, where: str, columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a table by column, separated by comma, semicolon or tab; blanks around values are taken off.

    Raises:
        InputError: naming the table and the columns that it lacks.
    """
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{where}: not a text file in UTF-8; export it as CSV") from None
    header = lines[0] if lines else ""
    delimiter = max(",;\t", key=header.count)
    try:
        names, *rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True)) or [[]]
    except csv.Error as error:
        raise InputError(f"{where}: not a table ({error})") from None
    names = [name.strip() for name in names]
    lacking = [column for column in columns if column not in names]
    if lacking:
        raise InputError(f"{where}: no column {', '.join(lacking)}; it has {', '.join(names)[:200] or 'none'}")
    for number, row in enumerate(rows, 2):
        if row and len(row) < len(names):
            raise InputError(f"{where}, line {number}: {len(row)} values for {len(names)} columns; is the file complete?")
    return [{name: value.strip() for name, value in zip(names, row, strict=False)} for row in rows if row]


def find_table(entries: list[Entry], pattern: str, columns: tuple[str, ...], what: str) -> list[dict[str, str]]:
    """The rows of a download's label table.

    Args:
        entries: of the download.
        pattern: the table's name, a regular expression; case does not matter.
        columns: that it must have.
        what: it is, and where it comes from, for the message when it is not there.
    """
    tables = {}
    for entry in entries:
        if re.fullmatch(pattern, entry.name, re.IGNORECASE):
            rows = parse(entry.read(), entry.path, columns)
            tables[entry.path] = [{column: row[column] for column in columns} for row in rows]
    if not tables:
        raise InputError(f"no {what} in the download; {contents(entries)}")
    (first, found), *others = tables.items()
    for path, each in others:
        if each != found:
            raise InputError(f"{first} and {path} differ; remove the wrong one")
    return found


def write_split(records: list[Record], splits: list[str], paths: list[str]) -> str:
    """The table of a split: path in the prepared folder, label, split, and patient where the data set tells any.

    An image of an unknown patient has one of its own, ``CLASS/NAME``: a table names a patient in each row, or in none.
    """
    columns = {
        "path": paths,
        "label": [record.label for record in records],
        "split": splits,
    }
    if any(record.patient for record in records):
        columns["patient"] = [record.patient or f"{record.label}/{record.name}" for record in records]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def read_split(file: Path) -> dict[tuple[str, str], str]:
    """The split of each image in a table with the columns ``path``, ``label`` and ``split``.

    Returns:
        By class and name without folders and extension, so that a table fits wherever its images lie.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"--split {file}: cannot be read ({error.strerror})") from None
    splits: dict[tuple[str, str], str] = {}
    for number, row in enumerate(parse(data, f"--split {file}", ("path", "label", "split")), 2):
        key = row["label"], PurePosixPath(row["path"].replace("\\", "/")).stem.lower()
        if row["split"] not in SPLITS:
            raise InputError(f"--split {file}, line {number}: split is {row['split']!r}, not train, val or test")
        if splits.setdefault(key, row["split"]) != row["split"]:
            raise InputError(f"--split {file}, line {number}: {row['path']} is also in {splits[key]}")
    return splits


def apply_split(table: dict[tuple[str, str], str], keys: list[tuple[str, str]], file: Path, partly: bool) -> list[str]:
    """The split of each image by a table; ``partly``: a table may name images that are not there.

    Raises:
        InputError: naming images that only one of the two has.
    """
    unknown = [f"{label}/{stem}" for label, stem in keys if (label, stem) not in table]
    if unknown:
        raise InputError(f"--split {file}: names no split for {some(unknown)}")
    absent = [f"{label}/{stem}" for label, stem in table if (label, stem) not in set(keys)] if not partly else []
    if absent:
        raise InputError(f"--split {file}: the download has no {some(absent)}; is it the table of another data set?")
    return [table[key] for key in keys]


def some(names: list[str], most: int = 10) -> str:
    """The first of many names, and how many there are."""
    if len(names) == 1:
        return names[0]
    return f"{len(names)} images or files: {', '.join(names[:most])}{', ...' if len(names) > most else ''}"
