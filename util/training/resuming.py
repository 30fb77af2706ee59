"""Going on with a run: which checkpoint, and which of its options."""

import argparse
from pathlib import Path

from util.system.console import say
from util.system.errors import InputError
from util.system.workplace import named_folder
from util.training import checkpoint
from util.training.checkpoint import Checkpoint
from util.training.older import refuse_removed


def find_resumed(resume: str | None, phase: str, folder: Path | None) -> Checkpoint | None:
    """The checkpoint that ``--resume`` names; for "auto" the newest in the run's folder, None where it has none.

    Args:
        folder: of the run; None where no option tells it.

    Raises:
        InputError: when it comes from another script, or "auto" has no folder to look in.
    """
    if not resume:
        return None
    if resume == "auto":
        if folder is None:
            raise InputError("--resume auto: give --output_dir, the folder of the run to go on with, or its --data_path")
        source = checkpoint.newest(folder)
        if source is None:
            say(f"--resume auto: no checkpoint in {folder}, starting from the beginning")
            return None
    else:
        source = checkpoint.load(resume)
    if source.phase != phase:
        raise InputError(
            f"{source.path} is a checkpoint of {source.phase or 'another project'}; --resume goes on with one of {phase}. "
            "To begin from its encoder, give it to main_finetune.py --finetune or segmentation/train.py --checkpoint"
        )
    if source.content.get("decision"):
        made_from = source.content.get("decided_from", "the checkpoint that it was made from")
        raise InputError(f"{source.path} was written by --eval and cannot go on with its training; go on from {made_from}")
    refuse_removed(source.options, source.path)
    sizes = {"input_size": source.input_size, "patch_size": source.shape.patch_size} if phase != "segmentation" else {}
    for name, size in sizes.items():
        if source.options.get(name, size) != size:
            raise InputError(f"{source.path} is damaged: its weights are for --{name} {size}, it names another")
    return source


def folder_of(args: argparse.Namespace, phase: str) -> Path | None:
    """The folder of a run's files by its options; None where they do not tell."""
    if args.output_dir:
        return Path(args.output_dir)
    return named_folder(phase, args.data_path) if args.data_path else None


def options_to_go_on_with(resumed: Checkpoint | None) -> dict:
    """The options of a run that goes on, all but those that name where it lies and how it was started."""
    started = ("output_dir", "overwrite", "resume", "start_epoch", "eval")
    return {name: value for name, value in resumed.options.items() if name not in started} if resumed else {}
