#!/usr/bin/env python
"""Pre-train MSMAE on a folder of labelled images: masked patches are reconstructed, the class token is supervised, and
after some epochs its attention map chooses the patches to mask."""

import argparse

import engine_pretrain as engine
from models_msmae import AUTOENCODERS, create_autoencoder
from util import options
from util.data.augment import Augment
from util.maps import sources as map_source
from util.system.console import say
from util.system.errors import InputError, run_script
from util.system.seeds import seed_everything
from util.training.checkpoint import Checkpoint
from util.training.classification import ClassificationRun
from util.training.optimisation import parameter_groups
from util.training.run import find_resumed, options_to_go_on_with

PROTOCOLS = {
    "paper": {"map": "last", "map_temperature": 1.0, "random_share": 0.0},
    "tuned": {"map": "consensus", "map_temperature": 0.4, "random_share": 0.5},
}


def get_args(arguments: list[str] | None = None, recorded: dict | None = None) -> argparse.Namespace:
    """The options; ``recorded`` are those of the checkpoint that --resume names, which untyped ones are taken from.

    Before that checkpoint was read (``recorded`` is None), what depends on it is not settled or checked.
    """
    parser = options.Parser(__doc__)
    options.add_data_options(parser)
    model = options.add_model_options(parser, list(AUTOENCODERS))
    parser.set_defaults(model="msmae_vit_base_patch16", input_size=224)
    model.add_argument("--norm_pix_loss", action="store_true", help="reconstruct patches normalised one by one")
    masking = options.add_masking_options(parser, ("attention", "random"), loc_interval=40)
    masking.add_argument(
        "--random_mask_ratio",
        type=options.RATIO,
        default=0.75,
        help="share of the patches masked at random, by --masking random and before SAM",
    )
    masking.add_argument(
        "--sam_epoch", type=options.number(int, 0), default=41, metavar="EPOCH", help="first epoch (from 0) masked by SAM"
    )
    masking.add_argument(
        "--random_share",
        type=options.RATIO,
        default=0.0,
        help="while SAM runs, share of each batch masked at random instead; if above 0, only there does the head learn",
    )
    optimisation = options.add_optimisation_options(parser, epochs=300, batch_size=64, warmup_epochs=40, min_lr=0.0)
    optimisation.add_argument(
        "--class_weight", type=options.NOT_NEGATIVE, default=0.1, help="weight of the class loss beside the pixel loss"
    )
    options.add_running_options(parser)
    args = options.parse(parser, arguments, PROTOCOLS, recorded)
    if args.resume and recorded is None:
        return args
    options.check_data_path(args.data_path)
    args.patch_size = args.patch_size or AUTOENCODERS[args.model]["patch_size"]
    patches = options.check_grid(args.input_size, args.patch_size)
    options.check_ratios(patches, args.mask_ratio, args.throw_ratio, "--mask_ratio and --throw_ratio")
    options.check_ratios(patches, args.random_mask_ratio, 0.0, "--random_mask_ratio")
    map_source.check(args.map, AUTOENCODERS[args.model]["depth"])
    if args.masking == "attention" and args.map in map_source.READS_HEAD and not args.class_weight:
        raise InputError(
            f"--map {args.map} reads the head, which --class_weight 0 never trains; use consensus, last or blockN"
        )
    masked_at_random = round(args.random_share * args.batch_size)
    if args.masking == "attention" and args.random_share and not 0 < masked_at_random < args.batch_size:
        raise InputError(
            f"--random_share {args.random_share:g} cannot split --batch_size {args.batch_size}: choose a larger batch, or "
            "--random_share 0 to leave the batch whole"
        )
    return args


def prepare(args: argparse.Namespace, resumed: Checkpoint | None = None) -> ClassificationRun:
    """All that comes before the first epoch."""
    run = ClassificationRun(args, "pretrain", options.departures(args, protocol_of(args)), resumed)
    run.open()
    seed_everything(args.seed, "weights")
    model = create_autoencoder(
        args.model,
        args.patch_size,
        img_size=args.input_size,
        num_classes=len(run.classes),
        norm_pix_loss=args.norm_pix_loss,
    ).to(run.device)
    augment = Augment(args.input_size, args.patch_size, args.crop_scale)
    run.prepare(model, parameter_groups(model, args.weight_decay), (0.9, 0.95), augment)
    return run


def protocol_of(args: argparse.Namespace) -> argparse.Namespace:
    """The options as their protocol has them."""
    return get_args(["--data_path", args.data_path, "--protocol", args.protocol])


def preview_due(args: argparse.Namespace, epoch: int) -> bool:
    """Whether the validation images are looked at after an epoch: by default where maps are refreshed, and at the end."""
    done = epoch + 1
    if args.preview_every:
        due = done % args.preview_every == 0
    else:
        due = done >= args.loc_interval and (done - args.sam_epoch) % args.loc_interval == 0
    return due or done == args.epochs


def main() -> None:
    args = get_args()
    resumed = find_resumed(args, "pretrain") if args.resume else None
    args = get_args(recorded=options_to_go_on_with(resumed))
    run = prepare(args, resumed)
    sam_epoch = args.sam_epoch if args.masking == "attention" else args.epochs
    if args.masking == "attention" and sam_epoch >= args.epochs:
        say(f"note: SAM never starts, --sam_epoch {sam_epoch} is not below --epochs {args.epochs}")
    with run.saving_when_stopped():
        for epoch in run.epochs():
            use_sam = epoch >= sam_epoch
            if use_sam and run.map_entropy is None:
                run.refresh_maps()
            values = engine.train_one_epoch(run, epoch, use_sam)
            if use_sam:
                values |= {"map_entropy": run.map_entropy, "map_source": run.map_source}
            if preview_due(args, epoch):
                values |= engine.look(run, epoch)
            if run.maps_due_after(epoch, sam_epoch):
                run.refresh_maps()
            run.end_epoch(epoch, values)
    run.close()


if __name__ == "__main__":
    run_script(main)
