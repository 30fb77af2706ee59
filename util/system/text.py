"""Names, messages and figures as text that any file, picture, terminal and program can read."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

from util.system.files import replacing

NAMED = 5  # at most, in an error


def readable(name: str) -> str:
    """A file's name as Unicode text: the same in every locale, and bytes that are no UTF-8 become ``\\xNN``.

    Python gives such bytes as lone surrogates, which can be opened but not written, drawn or printed.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def json_text(content: object, indent: int | None = 2) -> str:
    """``content`` as JSON; null stands for NaN and infinity, which it does not know, and its text for a path."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(content), indent=indent, allow_nan=False, default=os.fspath)


def write_json(path: Path, content: object) -> None:
    """Write ``content`` by :func:`json_text`; a file that is there stays until the new one is whole."""
    with replacing(path) as temporary:
        temporary.write_text(json_text(content) + "\n", encoding="utf-8")


def one_line(text: str) -> str:
    """Text in a line, without control characters: those and line ends become escapes such as ``\\n``."""
    try:
        text = readable(text)
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def some(names: Iterable[str]) -> str:
    """The first names, sorted, and how many more there are."""
    names = sorted(names)
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, one: str, many: str) -> str:
    """A number with what it counts: "1 image is", "2 images are"."""
    return f"{number} {one if number == 1 else many}"
