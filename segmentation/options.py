"""The options of segmentation/train.py."""

import argparse
import re

from segmentation.losses import LOSSES
from segmentation.protocol import PAPER, PROTOCOLS, TRAINING, settle
from util.options import checks
from util.options.groups import (
    add_figure_options,
    add_leak_option,
    add_loader_options,
    add_reading_options,
    add_running_options,
)
from util.options.parser import COUNT, NOT_NEGATIVE, RATIO, SHARE, Parser, number, path
from util.options.protocol import protocol_name
from util.options.retired import add_retired_options
from util.sizes import ENCODERS
from util.system.errors import InputError

SCHEDULERS = {"CosineAnnealingLR": "cosine", "ReduceLROnPlateau": "plateau", "MultiStepLR": "multistep"}
SCHEDULERS |= {"ConstantLR": "constant"}


def get_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse and check a command line; what it leaves open, a checkpoint settles, and else the protocol.

    Raises:
        InputError: when options contradict each other or a checkpoint.
    """
    parser = make_parser()
    args = parser.parse_args(arguments)
    typed = typed_options(parser, arguments, args)
    if args.evaluate and (args.resume or args.checkpoint):
        raise InputError("--evaluate CHECKPOINT stands for itself; leave --resume and --checkpoint out")
    if args.split and not args.evaluate:
        raise InputError("--split is for --evaluate; leave it out")
    if "encoder_init" in typed and (args.checkpoint or args.evaluate):
        raise InputError("--encoder_init is for an encoder without a checkpoint: leave it or the checkpoint out")
    parser.set_defaults(**settle(args, typed, parser))
    args = parser.parse_args(arguments)
    if "warmup_epochs" in typed and args.warmup_epochs and args.scheduler != "cosine":
        raise InputError(f"--warmup_epochs is for --scheduler cosine, not {args.scheduler}; leave it out")
    check(args)
    return args


def make_parser() -> Parser:
    parser = Parser("Train SETR on a pre-trained MSMAE encoder to segment images; or evaluate it with --evaluate.")
    parser.groups["running"].add_argument(
        "--protocol",
        type=protocol_name,
        choices=list(PROTOCOLS),
        help="what is not given follows the authors' released scripts, or the choices named 'tuned' below (default: paper, "
        "or that of the checkpoint to resume or evaluate)",
    )
    add_data_options(parser)
    add_augmentation_options(parser)
    add_model_options(parser)
    add_optimisation_options(parser)
    running = add_running_options(parser, named="DATASET-NAME")
    add_figure_options(parser)
    running.add_argument("--evaluate", type=path, metavar="CHECKPOINT", help="only evaluate a checkpoint of this script")
    parser.groups["evaluation"].add_argument(
        "--split", choices=("test", "val"), help="what --evaluate evaluates (default: test/ where there is one)"
    )
    add_retired_options(parser)
    parser.set_defaults(**TRAINING, **PAPER)
    return parser


def add_flag(group, name: str, help: str) -> None:
    """``--name``, which may have True or False behind it, and ``--no-name``."""
    group.add_argument(f"--{name}", nargs="?", const=True, type=boolean, metavar="BOOL", help=help)
    group.add_argument(f"--no-{name}", dest=name, action="store_false", help=argparse.SUPPRESS)


def add_data_options(parser: Parser) -> None:
    group = parser.groups["data"]
    group.add_argument(
        "--root",
        type=path,
        required=True,
        metavar="DIR",
        help="folder with train/images/NAME and train/masks/0/NAME, the same in val/ and, if wanted, in test/",
    )
    group.add_argument("--dataset", default="busi", metavar="NAME", help="names the output folder, with --name")
    group.add_argument("--img_ext", type=extension, default=".png", help="extension of the images")
    group.add_argument("--mask_ext", type=extension, default=".png", help="extension of the masks")
    group.add_argument("--num_classes", type=COUNT, metavar="N", help="mask folders, 0 to N - 1 (default: those there)")
    add_leak_option(group)
    add_loader_options(group)
    add_reading_options(group)


def add_augmentation_options(parser: Parser) -> None:
    group = parser.groups["augmentation"]
    group.add_argument(
        "--turn_probability",
        type=SHARE,
        metavar="P",
        help="share of the images that get a random turn, of 0, 90, 180 or 270 degrees; tuned: 1 (--turns: 1, "
        "--no-turns: 0)",
    )
    for name, share in (("--turns", 1.0), ("--no-turns", 0.0)):
        group.add_argument(name, dest="turn_probability", action="store_const", const=share, help=argparse.SUPPRESS)
    add_flag(group, "flips", "random horizontal and vertical flips")
    group.add_argument(
        "--crop_scale",
        type=number(float, 0, 1, open_ends="low"),
        nargs=2,
        action=Pair,
        metavar=("MIN", "MAX"),
        help="share of the image's area that a random crop takes; 1 1: no crop",
    )
    group.add_argument("--color_jitter", type=NOT_NEGATIVE, help="strength of colour jitter")
    add_flag(group, "antialias", "smooth images that are made smaller; tuned: on")


def add_model_options(parser: Parser) -> None:
    group = parser.groups["model"]
    group.add_argument("--name", default="setr", help="of the run: names the output folder, with --dataset")
    group.add_argument("--arch", "-a", choices=("setr",), default="setr", help="SETR with progressive upsampling")
    group.add_argument("--model", choices=list(ENCODERS), metavar="NAME", help="encoder: " + ", ".join(ENCODERS)
                       + " (default: that of --checkpoint, else vit_base_patch16)")  # fmt: skip
    group.add_argument("--patch_size", type=COUNT, metavar="PIXELS", help="side of a patch (default: the encoder's)")
    for name, side in (("input_w", "width"), ("input_h", "height")):
        text = f"{side} of the input (default: that of --checkpoint, else 224)"
        group.add_argument(f"--{name}", type=COUNT, metavar="PIXELS", help=text)
    group.add_argument(
        "--checkpoint", type=path, metavar="PRETRAINED", help="encoder to start from (docs/weights.md; default: none)"
    )
    group.add_argument(
        "--encoder_init",
        choices=("truncated_normal", "xavier"),
        help="random weights of an encoder without --checkpoint: as the released scripts draw them, or as MAE does (tuned)",
    )
    add_flag(group, "final_norm", "the heads read features after the encoder's final normalisation; tuned: on")
    add_flag(group, "align_corners", "align corners in bilinear doubling; tuned: off")
    add_flag(group, "deep_supervision", "heads on the features of earlier blocks learn too")


def add_optimisation_options(parser: Parser) -> None:
    group = parser.groups["optimisation"]
    group.add_argument("--epochs", type=COUNT, help="passes over the training images")
    group.add_argument("--batch_size", "-b", type=COUNT, help="images in a batch, for each process")
    group.add_argument("--accum_iter", type=COUNT, help="batches whose gradients make one step")
    group.add_argument("--loss", choices=list(LOSSES), help="0.5 x BCE + (1 - Dice), or BCE")
    group.add_argument("--optimizer", choices=("Adam", "AdamW", "SGD"), help="PyTorch's")
    group.add_argument("--lr", "--learning_rate", type=NOT_NEGATIVE, help="learning rate")
    group.add_argument("--min_lr", type=NOT_NEGATIVE, help="lowest rate of cosine and plateau")
    group.add_argument("--weight_decay", type=NOT_NEGATIVE, help="of the optimiser")
    group.add_argument("--momentum", type=RATIO, help="of SGD")
    add_flag(group, "nesterov", "Nesterov's momentum, in SGD")
    group.add_argument(
        "--scheduler",
        type=lambda text: SCHEDULERS.get(text, text),
        choices=list(SCHEDULERS.values()),
        help="of the learning rate; PyTorch's names, such as CosineAnnealingLR, are understood too",
    )
    group.add_argument(
        "--schedule_step", choices=("epoch", "iteration"), help="how often the cosine changes the rate; tuned: iteration"
    )
    group.add_argument("--warmup_epochs", type=NOT_NEGATIVE, help="of linear warm-up, before the cosine")
    group.add_argument("--factor", type=number(float, 0, 1, "lowhigh"), help="of plateau's reductions")
    group.add_argument("--patience", type=number(int, 0), help="epochs that plateau waits")
    group.add_argument(
        "--milestones", type=milestones, nargs="+", action=Joined, metavar="EPOCH", help="of multistep, such as 100 150"
    )
    group.add_argument("--gamma", type=number(float, 0, 1, "low"), help="factor at a milestone")
    group.add_argument("--clip_grad", type=number(float, 0, open_ends="low"), help="largest norm of the gradient")
    group.add_argument(
        "--best_by",
        choices=("batch_iou", "image_iou"),
        help="what the best epoch is chosen by: IoU of each batch's pixels, averaged over the batches by their size, or IoU "
        "of each image, averaged over the images (tuned)",
    )
    group.add_argument(
        "--early_stopping",
        type=patience,
        metavar="N",
        help="end after N epochs without a better IoU; -1: never (default: never)",
    )


def boolean(text: str) -> bool:
    """An argparse type: true or false."""
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return values[text.lower()]


def patience(text: str) -> int | None:
    """An argparse type: a number of epochs; -1 is None, never."""
    return None if text == "-1" else COUNT(text)


def milestones(text: str) -> tuple[int, ...]:
    """An argparse type: epochs with commas between them."""
    return tuple(COUNT(word) for word in text.split(","))


class Pair(argparse.Action):
    """Keeps two values as a tuple."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, tuple(values))


class Joined(argparse.Action):
    """Puts the tuples of several words together."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, sum(values, ()))


def typed_options(parser: argparse.ArgumentParser, arguments: list[str] | None, args: argparse.Namespace) -> set[str]:
    """The names of the options that the command line gives; ``args`` is what it was parsed to."""
    not_typed = object()
    values = vars(parser.parse_args(arguments, argparse.Namespace(**dict.fromkeys(vars(args), not_typed))))
    return {name for name, value in values.items() if value is not not_typed}


def check(args: argparse.Namespace) -> None:
    """Raise :class:`InputError` where settled options do not go together."""
    for name in ("input_w", "input_h"):
        if getattr(args, name) % args.patch_size:
            raise InputError(f"--{name} {getattr(args, name)} is not a multiple of the patch size {args.patch_size}")
    if args.nesterov and not args.momentum:
        raise InputError("--nesterov needs --momentum above 0")
    checks.reading(args)
    checks.training(args)


def extension(text: str) -> str:
    """An argparse type: a file extension, with its dot or without; ``.nii.gz`` is one too."""
    if not re.fullmatch(r"\.?\w+(\.\w+)*", text):
        raise ValueError(text)
    return text if text.startswith(".") else f".{text}"
