"""CSV files with named columns: read with checks, written whole or not at all."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from util.system.errors import InputError
from util.system.files import replacing


class Table(NamedTuple):
    """A CSV file.

    Attributes:
        columns: their names, in the file's order, without those that have none.
        rows: a dictionary each, from column to text without surrounding spaces.
        lines: the number of the line that each row ends on, to name it in an error.
    """

    columns: list[str]
    rows: list[dict[str, str]]
    lines: list[int]


def read_table(path: Path, needed: Iterable[str], known: Iterable[str] = ()) -> Table:
    """Read a CSV file (UTF-8; commas, semicolons or tabs between cells, whichever gives most of the needed columns).

    Args:
        path: of the file.
        needed: columns that must be there.
        known: columns that may be there.

    Raises:
        InputError: naming the file, and the line or the column, where something is wrong.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = next(filter(str.strip, file), "")
            file.seek(0)
            reader = csv.reader(file, delimiter=_delimiter(first, {*needed}))
            cells = [([cell.strip() for cell in row], reader.line_num) for row in reader if any(map(str.strip, row))]
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: save it as CSV with the encoding UTF-8") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}") from None
    if len(cells) < 2:
        raise InputError(f"{path} has no rows below a line of column names")
    names, rows, lines = cells[0][0], [row for row, _ in cells[1:]], [line for _, line in cells[1:]]
    columns = [name for name in names if name]  # programs write numbers of rows, or nothing, under no name
    check_columns(path, columns, [*needed], [*known])
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            raise InputError(f"{path}, line {line}: {len(row)} cells for {len(names)} columns")
    named = [{name: cell for name, cell in zip(names, row, strict=True) if name} for row in rows]
    return Table(columns, named, lines)


def _delimiter(first: str, needed: set[str]) -> str:
    """What stands between the cells of a first line: with it most columns that are needed, then most of all, are there."""

    def columns(delimiter: str) -> tuple[int, int]:
        names = {name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])}
        return len(names & needed), len(names)

    return max(",;\t", key=columns)


def check_columns(path: Path, columns: list[str], needed: list[str], known: list[str]) -> None:
    """Raise :class:`InputError` for a column that is missing, there twice, or spelt with other capitals."""
    there = ", ".join(columns)
    for name in columns:
        if columns.count(name) > 1:
            raise InputError(f"{path} has two columns called {name}")
        if name not in needed + known and name.lower() in needed + known:
            raise InputError(f"{path}: write column {name} as {name.lower()}")
    for name in needed:
        if name not in columns:
            raise InputError(f"{path} has no column {name} (its columns: {there})")


def write_table(path: Path, columns: list[str], rows: Iterable[Iterable]) -> None:
    """Write a CSV file; where that fails, nothing new is left and an older file of that name stays.

    Raises:
        InputError: naming the file, if its folder is missing or closed to us.
        OSError: if the disk is full or fails.
    """
    try:
        with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(columns)
            table.writerows(rows)
    except UnicodeEncodeError as error:
        raise InputError(f"{path} cannot be written: {error.object} is no UTF-8, as a table must be; rename it") from None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
