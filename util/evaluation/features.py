"""``features.npz`` and ``features.csv``: what the head reads of each image, for other tools to work on."""

from pathlib import Path

import numpy as np

from util.data.tables import write_table
from util.system.files import replacing
from util.system.text import readable

NAMES = ("features.npz", "features.csv")


def write_features(folder: Path, features: np.ndarray, files: list[str], labels: list[str] | None = None) -> None:
    """Write both files, each whole or not at all.

    ``features.npz`` holds the arrays ``features``, ``files`` and, where the truth is known, ``labels``; ``features.csv`` the
    columns ``file``, ``label`` and ``f0``, ``f1`` and so on.

    Args:
        folder: to write in.
        features: ``[N, D]`` float32; files: ``N`` names; labels: ``N`` names of classes.
    """
    files = list(map(readable, files))
    arrays = {"features": features, "files": np.array(files), **({"labels": np.array(labels)} if labels else {})}
    with replacing(folder / NAMES[0]) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    columns = ["file", *(["label"] if labels else []), *(f"f{number}" for number in range(features.shape[1]))]
    known = zip(files, labels, strict=True) if labels else ((file,) for file in files)
    write_table(folder / NAMES[1], columns, ([*about, *map(str, row)] for about, row in zip(known, features, strict=True)))
