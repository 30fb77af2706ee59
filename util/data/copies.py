"""Files that lie in a data set twice, byte for byte: a model that was trained on one copy knows the other."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from util.data.folders import LabelledFiles, has_split, open_splits
from util.system.console import say
from util.system.errors import InputError


def digest(path: str) -> str:
    """A fingerprint of a file's content."""
    fingerprint = hashlib.blake2b()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            fingerprint.update(part)
    return fingerprint.hexdigest()


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
    theirs = set(others)
    found: dict[str, str] = {}
    for group in groups_of_copies([*judged, *others]):
        known = next((path for path in group if path in theirs), None)
        if known:
            found |= {path: known for path in group if path not in theirs}
    return found


def open_for_training(
    data_path: str, num_classes: int | None, patients: str | None, on_patient_leak: str, on_leak: str
) -> tuple[LabelledFiles, LabelledFiles]:
    """The training and validation files, checked by :func:`util.data.folders.open_splits` and :func:`answer_leak`."""
    train, val = open_splits(
        data_path, ("train", "val"), num_classes=num_classes, patients=patients, on_patient_leak=on_patient_leak
    )
    return answer_leak(train, val, on_leak), val


def open_for_evaluation(
    data_path: str,
    split: str,
    num_classes: int | None,
    classes: list[str] | None,
    patients: str | None,
    on_patient_leak: str,
    on_leak: str,
) -> tuple[list[str], LabelledFiles]:
    """The paths of the training images, none where they are not at hand, and the files of the split to evaluate.

    Args:
        classes: of the model, in its order; None: those of the data.

    Raises:
        InputError: as :func:`util.data.folders.open_splits` does; and under ``on_leak`` "error" where images of the split
            are copies of training images.
    """
    beside = ("train",) if has_split(data_path, "train") else ()
    *train, files = open_splits(
        data_path,
        (*beside, split),
        num_classes=num_classes,
        classes=classes,
        patients=patients,
        on_patient_leak=on_patient_leak,
    )
    if train and on_leak == "error":
        answer_leak(train[0], files, on_leak)
    return (train[0].paths if train else []), files


def answer_leak(train: LabelledFiles, judged: LabelledFiles, on_leak: str) -> LabelledFiles:
    """The training images of a classification, once :func:`indices_to_train_on` has answered for them."""
    kept = indices_to_train_on(train.paths, judged.paths, judged.split, on_leak)
    if len(kept) == len(train):
        return train
    return replace(
        train,
        paths=[train.paths[index] for index in kept],
        labels=[train.labels[index] for index in kept],
        patients=[train.patients[index] for index in kept] if train.patients else None,
    )


def indices_to_train_on(train: list[str], judged: list[str], split: str, on_leak: str) -> list[int]:
    """Which training images to use, once it is known how many of them also lie in the split that judges the model.

    Args:
        train: paths of the training images; judged: those of the images of ``split``.
        on_leak: "note" says it, "error" ends the run, "drop" leaves them out of training.

    Raises:
        InputError: under "error", naming a pair.
    """
    copies, everything = copies_of(judged, train), list(range(len(train)))
    if not copies:
        return everything
    example = next(f"{Path(here).name} is {Path(there).name}" for here, there in copies.items())
    count = f"{len(copies)} of the {len(judged)} images of {split} are copies of a training image ({example})"
    if on_leak == "error":
        raise InputError(f"{count}: remove them, or give --on_leak note or drop")
    if on_leak == "note":
        say(f"note: {count}; --on_leak drop leaves them out of training")
        return everything
    fingerprints = {digest(path) for path in copies.values()}
    sizes = {os.path.getsize(path) for path in copies.values()}
    kept = [
        index
        for index in everything
        if os.path.getsize(train[index]) not in sizes or digest(train[index]) not in fingerprints
    ]
    say(f"note: {count}; {len(train) - len(kept)} training images are left out (--on_leak drop)")
    return kept
