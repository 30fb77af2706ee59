"""What becomes of parsed options: plain values for a checkpoint, the plan of a training, a line for a reader."""

import argparse
from pathlib import Path

from torch import nn

from util.data.reading import Reading
from util.system.text import counted
from util.training.plan import Plan
from util.training.save_every import SaveEvery


def plain(args: argparse.Namespace) -> dict:
    """Options as a dictionary of plain values, as a checkpoint may hold them."""

    def value_of(value):
        return str(value) if isinstance(value, SaveEvery) else list(value) if isinstance(value, tuple) else value

    return {name: value_of(value) for name, value in vars(args).items()}


def reading(args: argparse.Namespace) -> Reading:
    """How the options say that image files are read."""
    return Reading.of(vars(args))


def plan(args: argparse.Namespace) -> Plan:
    """How long the options say that a training goes, and what it keeps."""
    return Plan(
        epochs=args.epochs,
        seed=args.seed,
        save_every=args.save_every,
        keep=args.keep,
        print_freq=args.print_freq,
        start_epoch=args.start_epoch,
        early_stopping=getattr(args, "early_stopping", None),  # pre-training never stops early
        overwrite=args.overwrite,
        log_dir=Path(args.log_dir) if args.log_dir else None,
    )


def describe_model(
    name: str, model: nn.Module, training: int, validation: int, classes: list[str], lr: float, effective_batch: int
) -> str:
    """A line on what is trained, on how many images, and how fast."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{name}: {weights:,} parameters; {training} training and {validation} validation images of "
        f"{counted(len(classes), 'class', 'classes')}; learning rate {lr:.3g} for an effective batch of {effective_batch}"
    )
