"""A data set opened for a script: its files checked, its images and what a reader should know of their classes."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from util.data.copies import groups_of_copies, indices_to_train_on, labels_at_odds, refuse_copies, without_copies
from util.data.folders import LabelledFiles, has_split, open_splits
from util.data.images import Images, UnreadableImages
from util.data.reading import AS_IT_IS, Reading
from util.data.records import read_records
from util.system.console import say
from util.system.errors import InputError
from util.system.text import NAMED, counted, some


class Opened(Protocol):
    """The images of a split."""

    reading: Reading


S = TypeVar("S")
T = TypeVar("T", bound=Opened)
FEW = 20  # images of a class, below which its figures are rough
SHOWN = 10  # classes in a line; of more, the smallest and the largest are shown


def open_for_training(
    data_path: str, num_classes: int | None, patients: str | None, on_patient_leak: str, on_leak: str, least_classes: int = 2
) -> tuple[LabelledFiles, LabelledFiles]:
    """The training and validation files, checked by :func:`util.data.folders.open_splits` and :func:`answer_leak`."""
    train, val = open_splits(
        data_path,
        ("train", "val"),
        num_classes=num_classes,
        patients=patients,
        on_patient_leak=on_patient_leak,
        least_classes=least_classes,
    )
    groups = groups_of_copies([*val.paths, *train.paths])
    label_of = {
        path: each.classes[label] for each in (train, val) for path, label in zip(each.paths, each.labels, strict=True)
    }
    if odd := labels_at_odds(groups, label_of):
        say(f"note: {odd}")
    return answer_leak(train, val, groups, on_leak), val


def open_for_evaluation(
    data_path: str,
    split: str,
    *,
    num_classes: int | None,
    classes: list[str] | None,
    patients: str | None,
    on_patient_leak: str,
    on_leak: str,
    with_val: bool = False,
    trained_without_copies: bool = False,
) -> tuple[list[str], LabelledFiles, LabelledFiles | None]:
    """The paths of the training images (none where they are not at hand), the split to evaluate, and val where it is needed.

    Args:
        classes: of the model, in its order; None: those of the data.
        trained_without_copies: the training left out the copies of val (``--on_leak drop``), and they are left out here.
        with_val: val is needed too, to choose on. It is returned last, but None where it is the split to evaluate.

    Raises:
        InputError: as :func:`util.data.folders.open_splits` does; and under ``on_leak`` "error" where images of the split
            are copies of training images.
    """
    beside = ["train"] if has_split(data_path, "train") else []
    if with_val and not has_split(data_path, "val"):
        raise InputError(f"--data_path {data_path} has no val/, which a temperature and a cut-off are chosen on")
    with_val = with_val and split != "val"
    splits = [*beside, *(["val"] if with_val else []), split]
    opened = open_splits(
        data_path,
        tuple(splits),
        num_classes=num_classes,
        classes=classes,
        patients=patients,
        on_patient_leak=on_patient_leak,
    )
    by_name = dict(zip(splits, opened, strict=True))
    train, files = by_name.get("train"), by_name[split]
    training = train.paths if train else []
    if trained_without_copies:
        records = read_records(Path(data_path), ("val",), (), on_patient_leak="note", note=lambda _: None)
        training = without_copies(training, [record.path for record in records])
    if on_leak == "error":
        refuse_copies(training, files.paths, files.split, groups_of_copies([*files.paths, *training]))
    return training, files, (by_name["val"] if with_val else None)


def answer_leak(train: LabelledFiles, judged: LabelledFiles, groups: list[list[str]], on_leak: str) -> LabelledFiles:
    """The training images of a classification, once :func:`indices_to_train_on` has answered for them.

    Raises:
        InputError: as there; and under "drop", where no image of a class is left.
    """
    kept = indices_to_train_on(train.paths, judged.paths, judged.split, groups, on_leak)
    if len(kept) == len(train):
        return train
    emptied = set(train.labels) - {train.labels[index] for index in kept}
    if emptied:
        names = some(train.classes[number] for number in emptied)
        raise InputError(f"--on_leak drop leaves no training image of {names}: all are copies of images of {judged.split}")
    return replace(
        train,
        paths=[train.paths[index] for index in kept],
        labels=[train.labels[index] for index in kept],
        patients=[train.patients[index] for index in kept] if train.patients else None,
    )


def open_images(*splits: LabelledFiles, cache: str, on_bad: str, reading: Reading = AS_IT_IS) -> list[Images]:
    """The images of several splits (:class:`util.data.images.Images`), and what a reader should know of their classes.

    All are read as the first is, which is the training set.

    Raises:
        UnreadableImages: of all splits together.
    """
    opened = opened_together(lambda files, reading: Images(files, cache, on_bad, reading), splits, reading)
    for images in opened:
        for line in class_counts(images.split, images.classes, images.labels):
            say(line)
    return opened


def opened_together(open_one: Callable[[S, Reading], T], splits: Iterable[S], reading: Reading) -> list[T]:
    """What ``open_one`` opens of each split, all read as the first is, which finds its intensity range.

    Raises:
        UnreadableImages: of all splits together.
    """
    opened: list[T] = []
    errors = []
    for split in splits:
        try:
            opened.append(open_one(split, opened[0].reading if opened else reading))
        except UnreadableImages as error:
            errors.append(error)
    if errors:
        raise UnreadableImages([line for error in errors for line in error.problems], errors[0].remedy)
    return opened


def class_counts(split: str, classes: list[str], labels: Tensor) -> list[str]:
    """The number of images of each class of a split in a line, and one more where classes have few."""
    counts = dict(zip(classes, torch.bincount(labels, minlength=len(classes)).tolist(), strict=True))
    ranked = sorted(counts.items(), key=lambda item: item[1])
    if len(classes) <= SHOWN:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
    else:
        low, high = (", ".join(f"{name} {count}" for name, count in part) for part in (ranked[:3], ranked[-3:]))
        shown = f"{low}, ..., {high} ({len(classes)} classes)"
    lines = [f"{split}: {counted(len(labels), 'image', 'images')}: {shown}"]
    few = [f"{name} ({count})" for name, count in ranked if count < FEW]
    if few:
        more = f" and {len(few) - NAMED} more" if len(few) > NAMED else ""
        lines.append(f"note: {split} has fewer than {FEW} images of {', '.join(few[:NAMED])}{more}")
    return lines
