"""A checkpoint with a decision: a file of its own beside the one that it was made from, which stays as it is."""

from pathlib import Path

import numpy as np

from util.data.folders import LabelledFiles
from util.evaluation.decision import Choice, Decision
from util.system import distributed
from util.system.errors import InputError
from util.system.workplace import make_writable
from util.training import checkpoint
from util.training.checkpoint import Checkpoint

# What only a training that goes on needs, maps of the training images among it
OF_TRAINING = (
    *("optimizer", "scaler", "step", "averages", "trained_model"),
    *("maps", "map_entropy", "map_source", "maps_made_for"),
)


def decided_path(source: Checkpoint, known: Decision, choice: Choice) -> Path:
    """Where a checkpoint goes with what is chosen, and with what it kept already.

    ``NAME-calibrated.pth``, ``NAME-cutoff.pth`` or ``NAME-calibrated-cutoff.pth`` beside ``NAME.pth``, which may
    have such an ending already.
    """
    calibrated, cut = choice.calibrate or known.temperature is not None, choice.rule or known.cutoff
    path = source.path if source.path.name else source.path.resolve()  # "." has no name
    name = path.stem
    if source.content.get("decision"):
        name = name.removesuffix("-cutoff").removesuffix("-calibrated")
    return path.with_name(f"{name}{'-calibrated' if calibrated else ''}{'-cutoff' if cut else ''}.pth")


def prepare(
    choice: Choice, source: Checkpoint, known: Decision, files: LabelledFiles, input_size: int, overwrite: bool
) -> Path:
    """Check that a choice can be made and saved; return the new checkpoint's path, by :func:`decided_path`.

    Args:
        choice: what to choose on val/, whose ``files`` these are.
        source: the checkpoint; known: what it kept already.
        input_size: at which it is chosen. It must be the checkpoint's own, at which it will be applied.
        overwrite: replace a file of that name.

    Raises:
        InputError: where no choice is possible, or the file is there already or cannot be written.
    """
    choice.check(known, np.array(files.labels), files.classes, source.path)
    if input_size != source.input_size:
        raise InputError(
            f"--input_size {input_size}: what is chosen holds at the checkpoint's {source.input_size}; leave it out"
        )
    path = decided_path(source, known, choice)
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already: --resume it as it is, or replace it by --overwrite")
    make_writable(path.parent, f"{path}: the folder")
    return path


def save(source: Checkpoint, path: Path, decision: Decision) -> None:
    """Write all of a checkpoint that an evaluation or prediction uses, with a decision; whole or not at all."""
    if not distributed.is_main():
        return
    kept = {name: value for name, value in source.content.items() if name not in OF_TRAINING}
    made_from = source.content.get("decided_from", source.path.name)
    checkpoint.save(path, **{**kept, "decision": decision.content(), "decided_from": made_from})
