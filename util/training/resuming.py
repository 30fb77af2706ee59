"""Going on with a run: which checkpoint, and which of its options."""

import argparse
from pathlib import Path

from util.options import SaveEvery
from util.retired import refuse_retired
from util.system.console import say
from util.system.errors import InputError
from util.system.workplace import named_folder
from util.training import checkpoint
from util.training.checkpoint import Checkpoint


def plain(args: argparse.Namespace) -> dict:
    """Options as a dictionary of plain values, as a checkpoint may hold them."""

    def value_of(value):
        return str(value) if isinstance(value, SaveEvery) else list(value) if isinstance(value, tuple) else value

    return {name: value_of(value) for name, value in vars(args).items()}


def find_resumed(resume: str, phase: str, output_dir: str | None, data_path: str | None) -> Checkpoint | None:
    """The checkpoint that ``--resume`` names; for "auto" the newest in the run's folder, None where it has none.

    Raises:
        InputError: when it comes from another script.
    """
    if resume == "auto":
        folder = Path(output_dir) if output_dir else named_folder(phase, data_path)
        found = checkpoint.newest(folder)
        if found is None:
            say(f"--resume auto: no checkpoint in {folder}, starting from the beginning")
            return None
    else:
        found = checkpoint.load(resume)
    if found.phase != phase:
        raise InputError(
            f"{found.path} is not a checkpoint of this script's training, to go on from; give an encoder to begin from by "
            "--finetune (in segmentation by --checkpoint)"
        )
    refuse_retired(found.options, found.path)
    return found


def options_to_go_on_with(resumed: Checkpoint | None) -> dict:
    """The options of a run that goes on, all but those that name where it lies and how it was started."""
    started = ("output_dir", "overwrite", "resume", "start_epoch", "eval")
    return {name: value for name, value in resumed.options.items() if name not in started} if resumed else {}
