"""The command's options, and the checks of what they may be."""

import argparse
from fractions import Fraction
from pathlib import Path

from util.options.parser import PlainParser
from util.prepare.data_sets import DATA_SETS
from util.system.errors import InputError

DESCRIPTION = """Prepare one of the paper's data sets from its official download.

    python -m util.prepare busi DOWNLOAD DEST

DOWNLOAD is the folder with what was downloaded, as zips or unpacked, or a single zip. DEST becomes what the scripts
take as --data_path: train/CLASS/*, val/CLASS/*, with split.csv (the split as a table) and SOURCE.md (origin, licence,
numbers). docs/datasets.md has a section for each data set."""


def share(text: str) -> Fraction:
    """An exact share, so that no image is lost to binary rounding: 0.1, or 1/3."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if not 0 < value < Fraction(7, 10):
        raise argparse.ArgumentTypeError(f"{text}: a share above 0 and below 0.7 is needed, such as 0.1")
    return value


def share_in_words(value: Fraction) -> str:
    """A share as a decimal number where that is exact, else as a fraction: :func:`share` reads the same again."""
    decimal = str(float(value))
    return decimal if Fraction(decimal) == value else str(value)


def get_args() -> argparse.Namespace:
    """The options given, checked; raises :class:`InputError` for those that contradict each other or the data set."""
    parser = PlainParser(
        "python -m util.prepare",
        description=DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data_set", choices=DATA_SETS)
    add("download", type=Path, metavar="DOWNLOAD", help="folder with the official download, or one zip")
    add("dest", type=Path, metavar="DEST", help="folder to write; new, empty, or written by the same command before")
    add("--by", choices=("image", "patient"), help="draw the validation set by image, as the paper did (inferred; the "
        "default), or by patient or lesion, so that none is on both sides")  # fmt: skip
    add("--unique", action="store_true", help="keep identical files on one side; --by patient does so anyway")
    add("--test_share", type=share, metavar="SHARE", help="share of each class for test/, taken from train/")
    add("--seed", type=int, help="another seed draws another split (default: 0)")
    add("--official", action="store_true", help="use the official split instead; its test part becomes val/")
    add("--split", type=Path, metavar="FILE", help="use the split of a table, such as another DEST's split.csv")
    add("--copy", action="store_true", help="copy unpacked images instead of linking to them")
    add("--allow_incomplete", action="store_true", help="go on without the images that are missing or damaged")
    add = parser.add_argument_group("DeepLesion").add_argument
    add("--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="Hounsfield units that become black and white "
        "(default: each lesion's window in DL_info.csv)")  # fmt: skip
    add("--crop", type=float, metavar="MARGIN", help="cut out the lesion: a square that exceeds its box by MARGIN of "
        "the box's longer side on each side, so that 0.5 doubles it (default: the whole slice)")  # fmt: skip
    args = parser.parse_args()
    check_options(args)
    return args


def check_options(args: argparse.Namespace) -> None:
    """Raise :class:`InputError` for options that contradict each other or the data set."""
    data_set = DATA_SETS[args.data_set]
    ready = "--official" if args.official else "--split" if args.split else None
    drawing = {"--by": args.by, "--unique": args.unique, "--test_share": args.test_share, "--seed": args.seed}
    drawing["--split"] = args.split if args.official else None
    for option, value in drawing.items():
        if ready and value is not None and value is not False:
            raise InputError(f"{ready} and {option} exclude each other: {ready} says which image is where")
    if args.official and not data_set.official:
        raise InputError(f"--official: {args.data_set} has no official split; leave the option out")
    if args.by == "patient" and not data_set.group:
        raise InputError(f"--by patient: {args.data_set} does not tell patients; --unique keeps identical files together")
    if args.data_set != "deeplesion" and (args.window or args.crop is not None):
        raise InputError(f"--window and --crop are for deeplesion, not for {args.data_set}")
    if args.window and not args.window[0] < args.window[1]:
        raise InputError(f"--window {args.window[0]:g} {args.window[1]:g}: the first must be lower than the second")
    if args.crop is not None and not 0 <= args.crop <= 100:
        raise InputError(f"--crop {args.crop:g}: a margin from 0 (the box itself) to 100 is needed")


def command(args: argparse.Namespace) -> str:
    """The command as a user would give it again, without the places on this machine."""
    words = [f"python -m util.prepare {args.data_set} DOWNLOAD DEST"]
    for name in ("by", "test_share", "seed", "crop"):
        value = getattr(args, name)
        if value is not None:
            words.append(f"--{name} {share_in_words(value) if isinstance(value, Fraction) else value}")
    words += [f"--split {args.split.name}"] if args.split else []
    words += [f"--window {args.window[0]:g} {args.window[1]:g}"] if args.window else []
    words += [f"--{name}" for name in ("unique", "official", "copy", "allow_incomplete") if getattr(args, name)]
    return " ".join(words)
