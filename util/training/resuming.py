"""Going on with a run: which checkpoint, which of its options, from where, and what differs."""

import argparse
from itertools import chain, count
from pathlib import Path

from util.system import distributed
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


def resumed_options(resumed: Checkpoint | None) -> dict:
    """The options of a run that goes on, all but those that name where it lies and how it was started."""
    started = ("output_dir", "overwrite", "resume", "start_epoch", "eval")
    return {name: value for name, value in resumed.options.items() if name not in started} if resumed else {}


def kept_epoch(path: Path) -> int | None:
    """The epoch of a checkpoint; None where there is none that can be read."""
    try:
        return checkpoint.load(path, weights=False).content.get("epoch")
    except InputError:
        return None


def same_place(step: int, before: int, now: int, accum_iter: int) -> int:
    """Where a run goes on within an epoch that it left after ``step`` batches of ``before`` images, in batches of ``now``.

    Batches are those of all processes together. No image is left out; at a window's begin, some may come again.
    """
    return step * before // now // accum_iter * accum_iter


def set_aside(folder: Path, first_epoch: int) -> list[str]:
    """Rename the checkpoints and sheets of the epochs that a run will repeat.

    Returns:
        The new names; none in processes other than the main one.
    """
    if not distributed.is_main():
        return []
    left = [path for path in checkpoint.numbered(folder) if checkpoint.epoch_in_name(path) >= first_epoch]
    for path in (folder / "checkpoint-last.pth", folder / "checkpoint-best.pth"):
        epoch = kept_epoch(path)
        left += [path] if epoch is not None and epoch >= first_epoch else []
    # the sheet of the epoch that a run was stopped in is only drawn again
    left += [path for path in folder.glob("sheet-*.*") if checkpoint.epoch_in_name(path) > first_epoch]
    return sorted(path.replace(free_name(path)).name for path in left)


def free_name(path: Path) -> Path:
    """``NAME-before``, or with a number behind it where that is taken."""
    names = (path.with_stem(f"{path.stem}-before{number}") for number in chain([""], count(2)))
    return next(name for name in names if not name.exists())


# Options that may differ in a resumed run without a word
MAY_DIFFER = (
    *("output_dir", "log_dir", "resume", "overwrite", "start_epoch", "save_every", "keep", "finetune", "checkpoint", "init"),
    *("data_path", "root", "num_workers", "pin_mem", "device", "amp"),
)


def changes(resumed: Checkpoint, options: dict, precision: str) -> list[str]:
    """What differs in the resumed run, a line each."""
    lines = [
        f"--{name} was {old} in the resumed run and is {options[name]} now"
        for name, old in resumed.options.items()
        if name not in MAY_DIFFER and options.get(name, old) != old
    ]
    if resumed.content.get("precision", precision) != precision:
        lines.append(f"the resumed run computed in {resumed.content['precision']}, this one computes in {precision}")
    if resumed.content.get("processes", distributed.world_size()) != distributed.world_size():
        before, now = resumed.content["processes"], distributed.world_size()
        lines.append(f"--batch_size is for each process, and there were {before} in the resumed run and are {now} now")
    if resumed.content.get("format", 1) < 3:
        lines.append("validation images are resized bilinearly now, where the resumed run resized them bicubically")
    if options.get("intensity_range") and "intensity_range" not in resumed.options:
        lines.append("images of more than 8 bits share one intensity range now; in the resumed run each had its own")
    return lines
