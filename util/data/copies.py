"""Files that lie in a data set twice, byte for byte: a model that was trained on one copy knows the other."""

import functools
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from util.system.console import say
from util.system.errors import InputError
from util.system.text import counted, some


def digest(path: str) -> str:
    """A fingerprint of a file's content; a file that is as it was is read once in a process."""
    return _digest(path, os.stat(path).st_mtime_ns)


@functools.cache  # a run compares its files with each other, and with those that its first weights saw
def _digest(path: str, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def groups_of_copies(paths: Iterable[str]) -> list[list[str]]:
    """Files of equal content, two or more in each group; only files of equal size are read."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        if os.path.isfile(path):
            by_size[os.path.getsize(path)].append(path)
    by_content: dict[tuple[int, str], list[str]] = defaultdict(list)
    for size, same_size in by_size.items():
        for path in same_size if len(same_size) > 1 else ():
            by_content[size, digest(path)].append(path)
    return [group for group in by_content.values() if len(group) > 1]


def copies_of(judged: list[str], others: list[str]) -> dict[str, str]:
    """The files that lie among others too, byte for byte: the path there, by the path here."""
    return copies_in(groups_of_copies([*judged, *others]), others)


def copies_in(groups: list[list[str]], others: list[str]) -> dict[str, str]:
    """As :func:`copies_of`, of files whose groups are known."""
    theirs = set(others)
    copies: dict[str, str] = {}
    for group in groups:
        known = next((path for path in group if path in theirs), None)
        if known:
            copies |= {path: known for path in group if path not in theirs}
    return copies


def labels_at_odds(groups: list[list[str]], label_of: dict[str, str]) -> str | None:
    """A line that names copies with different labels, of which one must be wrong; None where there are none.

    Args:
        groups: of copies.
        label_of: the name of the class by path; paths that are not there are left aside.
    """
    pairs = []
    for group in groups:
        labelled = [path for path in group if path in label_of]
        other = next((path for path in labelled if label_of[path] != label_of[labelled[0]]), None)
        if other:
            shown = (f"{'/'.join(Path(path).parts[-3:])} ({label_of[path]})" for path in (labelled[0], other))
            pairs.append(" is ".join(shown))
    return f"{counted(len(pairs), 'file has', 'files have')} two labels: {some(pairs)}" if pairs else None


def without_copies(train: list[str], judged: list[str]) -> list[str]:
    """The training images that ``--on_leak drop`` trains on: those without a copy among the images that judge the model."""
    dropped = _dropped(groups_of_copies([*judged, *train]), train) if judged else set()
    return [path for path in train if path not in dropped]


def _dropped(groups: list[list[str]], train: list[str]) -> set[str]:
    """All files of the groups that hold training images and others."""
    copies = copies_in(groups, train)
    return {path for group in groups if any(path in copies for path in group) for path in group}


def _told(copies: dict[str, str], judged: list[str], split: str) -> str:
    here, there = next(iter(copies.items()))
    are = "is a copy" if len(copies) == 1 else "are copies"
    example = f"{Path(here).name} is {Path(there).name}"
    return f"{len(copies)} of the {len(judged)} images of {split} {are} of a training image ({example})"


def refuse_copies(train: list[str], judged: list[str], split: str, groups: list[list[str]]) -> None:
    """Raise :class:`InputError`, naming a pair, where images that judge the model are copies of training images.

    Args:
        train: paths of the training images; judged: those of the images of ``split``.
        groups: of copies among both.
    """
    if copies := copies_in(groups, train):
        them = "it" if len(copies) == 1 else "them"
        raise InputError(f"{_told(copies, judged, split)}: remove {them}, or give --on_leak note or drop")


def indices_to_train_on(train: list[str], judged: list[str], split: str, groups: list[list[str]], on_leak: str) -> list[int]:
    """Which training images to use, once it is known how many of them also lie in the split that judges the model.

    Args:
        train, judged, split, groups: as in :func:`refuse_copies`.
        on_leak: "note" says it, "error" ends the run by :func:`refuse_copies`, "drop" leaves them out of training.
    """
    copies, everything = copies_in(groups, train), list(range(len(train)))
    if not copies:
        return everything
    if on_leak == "error":
        refuse_copies(train, judged, split, groups)
    if on_leak == "note":
        say(f"note: {_told(copies, judged, split)}; --on_leak drop leaves what was copied out of training")
        return everything
    dropped = _dropped(groups, train)
    kept = [index for index in everything if train[index] not in dropped]
    left_out = counted(len(train) - len(kept), "training image is", "training images are")
    say(f"note: {_told(copies, judged, split)}; {left_out} left out (--on_leak drop)")
    return kept
