"""What a checkpoint settles before its weights are read: the options of a segmentation, or those of an encoder."""

import math
from pathlib import Path

from util.sizes import ENCODERS
from util.system.errors import InputError
from util.training import checkpoint
from util.training.checkpoint import Checkpoint


def newest(folder: Path) -> Path | None:
    """The checkpoint that ``--resume auto`` goes on from: the newest of the folder that can be read."""
    for path in (folder / "checkpoint-last.pth", *checkpoint.numbered(folder)):
        try:
            checkpoint.load(path, weights=False)
        except InputError:
            continue  # the run itself says which it skips
        return path
    return None


def encoder_options(source: Checkpoint) -> dict:
    """The options that an encoder's checkpoint settles: ``model``, ``patch_size`` and the sides of a square input.

    Raises:
        InputError: when the file holds no encoder, or one that no model has.
    """
    if source.phase == "segmentation":
        raise InputError(f"--checkpoint {source.path} is a segmentation model: go on with it by --resume, or see --evaluate")
    options = {"model": source.encoder_name(ENCODERS), "patch_size": source.shape.patch_size}
    if math.isqrt(source.shape.num_patches) ** 2 == source.shape.num_patches:
        options |= dict.fromkeys(("input_w", "input_h"), source.input_size)
    return options
