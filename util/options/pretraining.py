"""The options of main_pretrain.py."""

import argparse

from util.maps import sources
from util.options import checks, groups, protocol
from util.options.parser import NOT_NEGATIVE, RATIO, Parser, number, path
from util.sizes import AUTOENCODERS, ENCODERS
from util.system.errors import InputError
from util.training.checkpoint import Checkpoint
from util.training.resuming import resumed_options

ABOUT = (
    "Pre-train MSMAE on a folder of labelled images: masked patches are reconstructed, the class token is "
    "supervised, and after some epochs its attention map chooses the patches to mask."
)
INIT = (
    "weights to start from, the decoder's too where they have one that fits: a checkpoint, a Hugging Face folder or "
    "timm:NAME (docs/weights.md); model, input size and patch size are its own (default: none, random weights)"
)
PROTOCOLS = {
    "paper": {"map": "last", "map_temperature": 1.0, "random_share": 0.0},
    "tuned": {"map": "consensus", "map_temperature": 0.4, "random_share": 0.5},
}


def get_args(arguments: list[str] | None = None, recorded: dict | None = None) -> argparse.Namespace:
    """The options; ``recorded`` are those of the checkpoint that --resume names, which untyped ones are taken from.

    Before that checkpoint was read (``recorded`` is None), what depends on it is not settled or checked.
    """
    parser = Parser(ABOUT, PROTOCOLS["tuned"])
    groups.add_data_options(parser)
    model = groups.add_model_options(parser, list(AUTOENCODERS))
    parser.set_defaults(model="msmae_vit_base_patch16", input_size=224)
    model.add_argument("--norm_pix_loss", action="store_true", help="reconstruct patches normalised one by one")
    parser.groups["running"].add_argument("--init", type=path, metavar="WEIGHTS", help=INIT)
    masking = groups.add_masking_options(parser, ("attention", "random"), loc_interval=40)
    masking.add_argument(
        "--random_mask_ratio",
        type=RATIO,
        default=0.75,
        help="share of the patches masked at random, by --masking random and before SAM",
    )
    masking.add_argument(
        "--sam_epoch", type=number(int, 0), default=41, metavar="EPOCH", help="first epoch (from 0) masked by SAM"
    )
    masking.add_argument(
        "--random_share",
        type=RATIO,
        default=0.0,
        help="while SAM runs, share of each batch masked at random instead; if above 0, only there does the head learn",
    )
    optimisation = groups.add_optimisation_options(parser, epochs=300, batch_size=64, warmup_epochs=40, min_lr=0.0)
    optimisation.add_argument(
        "--class_weight", type=NOT_NEGATIVE, default=0.1, help="weight of the class loss beside the pixel loss"
    )
    groups.add_running_options(parser)
    groups.add_figure_options(parser)
    args = protocol.parse(parser, arguments, PROTOCOLS, recorded)
    checks.reading(args)
    if (args.resume or args.init) and recorded is None:
        return args
    checks.data_path(args.data_path)
    checks.training(args)
    args.patch_size = args.patch_size or AUTOENCODERS[args.model]["patch_size"]
    patches = checks.grid(args.input_size, args.patch_size)
    checks.ratios(patches, args.mask_ratio, args.throw_ratio, "--mask_ratio and --throw_ratio")
    checks.ratios(patches, args.random_mask_ratio, 0.0, "--random_mask_ratio")
    sources.check(args.map, AUTOENCODERS[args.model]["depth"])
    if args.masking == "attention" and sources.reads_head(args.map) and not args.class_weight:
        raise InputError(
            f"--map {args.map} reads the head, which --class_weight 0 never trains; use consensus, last or blockN"
        )
    if args.balance == "loss" and not args.class_weight:
        raise InputError("--balance loss weighs the class loss, which --class_weight 0 leaves out; use --balance sampler")
    masked_at_random = round(args.random_share * args.batch_size)
    if args.masking == "attention" and args.random_share and not 0 < masked_at_random < args.batch_size:
        raise InputError(
            f"--random_share {args.random_share:g} cannot split --batch_size {args.batch_size}: choose a larger batch, or "
            "--random_share 0 to leave the batch whole"
        )
    return args


def recorded_options(resumed: Checkpoint | None, initial: Checkpoint | None) -> dict:
    """What a checkpoint says of the options: all when a run goes on, else the shape of the encoder to start from."""
    if resumed or not initial:
        return resumed_options(resumed)
    return {
        "model": f"msmae_{initial.encoder_name(ENCODERS)}",
        "input_size": initial.input_size,
        "patch_size": initial.shape.patch_size,
    }


def protocol_of(args: argparse.Namespace) -> argparse.Namespace:
    """The options as their protocol has them."""
    return get_args(["--data_path", args.data_path, "--protocol", args.protocol])
