"""Which images a checkpoint was trained on, as far as it tells, and whether some are to judge it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from util.data.copies import copies_of, without_copies
from util.data.records import read_records
from util.system.errors import InputError
from util.weights.sources import load_weights


class History(NamedTuple):
    """What a checkpoint learnt from.

    Attributes:
        paths: of the training images that are at hand.
        labels: whether the labels of these images were used.
        unknown: why nothing, or not all, can be told; empty where all is known.
    """

    paths: set[str]
    labels: bool
    unknown: str


def history(path: str | Path, later: frozenset[Path] = frozenset()) -> History:
    """The training images of a checkpoint, and of the one that it began from.

    A checkpoint holds no names of images, only the ``--data_path`` of its run, and that may have changed since, or be of
    another machine.

    Args:
        path: of the checkpoint.
        later: those that began from it; one that was written over what it began from has lost that part of its history.
    """
    source = load_weights(path, weights=False)
    data_path = source.options.get("data_path")
    labels = source.phase == "finetune" or bool(source.options.get("class_weight", 0.1))
    if source.phase not in ("pretrain", "finetune") or not data_path:
        return History(set(), False, f"{path} does not say which images it was trained on")
    paths, unknown = set(), ""
    try:
        splits = ("train", "val") if source.trained_without_copies else ("train",)
        records = read_records(Path(data_path), splits, ("train",), on_patient_leak="note", note=lambda _: None)
        train, val = ([record.path for record in records if record.split == split] for split in ("train", "val"))
        paths = set(without_copies(train, val))
    except InputError:
        unknown = f"the training images of {path}, {data_path}, are not at hand"
    before = start_of(source.options)
    if not before:
        return History(paths, labels, unknown)
    later |= {Path(path).resolve()}
    lost = History(paths, labels, unknown or f"{before}, from which {path} began, is not at hand")
    if Path(before).resolve() in later:
        return lost
    try:
        earlier = history(before, later)
    except InputError:
        return lost
    return History(paths | earlier.paths, labels or earlier.labels, unknown or earlier.unknown)


def start_of(options: dict) -> str | None:
    """The weights that a training with these options began from."""
    return options.get("finetune") or options.get("init") or options.get("checkpoint")


def seen(judged: Sequence[str], known: History) -> set[str]:
    """The images among ``judged`` that are training images of a checkpoint, or copies of such, byte for byte."""
    real = {str(Path(path).resolve()) for path in known.paths}
    same = {path for path in judged if str(Path(path).resolve()) in real}
    return same | copies_of([path for path in judged if path not in same], list(known.paths)).keys()


def remark(path: str, judged: Sequence[str], what: str) -> str:
    """A line on the images that a checkpoint saw among those that judge it; empty if there are none.

    Args:
        path: of the checkpoint.
        judged: paths of images.
        what: they are, such as "test images".
    """
    known = history(path)
    if images := seen(judged, known):
        return _leak(path, known, len(images), len(judged), what)
    if known.unknown:
        return f"{known.unknown}: if some of the {what} are among them, the figures look too good"
    return ""


def leak_before(options: dict, judged: Sequence[str], what: str, training: Sequence[str]) -> str:
    """A line on the images that a training's first weights saw, such as those of its pre-training.

    Args:
        options: of the training.
        judged: paths of the images that judge it.
        what: they are.
        training: paths of its own training images. Copies of these are told elsewhere.

    Returns:
        As :func:`remark`, but empty too where nothing can be told.
    """
    start = start_of(options)
    if not start:
        return ""
    try:
        known = history(start)
    except InputError:  # no longer there
        return ""
    images = seen(judged, known)
    if images <= copies_of(list(judged), list(training)).keys():
        return ""
    return _leak(start, known, len(images), len(judged), what)


def _leak(path: str, known: History, count: int, judged: int, what: str) -> str:
    labels = ", with their labels" if known.labels else ", without their labels"
    return f"LEAK: {path} was trained on {count} of the {judged} {what}{labels}: the figures look too good"
