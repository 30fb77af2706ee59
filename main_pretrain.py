#!/usr/bin/env python
"""Pre-train MSMAE on a folder of labelled images: masked patches are reconstructed, the class token is supervised, and
after some epochs its attention map chooses the patches to mask."""

import argparse

import engine_pretrain as engine
from models_msmae import AUTOENCODERS, create_autoencoder
from util import map_source, options
from util.augment import Augment
from util.classification import ClassificationRun
from util.errors import InputError, run_script
from util.log import say
from util.optimisation import parameter_groups
from util.seeds import seed_everything

PAPER = {**options.PAPERS_MAP, "random_share": 0.0}  # --protocol paper


def get_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = options.Parser(__doc__)
    options.add_data_options(parser)
    model = options.add_model_options(parser, list(AUTOENCODERS), default="msmae_vit_base_patch16", input_size=224)
    model.add_argument("--norm_pix_loss", action="store_true", help="reconstruct patches normalised one by one")
    masking = options.add_masking_options(parser, ("attention", "random"), loc_interval=40)
    masking.add_argument(
        "--random_mask_ratio", type=options.RATIO, default=0.75, help="share masked where chance chooses; none is thrown"
    )
    masking.add_argument(
        "--sam_epoch", type=options.number(int, 0), default=41, metavar="EPOCH", help="first epoch (from 0) masked by SAM"
    )
    masking.add_argument(
        "--random_share",
        type=options.RATIO,
        default=0.5,
        help="while SAM runs, share of each batch masked by chance instead; if above 0, only there does the head learn (the "
        "paper: 0)",
    )
    optimisation = options.add_optimisation_options(parser, epochs=300, batch_size=64, warmup_epochs=40, min_lr=0.0)
    optimisation.add_argument(
        "--class_weight", type=options.NOT_NEGATIVE, default=0.1, help="weight of the class loss beside the pixel loss"
    )
    options.add_running_options(parser)
    args = options.parse(parser, arguments, PAPER)

    options.settle_masking(args, otherwise="attention")
    args.patch_size = args.patch_size or AUTOENCODERS[args.model]["patch_size"]
    patches = options.check_grid(args)
    options.check_ratios(patches, args.mask_ratio, args.throw_ratio, "--mask_ratio and --throw_ratio")
    options.check_ratios(patches, args.random_mask_ratio, 0.0, "--random_mask_ratio")
    map_source.check(args.map, AUTOENCODERS[args.model]["depth"])
    if args.masking == "attention" and args.map in map_source.READS_HEAD and not args.class_weight:
        raise InputError(
            f"--map {args.map} reads the head, which --class_weight 0 never trains; use consensus, last or blockN"
        )
    if args.random_share and not 0 < round(args.random_share * args.batch_size) < args.batch_size:
        raise InputError(
            f"--random_share {args.random_share:g} of --batch_size {args.batch_size} is no part of a batch; 0 leaves it out"
        )
    return args


def prepare(args: argparse.Namespace) -> ClassificationRun:
    """All that comes before the first epoch."""
    run = ClassificationRun(args, "pretrain")
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


def main() -> None:
    args = get_args()
    run = prepare(args)
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
            since_sam = epoch + 1 - args.sam_epoch  # looks fall on refreshes, unless --look_every says otherwise
            if since_sam % (args.look_every or args.loc_interval) == 0 or epoch + 1 == args.epochs:
                values |= engine.look(run, epoch)
            if run.maps_due_after(epoch, sam_epoch):
                run.refresh_maps()
            run.end_epoch(epoch, values)
    run.close()


if __name__ == "__main__":
    run_script(main)
