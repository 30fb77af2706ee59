"""What a run says of its data: all that cannot be read, the images of each class, what changed since an earlier start."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from util.data import readers
from util.data.folders import LabelledFiles
from util.data.images import Images, UnreadableImages
from util.data.reading import AS_IT_IS, Reading
from util.data.records import NAMED, counted
from util.system.console import say

T = TypeVar("T")
FEW = 20  # images of a class, below which its figures are rough
SHOWN = 10  # classes in a line; of more, the smallest and the largest are shown


def open_images(*splits: LabelledFiles, cache: str, on_bad: str, reading: Reading = AS_IT_IS) -> list[Images]:
    """The images of several splits (:class:`util.data.images.Images`), and what a reader should know of their classes.

    All are read as the first is, which is the training set.

    Raises:
        UnreadableImages: of all splits together.
    """
    first: list[Images] = []

    def open_split(files: LabelledFiles) -> Images:
        images = Images(files, cache, on_bad, first[0].reading if first else reading)
        first.append(images)
        return images

    opened = opened_together([partial(open_split, files) for files in splits])
    for images in opened:
        for line in class_counts(images.split, images.classes, images.labels):
            say(line)
    return opened


def opened_together(openers: Iterable[Callable[[], T]]) -> list[T]:
    """What each of several functions opens; where some raise :class:`UnreadableImages`, one for all of them is raised."""
    opened, errors = [], []
    for opener in openers:
        try:
            opened.append(opener())
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


class SeenFiles:
    """Part of a checkpoint: which files a run saw, so that a run that goes on can say what changed.

    A file is kept as two hashes of 64 bits: of its name within the data folder, and of its label and size. No name of a
    file, which may be a patient's, is in the checkpoint.

    Args:
        root: the data folder.
        splits: by name, the paths of the images and their labels.
    """

    def __init__(self, root: Path, splits: dict[str, tuple[Sequence[str], Sequence]]):
        self.names = {split: [os.path.relpath(path, root) for path in paths] for split, (paths, _) in splits.items()}
        self.hashes = {
            split: torch.tensor([
                [_hash(name), _hash(f"{label} {os.path.getsize(readers.file_of(path))}")]
                for name, path, label in zip(self.names[split], paths, labels, strict=True)
            ])
            for split, (paths, labels) in splits.items()
        }  # fmt: skip
        self.nbytes = sum(hashes.nbytes for hashes in self.hashes.values())

    @classmethod
    def of(cls, *splits: Images) -> "SeenFiles":
        """The files of splits of one data set."""
        return cls(splits[0].root, {each.split: (each.paths, each.labels.tolist()) for each in splits})

    def state_dict(self) -> dict:
        """``files``: by split, ``[N, 2]`` int64."""
        return {"files": self.hashes}

    def load_state_dict(self, content: dict) -> None:
        """Say where the files of a checkpoint differ from those of now; older checkpoints record none."""
        for split, before in content.get("files", {}).items():
            if split in self.hashes and (line := changes(before, self.hashes[split], self.names[split])):
                say(f"note: the images of {split} are not those of the resumed run: {line}")


def changes(before: Tensor, now: Tensor, names: list[str]) -> str | None:
    """What became of a list of files, in words; None where it is as it was.

    Args:
        before, now: hashes of names and of labels and sizes, ``[N, 2]``.
        names: of the files that are there now.
    """
    if torch.equal(before, now):
        return None
    old, new = (dict(hashes.tolist()) for hashes in (before, now))
    removed = len(old.keys() - new.keys())
    added = [name for name, key in zip(names, new, strict=True) if key not in old]
    altered = [name for name, key in zip(names, new, strict=True) if old.get(key, new[key]) != new[key]]
    lines = [
        *([f"{len(added)} added ({_first(added)})"] if added else []),
        *([f"{removed} removed"] if removed else []),
        *([f"{len(altered)} with another label or size ({_first(altered)})"] if altered else []),
    ]
    return ", ".join(lines) or "they are in another order"


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _hash(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "little", signed=True
    )
