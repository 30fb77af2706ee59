"""The options of main_finetune.py, and what a checkpoint says of them."""

import argparse
from pathlib import Path

from util.maps import sources
from util.options import checks, groups, protocol
from util.options.parser import RATIO, Parser, number
from util.sizes import ENCODERS
from util.system.errors import InputError
from util.training.checkpoint import Checkpoint
from util.training.resuming import options_to_go_on_with

ABOUT = (
    "Fine-tune a pre-trained encoder to classify images, on the patches that its attention map leaves visible; or "
    "evaluate it with --eval."
)
# masking None: on all patches, unless ratios are given
PROTOCOLS: dict[str, dict] = {
    "paper": {"masking": "attention"},
    "tuned": {"masking": None, "mask_ratio": None, "throw_ratio": None},  # on all patches, unless ratios are given
}
OF_MAPS = ("map", "map_temperature", "masking", "mask_ratio", "throw_ratio", "protocol")


def get_args(arguments: list[str] | None = None, recorded: dict | None = None) -> argparse.Namespace:
    """The options; ``recorded`` are those of the checkpoint to begin from, which untyped ones are taken from.

    Before that checkpoint was read (``recorded`` is None), what depends on it is not settled or checked.
    """
    parser = Parser(ABOUT)
    groups.add_data_options(parser)
    model = groups.add_model_options(parser, list(ENCODERS))
    parser.groups["paper"].add_argument(
        "--finetune",
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
    groups.add_augmentation_options(parser)
    groups.add_running_options(parser)
    groups.add_figure_options(parser)
    parser.groups["paper"].add_argument("--eval", action="store_true", help="only evaluate the checkpoint given by --resume")
    evaluation = parser.groups["evaluation"]
    evaluation.add_argument(
        "--split", choices=("test", "val"), help="what --eval evaluates (default: test/ where there is one)"
    )
    evaluation.add_argument(
        "--ordered", action="store_true", help="classes are grades in order: --eval adds quadratic kappa"
    )
    args = protocol.parse(parser, arguments, PROTOCOLS, recorded)
    if args.eval and args.resume in (None, "auto"):
        raise InputError("--eval needs --resume CHECKPOINT, the checkpoint to evaluate")
    if not args.eval and (args.split or args.ordered):
        raise InputError(f"--{'split' if args.split else 'ordered'} is for --eval; leave it out")
    if args.eval and args.finetune:
        raise InputError("--eval evaluates --resume CHECKPOINT; leave --finetune out")
    protocol.settle_masking(args)
    if not args.eval:
        checks.training(args)
    checks.finetuning(args)
    if (args.resume or args.finetune) and recorded is None:
        return args
    checks.data_path(args.data_path)
    args.model = args.model or "vit_base_patch16"
    args.input_size = args.input_size or 224
    args.patch_size = args.patch_size or ENCODERS[args.model]["patch_size"]
    args.pool = args.pool or "avg"
    patches = checks.grid(args.input_size, args.patch_size)
    sources.check(args.map, ENCODERS[args.model]["depth"])
    if args.masking != "none" and not args.eval:
        checks.ratios(patches, args.mask_ratio, args.throw_ratio, "--mask_ratio and --throw_ratio")
    return args


def recorded_options(args: argparse.Namespace, source: Checkpoint | None) -> dict:
    """What a checkpoint says of the options: all when a run goes on, its model's and maps' in an evaluation, else the shape.

    Classes, map and masking of a pre-training are no matter of the fine-tuning that begins from it.
    """
    if source is None:
        return {}
    if goes_on(args, source):
        return options_to_go_on_with(source)
    shape: dict = {"input_size": source.input_size, "patch_size": source.shape.patch_size}
    if not args.model:
        shape["model"] = source.encoder_name(ENCODERS)
    if args.eval or source.is_finetuned:
        shape["pool"] = source.pooling
    if args.eval:
        shape |= {name: source.options[name] for name in OF_MAPS if name in source.options}
    return shape


def goes_on(args: argparse.Namespace, source: Checkpoint) -> bool:
    """Whether a checkpoint is of the run that goes on, and not one to evaluate or to begin from."""
    return bool(args.resume) and not args.eval and source.path != Path(args.finetune or "")


def protocol_of(args: argparse.Namespace) -> argparse.Namespace:
    """The options as their protocol has them."""
    pure = get_args(["--data_path", args.data_path, "--protocol", args.protocol])
    pure.map = protocol.finetuning_map(args)
    return pure
