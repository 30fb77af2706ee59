"""The options that the scripts share, in groups. Names follow MAE's."""

import argparse

from util.evaluation.page import FORMATS, NARROWEST, WIDEST, WIDTH
from util.maps import sources
from util.options.parser import (
    COUNT,
    MASK_RATIO,
    NOT_NEGATIVE,
    RATIO,
    SEED,
    SHARE,
    THROW_RATIO,
    Parser,
    number,
    path,
)
from util.training.save_every import SaveEvery


def add_data_options(parser: Parser) -> None:
    paper, group = parser.groups["paper"], parser.groups["data"]
    paper.add_argument(
        "--data_path",
        type=path,
        metavar="DIR",
        help="folder with train/CLASS/*, val/CLASS/* and, if wanted, test/CLASS/*; a table FILE.csv with the columns "
        "path, label, split and, if known, patient; or a MedMNIST FILE.npz",
    )
    paper.add_argument(
        "--num_classes", "--nb_classes", type=COUNT, metavar="N", help="number of classes (default: those of the folders)"
    )
    add_loader_options(group)
    group.add_argument(
        "--cache",
        choices=("auto", "ram", "off"),
        default="auto",
        help="keep decoded images in memory; auto: when they take less than a third of it",
    )
    group.add_argument(
        "--patients", type=path, metavar="FILE", help="table with the columns path and patient, beside folders of images"
    )
    group.add_argument(
        "--on_patient_leak",
        choices=("error", "note"),
        default="error",
        help="a patient with images in two splits ends the run, or is noted",
    )
    add_leak_option(group)
    group.add_argument(
        "--on_bad_image",
        choices=("error", "skip"),
        default="error",
        help="an image that cannot be read ends the run before any work, or is left out and listed in skipped.txt (in "
        "skipped-eval.txt by --eval)",
    )
    add_reading_options(group)
    parser.groups["augmentation"].add_argument(
        "--crop_scale",
        type=number(float, 0, 1, open_ends="low"),
        nargs=2,
        default=(0.2, 1.0),
        metavar=("MIN", "MAX"),
        help="share of the image's area that a random crop takes",
    )
    parser.groups["augmentation"].add_argument(
        "--flip", type=SHARE, default=0.5, metavar="P", help="probability of the horizontal flip; 0 where sides matter"
    )
    parser.groups["evaluation"].add_argument(
        "--lesion_masks",
        type=path,
        metavar="DIR",
        help="masks of lesions in val/ as CLASS/NAME.png or NAME.png, to measure where the maps look "
        "(default: DATA_PATH/masks/val if there, masks/test where test is evaluated)",
    )


def add_reading_options(group: argparse._ArgumentGroup) -> None:
    """How image files are read (:class:`util.data.reading.Reading`)."""
    group.add_argument(
        "--intensity_range",
        type=number(float),
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="grey levels that become black and white, in images of more than 8 bits without a window of their own "
        "(default: the checkpoint's that is evaluated or resumed, else found in the training images)",
    )
    group.add_argument(
        "--window",
        type=number(float),
        nargs=2,
        metavar=("CENTRE", "WIDTH"),
        help="the same as centre and width, also instead of the window that a DICOM file carries",
    )
    group.add_argument("--frame", type=number(int, 0), metavar="N", help="of files with several pictures: which, from 0")
    group.add_argument(
        "--slice",
        type=lambda word: word if word == "middle" else number(int, 0)(word),
        nargs=2,
        metavar=("AXIS", "INDEX"),
        help="of volumes: the axis to look along (0: left to right, 1: back to front, 2: bottom to top), and which slice, "
        "from 0, or the word middle",
    )


def add_leak_option(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--on_leak",
        choices=("note", "error", "drop"),
        default="note",
        help="validation images that are copies of training images, byte for byte: say so, end the run, or leave the copies "
        "out of training",
    )


def add_loader_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--num_workers",
        type=number(int, 0),
        help="processes that load images (default: as many as there are cores, ten at most; none where one or two cores "
        "train on images that are kept decoded)",
    )
    group.add_argument(
        "--pin_mem", action=argparse.BooleanOptionalAction, default=True, help="page-locked batches, for CUDA"
    )
    group.add_argument("--no_pin_mem", action="store_false", dest="pin_mem", help=argparse.SUPPRESS)


def add_model_options(parser: Parser, models: list[str]) -> argparse._ArgumentGroup:
    group = parser.groups["model"]
    parser.groups["paper"].add_argument("--model", choices=models, metavar="NAME", help="one of: " + ", ".join(models))
    group.add_argument(
        "--input_size", type=COUNT, metavar="PIXELS", help="side of the input (default: 224, or the checkpoint's)"
    )
    group.add_argument(
        "--patch_size", type=COUNT, metavar="PIXELS", help="side of a patch (default: the model's, or the checkpoint's)"
    )
    return group


def add_masking_options(parser: Parser, kinds: tuple[str, ...], loc_interval: int) -> argparse._ArgumentGroup:
    group = parser.groups["masking"]
    none = ", or nothing: all patches are used (default: attention; tuned: none, unless a ratio is given)"
    group.add_argument(
        "--masking",
        choices=kinds,
        default="attention",
        help="what chooses the hidden patches: the attention map (SAM), "
        + (f"chance{none}" if "none" in kinds else "or chance"),
    )
    for name, ratio, verb in (("mask", MASK_RATIO, "masks"), ("throw", THROW_RATIO, "throws")):
        text = f"share of the patches that SAM {verb} (default: {ratio})"
        parser.groups["paper"].add_argument(f"--{name}_ratio", type=RATIO, default=ratio, help=text)
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
        help=f"where maps come from. {sources.help_text()}"
        + (" (default: last; tuned: consensus where all patches are used)" if "none" in kinds else ""),
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
    group = parser.groups["optimisation"]
    group.add_argument("--epochs", type=COUNT, default=epochs, help="passes over the training images")
    parser.groups["paper"].add_argument(
        "--batch_size", type=COUNT, default=batch_size, help="images in a batch, for each process"
    )
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
    group.add_argument(
        "--balance",
        choices=("none", "loss", "sampler"),
        default="none",
        help="classes of unequal size: an image's label counts inversely to the size of its class (loss), or images are "
        "drawn so that all classes are equally likely (sampler)",
    )
    return group


def add_running_options(parser: Parser, named: str = "TASK-DATASET") -> argparse._ArgumentGroup:
    group = parser.groups["running"]
    group.add_argument(
        "--output_dir",
        type=path,
        metavar="DIR",
        help=f"folder of its files (default: where --resume's checkpoint lies, else output_dir/{named})",
    )
    group.add_argument("--log_dir", type=path, metavar="DIR", help="folder for TensorBoard (default: the output folder)")
    group.add_argument(
        "--overwrite", action="store_true", help="replace the run, evaluation or prediction that the output folder holds"
    )
    group.add_argument(
        "--resume",
        type=path,
        metavar="CHECKPOINT",
        help="go on from a checkpoint; auto: the newest in the output folder",
    )
    group.add_argument("--start_epoch", type=number(int, 0), help="first epoch (default: 0, or the one after --resume's)")
    group.add_argument(
        "--save_every",
        type=SaveEvery.parse,
        default="20",
        metavar="N",
        help="N: keep a checkpoint of every N-th epoch; Nsteps, such as 500steps: keep none by epoch, but renew "
        "checkpoint-last.pth after every N steps as well as after epochs",
    )
    group.add_argument(
        "--keep", type=COUNT, metavar="N", help="kept checkpoints that stay; older ones go (default: all stay)"
    )
    group.add_argument("--device", help="such as cuda, cuda:1 or cpu (default: cuda where there is a GPU, else cpu)")
    group.add_argument(
        "--amp",
        choices=("auto", "bf16", "fp16", "tf32", "fp32"),
        default="auto",
        help="number format of matrix products; auto: bf16 where the hardware has it, else fp32; tf32: fp32 with "
        "rounded products, on a GPU",
    )
    group.add_argument("--compile", action="store_true", help="compile the training step with torch.compile")
    group.add_argument("--seed", type=SEED, default=0, help="fixes everything random")
    group.add_argument("--print_freq", type=COUNT, default=20, metavar="STEPS", help="steps between readings of the loss")
    return group


def add_figure_options(parser: Parser) -> None:
    group = parser.groups["evaluation"]
    group.add_argument(
        "--figure_format",
        choices=FORMATS,
        nargs="+",
        default=("png",),
        metavar="FORMAT",
        help="files that each picture becomes: png, pdf, svg, or several of them (default: png)",
    )
    group.add_argument(
        "--figure_width",
        type=number(float, NARROWEST, WIDEST),
        default=WIDTH,
        metavar="MM",
        help="width of each picture in millimetres; a page has about 180, a column 85",
    )


def add_augmentation_options(parser: Parser) -> None:
    group = parser.groups["augmentation"]
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
