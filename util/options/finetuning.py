"""The options of main_finetune.py, and what a checkpoint says of them."""

import argparse

from util.data.reading import Reading
from util.maps import sources
from util.options import checks, groups, protocol
from util.options.evaluation import add_evaluation_options, check_evaluation
from util.options.parser import COUNT, RATIO, Parser, number, path
from util.sizes import ENCODERS
from util.training.checkpoint import Checkpoint
from util.training.resuming import resumed_options

ABOUT = (
    "Fine-tune a pre-trained encoder to classify images, on the patches that its attention map leaves visible; or "
    "evaluate it with --eval, or classify new images with --predict."
)
PROTOCOLS: dict[str, dict] = {
    "paper": {"masking": "attention"},
    "tuned": {"masking": None, "mask_ratio": None, "throw_ratio": None},  # on all patches, unless a ratio is typed
}
OF_READING = tuple(Reading.__dataclass_fields__)
OF_MAPS = ("map", "map_temperature", "masking", "mask_ratio", "throw_ratio", "protocol")


def get_args(arguments: list[str] | None = None, recorded: dict | None = None) -> argparse.Namespace:
    """The options; ``recorded`` are those of the checkpoint to begin from, which untyped ones are taken from.

    Before that checkpoint was read (``recorded`` is None), what depends on it is not settled or checked.
    """
    parser = Parser(ABOUT, PROTOCOLS["tuned"])
    groups.add_data_options(parser)
    model = groups.add_model_options(parser, list(ENCODERS))
    parser.groups["paper"].add_argument(
        "--finetune",
        type=path,
        metavar="CHECKPOINT",
        help="encoder to start from: a checkpoint, a Hugging Face folder or timm:NAME (docs/weights.md); model, input size "
        "and patch size are its own (default: none, vit_base_patch16 at 224 pixels from random weights)",
    )
    pooling = model.add_mutually_exclusive_group()
    pooling.add_argument(
        "--global_pool",
        action="store_const",
        const="avg",
        dest="pool",
        help="classify the mean of the patches (the default, but for a checkpoint that does otherwise)",
    )
    pooling.add_argument("--cls_token", action="store_const", const="token", dest="pool", help="classify the class token")
    model.add_argument("--drop_path", type=RATIO, default=0.1, help="stochastic depth of the last block")
    masking = groups.add_masking_options(parser, ("attention", "random", "none"), loc_interval=20)
    parser.set_defaults(mask_ratio=None, throw_ratio=None, map=None)  # what is not given is told apart
    masking.add_argument(
        "--unmasked_epochs", type=number(int, 0), default=0, metavar="N", help="last epochs, on all patches"
    )
    optimisation = groups.add_optimisation_options(parser, epochs=100, batch_size=256, warmup_epochs=5, min_lr=1e-6)
    optimisation.add_argument(
        "--layer_decay",
        type=number(float, 0, 1, open_ends="low"),
        default=0.75,
        help="learning rate of a layer relative to the one above it",
    )
    optimisation.add_argument("--smoothing", type=RATIO, default=0.1, help="label smoothing")
    optimisation.add_argument(
        "--ema",
        type=number(float, 0, 1, open_ends="lowhigh"),
        metavar="DECAY",
        help="evaluate and save the moving average of the weights, such as 0.999 (default: the weights themselves)",
    )
    optimisation.add_argument(
        "--early_stopping",
        type=COUNT,
        metavar="N",
        help="end after N epochs without a better val_top1; the learning rate still follows --epochs (default: never)",
    )
    groups.add_augmentation_options(parser)
    groups.add_running_options(parser)
    groups.add_figure_options(parser)
    add_evaluation_options(parser)
    args = protocol.parse(parser, arguments, PROTOCOLS, recorded)
    checks.reading(args)
    check_evaluation(args)
    trains = not (args.eval or args.predict)
    protocol.settle_masking(args)
    if trains:
        checks.training(args)
    checks.finetuning(args)
    if (args.resume or args.finetune) and recorded is None:
        return args
    if not args.predict:
        checks.data_path(args.data_path)
    args.model = args.model or "vit_base_patch16"
    args.input_size = args.input_size or 224
    args.patch_size = args.patch_size or ENCODERS[args.model]["patch_size"]
    args.pool = args.pool or "avg"
    patches = checks.grid(args.input_size, args.patch_size)
    sources.check(args.map, ENCODERS[args.model]["depth"])
    if args.masking != "none" and trains:
        checks.ratios(patches, args.mask_ratio, args.throw_ratio, "--mask_ratio and --throw_ratio")
    return args


def recorded_options(
    args: argparse.Namespace,
    resumed: Checkpoint | None = None,
    initial: Checkpoint | None = None,
    used: Checkpoint | None = None,
) -> dict:
    """What a checkpoint says of the options that are not typed.

    Args:
        args: the command line.
        resumed: of the run that goes on: all its options.
        initial: to begin from: the shape of its encoder. Its classes, map and masking are no matter of the fine-tuning.
        used: by ``--eval`` or ``--predict``: also its pooling, its maps and how images are read.
    """
    if resumed:
        return resumed_options(resumed)
    source = initial or used
    if not source:
        return {}
    shape: dict = {"input_size": source.input_size, "patch_size": source.shape.patch_size}
    if not args.model:
        shape["model"] = source.encoder_name(ENCODERS)
    if used or source.is_finetuned:
        shape["pool"] = source.pooling
    if used:
        shape |= {name: source.options[name] for name in (*OF_MAPS, *OF_READING) if name in source.options}
    return shape


def protocol_of(args: argparse.Namespace) -> argparse.Namespace:
    """The options as their protocol has them."""
    pure = get_args(["--data_path", args.data_path, "--protocol", args.protocol])
    pure.map = protocol.finetuning_map(args)
    return pure
