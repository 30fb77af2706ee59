"""Options of ``--eval`` and ``--predict``: what is evaluated or predicted, what is chosen on val/, and what is written."""

import argparse

from util.options.parser import Parser, number, path
from util.system.errors import InputError

WANTED = number(float, 0, 1, open_ends="low")
FOR_EVAL = ("split", "ordered", "calibrate", "sensitivity", "specificity", "youden", "positive", "prevalence")
NOT_FOR_PREDICT = ("data_path", "patients", "lesion_masks", "finetune")


def add_evaluation_options(parser: Parser) -> None:
    parser.groups["paper"].add_argument("--eval", action="store_true", help="only evaluate the checkpoint given by --resume")
    group = parser.groups["evaluation"]
    group.add_argument(
        "--predict",
        type=path,
        nargs="+",
        metavar="PATH",
        help="classify images without labels by the checkpoint given by --resume: files, folders with the folders in them, "
        "or tables FILE.csv with a column path",
    )
    group.add_argument(
        "--overlays",
        action="store_true",
        help="--predict also draws the attention map over each image, and a page to look through; both hold the images",
    )
    group.add_argument(
        "--features", action="store_true", help="--eval and --predict also write what the head reads, features.npz and .csv"
    )
    group.add_argument("--split", choices=("test", "val"), help="what --eval evaluates (default: test/ where there is one)")
    group.add_argument("--ordered", action="store_true", help="classes are grades in order: --eval adds quadratic kappa")
    group.add_argument(
        "--calibrate",
        action="store_true",
        help="--eval fits a temperature on val/ and writes CHECKPOINT-calibrated.pth beside the checkpoint; --overwrite "
        "replaces one that is there",
    )
    rules = group.add_mutually_exclusive_group()
    rules.add_argument(
        "--sensitivity",
        type=WANTED,
        metavar="S",
        help="--eval chooses on val/ the highest cut-off with at least this sensitivity, and writes CHECKPOINT-cutoff.pth",
    )
    rules.add_argument(
        "--specificity", type=WANTED, metavar="S", help="the same: the lowest cut-off with at least this specificity"
    )
    rules.add_argument(
        "--youden", action="store_true", help="the same: the cut-off with the largest sum of sensitivity and specificity"
    )
    group.add_argument(
        "--positive",
        metavar="CLASS",
        help="the class that the cut-off is for, against the rest (default: the second of two)",
    )
    group.add_argument(
        "--prevalence",
        type=number(float, 0, 1, open_ends="low high"),
        metavar="P",
        help="--eval adds the predictive values of the cut-off where the class is that frequent",
    )


def cutoff_rule(args: argparse.Namespace) -> str | None:
    """The rule to choose a cut-off by, as :func:`util.evaluation.cutoffs.choose_cutoff` takes it."""
    for name in ("sensitivity", "specificity"):
        if getattr(args, name) is not None:
            return f"{name}={getattr(args, name)}"
    return "youden" if args.youden else None


def check_evaluation(args: argparse.Namespace) -> None:
    """Raise :class:`InputError` where options of ``--eval`` and ``--predict`` do not go together, or have no effect."""
    kind = "--eval" if args.eval else "--predict" if args.predict else None
    if args.eval and args.predict:
        raise InputError("--eval measures on labelled images, --predict classifies new ones: give one of them")
    if kind and args.resume in (None, "auto"):
        raise InputError(f"{kind} needs --resume CHECKPOINT, the checkpoint to {kind[2:].replace('eval', 'evaluate')}")
    if args.eval and args.finetune:
        raise InputError("--eval evaluates --resume CHECKPOINT; leave --finetune out")
    given = [name for name in FOR_EVAL if getattr(args, name)]
    if given and not args.eval:
        raise InputError(f"--{given[0]} is for --eval; leave it out")
    if args.overlays and not args.predict:
        raise InputError("--overlays is for --predict; leave it out")
    if args.eval and args.on_leak == "drop":
        raise InputError("--on_leak drop leaves images out of a training; --eval takes note or error")
    if args.features and not kind:
        raise InputError("--features is for --eval and --predict; leave it out")
    if args.predict:
        for name in NOT_FOR_PREDICT:
            if getattr(args, name):
                raise InputError(f"--predict takes its images from its own paths; leave --{name} out")
    if args.positive and not cutoff_rule(args):
        raise InputError("--positive is the class of a cut-off: add --sensitivity S, --specificity S or --youden")
