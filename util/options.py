"""The options that both entry scripts have, in groups, and the checks of what they may be. Names follow MAE's."""

import argparse
import os
import re
from pathlib import Path
from typing import NamedTuple

from torch import nn

from util.maps import sources


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to each help text, except where there is none to state."""

    def _get_help_string(self, action):
        stated = "(default" in action.help or action.default in (None, False, argparse.SUPPRESS)
        return action.help if stated else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Reports a wrong option as one line, without the usage before it."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=HelpFormatter, allow_abbrev=False)

    def error(self, message: str):
        self.exit(2, f"error: {message} (--help lists the options)\n")


def number(kind: type, low: float | None = None, high: float | None = None, open_ends: str = ""):
    """An argparse type: a number of ``kind`` from ``low`` to ``high``; ``open_ends`` names the ends left out."""

    def convert(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {'a whole' if kind is int else 'a'} number") from None
        below = low is not None and (value < low or (value == low and "low" in open_ends))
        above = high is not None and (value > high or (value == high and "high" in open_ends))
        if below or above or value != value:
            opening = "(" if low is None or "low" in open_ends else "["
            closing = ")" if high is None or "high" in open_ends else "]"
            start, end = ("-inf" if low is None else f"{low:g}"), ("inf" if high is None else f"{high:g}")
            raise argparse.ArgumentTypeError(f"{text} is outside {opening}{start}, {end}{closing}")
        return value

    return convert


MASK_RATIO, THROW_RATIO = 0.45, 0.3  # the paper's
COUNT = number(int, 1)
NOT_NEGATIVE = number(float, 0)
RATIO = number(float, 0, 1, open_ends="high")
SHARE = number(float, 0, 1)


class SaveEvery(NamedTuple):
    """When to save beyond ``checkpoint-last.pth`` after each epoch: every so many epochs, or also every so many steps."""

    epochs: int
    steps: int

    def __str__(self) -> str:
        return f"{self.steps}steps" if self.steps else f"{self.epochs}"

    @classmethod
    def parse(cls, text: str) -> "SaveEvery":
        match = re.fullmatch(r"([1-9]\d*)(steps?)?", text)
        if not match:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a number of epochs, as 20, nor of steps, as 500steps")
        return cls(0, int(match[1])) if match[2] else cls(int(match[1]), 0)

    def due(self, epoch: int) -> bool:
        """Whether the checkpoint of an epoch is to be kept."""
        return self.epochs > 0 and epoch % self.epochs == 0


def add_data_options(parser: Parser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data_path",
        metavar="DIR",
        help="folder with train/CLASS/*, val/CLASS/* and, if wanted, test/CLASS/*; or a table FILE.csv with the columns "
        "path, label, split and, if known, patient",
    )
    group.add_argument(
        "--num_classes", "--nb_classes", type=COUNT, metavar="N", help="number of classes (default: those of the folders)"
    )
    group.add_argument("--num_workers", type=number(int, 0), default=default_workers(), help="processes that load images")
    group.add_argument(
        "--cache",
        choices=("auto", "ram", "off"),
        default="auto",
        help="keep decoded images in memory; auto: when they take less than a third of it",
    )
    group.add_argument(
        "--patients", metavar="FILE", help="table with the columns path and patient, beside folders of images"
    )
    group.add_argument(
        "--on_patient_leak",
        choices=("error", "note"),
        default="error",
        help="a patient with images in two splits ends the run, or is noted",
    )
    group.add_argument(
        "--on_leak",
        choices=("note", "error", "drop"),
        default="note",
        help="validation images that are copies of training images, byte for byte: say so, end the run, or leave the copies "
        "out of training",
    )
    group.add_argument(
        "--on_bad_image",
        choices=("error", "skip"),
        default="error",
        help="an image that cannot be read ends the run before any work, or is left out and listed in skipped.txt",
    )
    group.add_argument(
        "--pin_mem", action=argparse.BooleanOptionalAction, default=True, help="page-locked batches, for CUDA"
    )
    group.add_argument("--no_pin_mem", action="store_false", dest="pin_mem", help=argparse.SUPPRESS)
    group.add_argument(
        "--crop_scale",
        type=number(float, 0, 1, open_ends="low"),
        nargs=2,
        default=(0.2, 1.0),
        metavar=("MIN", "MAX"),
        help="share of the image's area that a random crop takes",
    )
    group.add_argument(
        "--lesion_masks",
        metavar="DIR",
        help="masks of lesions in val/ as CLASS/NAME.png or NAME.png, to measure where the maps look "
        "(default: DATA_PATH/masks/val if there)",
    )


def default_workers() -> int:
    """As many workers as there are cores to spare, ten at most as in MAE."""
    return min(10, os.cpu_count() or 1)


def add_model_options(parser: Parser, models: list[str]) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("model")
    group.add_argument("--model", choices=models, metavar="NAME", help="one of: " + ", ".join(models))
    group.add_argument("--input_size", type=COUNT, metavar="PIXELS", help="side of the input")
    group.add_argument("--patch_size", type=COUNT, metavar="PIXELS", help="side of a patch")
    return group


def add_masking_options(parser: Parser, kinds: tuple[str, ...], loc_interval: int) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("masking (SAM: METHOD.md)")
    group.add_argument(
        "--masking",
        choices=kinds,
        default="attention",
        help="what chooses the hidden patches: the attention map (SAM), or chance",
    )
    for name, ratio, verb in (("mask", MASK_RATIO, "masks"), ("throw", THROW_RATIO, "throws")):
        text = f"share of the patches that SAM {verb} (default: {ratio})"
        group.add_argument(f"--{name}_ratio", type=RATIO, default=ratio, help=text)
    group.add_argument(
        "--loc_interval", type=COUNT, default=loc_interval, metavar="EPOCHS", help="epochs between refreshes of the maps"
    )
    group.add_argument(
        "--preview_every",
        "--look_every",
        type=COUNT,
        metavar="EPOCHS",
        help="epochs between previews: a sheet of pictures of validation images, and where all maps look (default: before "
        "each refresh of the maps)",
    )
    group.add_argument(
        "--map",
        type=sources.parse,
        default="last",
        metavar="SOURCE",
        help=f"where maps come from. {sources.help_text()}",
    )
    group.add_argument(
        "--map_temperature",
        type=number(float, 0, open_ends="low"),
        default=1.0,
        help="above 1 the map is flattened before SAM draws by it, below 1 sharpened",
    )
    return group


def add_optimisation_options(
    parser: Parser, *, epochs: int, batch_size: int, warmup_epochs: int, min_lr: float
) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("optimisation")
    group.add_argument("--epochs", type=COUNT, default=epochs, help="passes over the training images")
    group.add_argument("--batch_size", type=COUNT, default=batch_size, help="images in a batch, for each process")
    group.add_argument(
        "--accum_iter", type=COUNT, default=1, help="batches whose gradients make one step (a larger batch in less memory)"
    )
    group.add_argument(
        "--blr", type=NOT_NEGATIVE, default=1e-3, help="base learning rate: lr = blr x effective batch size / 256"
    )
    group.add_argument("--lr", type=NOT_NEGATIVE, help="learning rate as it is, instead of --blr")
    group.add_argument("--min_lr", type=NOT_NEGATIVE, default=min_lr, help="learning rate at the end of the cosine")
    group.add_argument(
        "--warmup_epochs", type=NOT_NEGATIVE, default=warmup_epochs, help="epochs of linear warm-up from zero"
    )
    group.add_argument("--weight_decay", type=NOT_NEGATIVE, default=0.05, help="weight decay of AdamW")
    group.add_argument(
        "--clip_grad", type=number(float, 0, open_ends="low"), help="largest norm of the gradient (default: no clipping)"
    )
    return group


def add_running_options(parser: Parser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("running")
    group.add_argument("--output_dir", metavar="DIR", help="folder of this run's files (default: output_dir/PHASE-DATASET)")
    group.add_argument("--log_dir", metavar="DIR", help="folder for TensorBoard (default: the output folder)")
    group.add_argument("--overwrite", action="store_true", help="replace the run that the output folder holds")
    group.add_argument(
        "--resume", metavar="CHECKPOINT", help="go on from a checkpoint; auto: from the newest in the output folder"
    )
    group.add_argument("--start_epoch", type=number(int, 0), help="first epoch (default: 0, or the one after --resume's)")
    group.add_argument(
        "--save_every",
        type=SaveEvery.parse,
        default="20",
        metavar="N",
        help="keep a checkpoint of every N-th epoch; Nsteps: instead, renew checkpoint-last.pth after every N steps too",
    )
    group.add_argument(
        "--keep", type=COUNT, metavar="N", help="kept checkpoints that stay; older ones go (default: all stay)"
    )
    group.add_argument("--device", help="such as cuda, cuda:1 or cpu (default: cuda where there is a GPU, else cpu)")
    group.add_argument(
        "--amp",
        choices=("auto", "bf16", "fp16", "fp32"),
        default="auto",
        help="number format of matrix products; auto: bf16 where the hardware has it, else fp32",
    )
    group.add_argument("--compile", action="store_true", help="compile the training step with torch.compile")
    group.add_argument("--seed", type=number(int, 0), default=0, help="fixes everything random")
    group.add_argument("--print_freq", type=COUNT, default=20, metavar="STEPS", help="steps between looks at the loss")
    return group


def add_augmentation_options(parser: Parser) -> None:
    group = parser.add_argument_group(
        "augmentation beyond crop and flip (off by default: the released scripts list it and never apply it)"
    )
    group.add_argument("--aa", metavar="POLICY", help="timm's AutoAugment or RandAugment, such as rand-m9-mstd0.5-inc1")
    group.add_argument("--color_jitter", type=NOT_NEGATIVE, default=0.0, help="strength of colour jitter (--aa replaces it)")
    group.add_argument("--reprob", type=SHARE, default=0.0, help="probability of random erasing")
    group.add_argument("--remode", choices=("const", "rand", "pixel"), default="pixel", help="what erased pixels become")
    group.add_argument("--recount", type=COUNT, default=1, help="largest number of erased boxes in an image")
    group.add_argument("--mixup", type=NOT_NEGATIVE, default=0.0, help="alpha of Mixup, 0: off")
    group.add_argument("--cutmix", type=NOT_NEGATIVE, default=0.0, help="alpha of CutMix, 0: off")
    group.add_argument(
        "--cutmix_minmax",
        type=SHARE,
        nargs=2,
        metavar=("MIN", "MAX"),
        help="smallest and largest side of CutMix's box as a share of the image's, instead of --cutmix",
    )
    group.add_argument("--mixup_prob", type=SHARE, default=1.0, help="probability of mixing a batch")
    group.add_argument("--mixup_switch_prob", type=SHARE, default=0.5, help="probability of CutMix where both are on")
    group.add_argument(
        "--mixup_mode", choices=("batch", "pair", "elem"), default="batch", help="what shares one draw of the mixing"
    )


def plain(args: argparse.Namespace) -> dict:
    """Options as a dictionary of plain values, as a checkpoint may hold them."""

    def value_of(value):
        return str(value) if isinstance(value, SaveEvery) else list(value) if isinstance(value, tuple) else value

    return {name: value_of(value) for name, value in vars(args).items()}


def of_training(args: argparse.Namespace) -> dict:
    """The options of :class:`util.training.run.Training`, by its names."""
    names = ("epochs", "seed", "save_every", "keep", "print_freq", "start_epoch", "overwrite")
    return {**{name: getattr(args, name) for name in names}, "log_dir": Path(args.log_dir) if args.log_dir else None}


def describe_model(
    name: str, model: nn.Module, training: int, validation: int, classes: list[str], lr: float, effective_batch: int
) -> str:
    """A line on what is trained, on how many images, and how fast."""
    return (
        f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters; {training} training and {validation} "
        f"validation images of {len(classes)} classes; learning rate {lr:.3g} for an effective batch of {effective_batch}"
    )
