"""Which files a run saw, so that a run that goes on can say what changed."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from util.data import readers
from util.data.images import Images
from util.system.console import say


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


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _hash(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "little", signed=True
    )
