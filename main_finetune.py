#!/usr/bin/env python
"""Fine-tune a pre-trained encoder to classify images, on the patches that its attention map leaves visible; or evaluate it
with --eval."""

import argparse

from torch import nn

import engine_finetune as engine
from models_vit import ENCODERS, VisionTransformer, create_encoder
from util import options
from util.data.augment import Augment, PolicyAugment
from util.evaluation import metrics
from util.evaluation.preview import draw_sheet
from util.maps import sources as map_source
from util.system import distributed
from util.system.console import say
from util.system.errors import InputError, run_script
from util.system.seeds import seed_everything
from util.training import checkpoint
from util.training.checkpoint import Checkpoint
from util.training.classification import ClassificationRun
from util.training.optimisation import parameter_groups
from util.training.run import find_resumed, options_to_go_on_with

PROTOCOLS = {"paper": {"masking": "attention"}, "tuned": {"masking": None}}  # None: on all patches, unless ratios are given
OF_MAPS = ("map", "map_temperature", "masking", "mask_ratio", "throw_ratio", "protocol")


def get_args(arguments: list[str] | None = None, recorded: dict | None = None) -> argparse.Namespace:
    """The options; ``recorded`` are those of the checkpoint to begin from, which untyped ones are taken from.

    Before that checkpoint was read (``recorded`` is None), what depends on it is not settled or checked.
    """
    parser = options.Parser(__doc__)
    options.add_data_options(parser)
    model = options.add_model_options(parser, list(ENCODERS))
    model.add_argument(
        "--finetune",
        metavar="CHECKPOINT",
        help="encoder to start from; model, input size and patch size are its own (default: none, vit_base_patch16 at 224 "
        "pixels from random weights)",
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
    model.add_argument("--drop_path", type=options.RATIO, default=0.1, help="stochastic depth of the last block")
    masking = options.add_masking_options(parser, ("attention", "random", "none"), loc_interval=20)
    parser.set_defaults(mask_ratio=None, throw_ratio=None, map=None)  # what is not given is told apart
    masking.add_argument(
        "--unmasked_epochs", type=options.number(int, 0), default=0, metavar="N", help="last epochs, on all patches"
    )
    optimisation = options.add_optimisation_options(parser, epochs=100, batch_size=256, warmup_epochs=5, min_lr=1e-6)
    optimisation.add_argument(
        "--layer_decay",
        type=options.number(float, 0, 1, open_ends="low"),
        default=0.75,
        help="learning rate of a layer relative to the one above it",
    )
    optimisation.add_argument("--smoothing", type=options.RATIO, default=0.1, help="label smoothing")
    add_augmentation_options(parser)
    running = options.add_running_options(parser)
    running.add_argument("--eval", action="store_true", help="only evaluate the checkpoint given by --resume")
    args = options.parse(parser, arguments, PROTOCOLS, recorded)
    if args.eval and args.resume in (None, "auto"):
        raise InputError("--eval needs --resume CHECKPOINT, the checkpoint to evaluate")
    if args.eval and args.finetune:
        raise InputError("--eval evaluates --resume CHECKPOINT; leave --finetune out")
    settle_masking(args)
    check_training_options(args)
    if (args.resume or args.finetune) and recorded is None:
        return args
    options.check_data_path(args.data_path)
    args.model = args.model or "vit_base_patch16"
    args.input_size = args.input_size or 224
    args.patch_size = args.patch_size or ENCODERS[args.model]["patch_size"]
    args.pool = args.pool or "avg"
    patches = options.check_grid(args.input_size, args.patch_size)
    map_source.check(args.map, ENCODERS[args.model]["depth"])
    if args.masking != "none" and not args.eval:
        options.check_ratios(patches, args.mask_ratio, args.throw_ratio, "--mask_ratio and --throw_ratio")
    return args


def settle_masking(args: argparse.Namespace) -> None:
    """Settle what masks, by which map and how much of an image, where the command line or the protocol leave it open."""
    ratios_given = args.mask_ratio is not None or args.throw_ratio is not None
    args.masking = args.masking or ("attention" if ratios_given else "none")
    args.mask_ratio = options.MASK_RATIO if args.mask_ratio is None else args.mask_ratio
    args.throw_ratio = options.THROW_RATIO if args.throw_ratio is None else args.throw_ratio
    args.map = args.map or protocols_map(args)


def protocols_map(args: argparse.Namespace) -> str:
    """SAM draws by the last block's map in either protocol; where it does not run, a map is only shown."""
    return "last" if args.protocol == "paper" or args.masking == "attention" else "consensus"


def check_training_options(args: argparse.Namespace) -> None:
    """Raise :class:`InputError` where options that need no checkpoint do not go together."""
    if args.unmasked_epochs > args.epochs:
        raise InputError(f"--unmasked_epochs {args.unmasked_epochs} is more than --epochs {args.epochs}")
    if args.unmasked_epochs and args.masking == "none":
        raise InputError(
            f"--unmasked_epochs {args.unmasked_epochs}: no epoch is masked anyway; add --masking attention or random"
        )
    if args.aa:
        PolicyAugment.check(args.aa)
    if args.cutmix_minmax and args.cutmix_minmax[0] > args.cutmix_minmax[1]:
        low, high = args.cutmix_minmax
        raise InputError(f"--cutmix_minmax {low:g} {high:g}: the smaller share comes first")
    if (args.mixup or args.cutmix or args.cutmix_minmax) and args.batch_size % 2:
        raise InputError(f"--mixup and --cutmix pair the images of a batch: --batch_size {args.batch_size} must be even")


def add_augmentation_options(parser: options.Parser) -> None:
    group = parser.add_argument_group(
        "augmentation beyond crop and flip (off by default: the released scripts list it and never apply it)"
    )
    group.add_argument("--aa", metavar="POLICY", help="timm's AutoAugment or RandAugment, such as rand-m9-mstd0.5-inc1")
    group.add_argument(
        "--color_jitter", type=options.NOT_NEGATIVE, default=0.0, help="strength of colour jitter (--aa replaces it)"
    )
    group.add_argument("--reprob", type=options.SHARE, default=0.0, help="probability of random erasing")
    group.add_argument("--remode", choices=("const", "rand", "pixel"), default="pixel", help="what erased pixels become")
    group.add_argument("--recount", type=options.COUNT, default=1, help="largest number of erased boxes in an image")
    group.add_argument("--mixup", type=options.NOT_NEGATIVE, default=0.0, help="alpha of Mixup, 0: off")
    group.add_argument("--cutmix", type=options.NOT_NEGATIVE, default=0.0, help="alpha of CutMix, 0: off")
    group.add_argument(
        "--cutmix_minmax",
        type=options.SHARE,
        nargs=2,
        metavar=("MIN", "MAX"),
        help="smallest and largest side of CutMix's box as a share of the image's, instead of --cutmix",
    )
    group.add_argument("--mixup_prob", type=options.SHARE, default=1.0, help="probability of mixing a batch")
    group.add_argument(
        "--mixup_switch_prob", type=options.SHARE, default=0.5, help="probability of CutMix where both are on"
    )
    group.add_argument(
        "--mixup_mode", choices=("batch", "pair", "elem"), default="batch", help="what shares one draw of the mixing"
    )


def recorded_options(args: argparse.Namespace, source: Checkpoint | None) -> dict:
    """What a checkpoint says of the options: all when a run goes on, its model's and maps' in an evaluation, else the shape.

    Classes, map and masking of a pre-training are no matter of the fine-tuning that begins from it.
    """
    if source is None:
        return {}
    if source.phase == "finetune" and args.resume and not args.eval:
        return options_to_go_on_with(source)
    shape = {"input_size": source.input_size, "patch_size": source.shape.patch_size}
    if not args.model:
        shape["model"] = source.encoder_name(ENCODERS)
    if args.eval or source.is_finetuned:
        shape["pool"] = source.pooling
    if args.eval:
        shape |= {name: source.options[name] for name in OF_MAPS if name in source.options}
    return shape


def protocol_of(args: argparse.Namespace) -> argparse.Namespace:
    """The options as their protocol has them."""
    protocol = get_args(["--data_path", args.data_path, "--protocol", args.protocol])
    protocol.map = protocols_map(args)
    return protocol


def build_model(args, num_classes: int, drop_path: float, pool: str) -> VisionTransformer:
    return create_encoder(
        args.model,
        args.patch_size,
        img_size=args.input_size,
        num_classes=num_classes,
        global_pool=pool,
        drop_path_rate=drop_path,
    )


def model_of_first_maps(args, source: Checkpoint | None, num_classes: int) -> VisionTransformer | None:
    """The model that computes the maps before epoch 0 where they need a trained head, which the new one is not yet.

    Returns:
        The pre-trained encoder with its own head and pooling; None where the map needs no head.
    """
    if args.masking != "attention" or args.map not in map_source.READS_HEAD:
        return None
    remedy = "use --map consensus, last or blockN"
    if not source:
        raise InputError(f"--map {args.map} needs --finetune, a checkpoint with a trained head; {remedy}")
    if source.outputs != num_classes or not source.options.get("class_weight", 1):
        raise InputError(f"--map {args.map}: {args.finetune} has no head trained on these classes; {remedy}")
    model = build_model(args, num_classes, drop_path=0.0, pool=source.pooling)
    checkpoint.load_encoder(model, source, new_head=False)
    return model


def evaluate_only(args: argparse.Namespace, source: Checkpoint) -> None:
    """``--eval``: figures of merit of a checkpoint, printed and written to ``metrics.json`` and ``predictions.csv``."""
    run = ClassificationRun(args, "eval")
    if source.outputs != len(run.classes) or source.classes not in (None, run.classes):
        raise InputError(
            f"{args.resume} tells {source.outputs} classes apart ({', '.join(source.classes or ['unnamed'])}), "
            f"{args.data_path} has {len(run.classes)} ({', '.join(run.classes)})"
        )
    run.model = build_model(args, len(run.classes), drop_path=0.0, pool=args.pool)
    say(checkpoint.load_encoder(run.model, source, new_head=False))
    missing = run.model.state_dict().keys() - source.parameters.keys()
    if missing:
        raise InputError(f"{args.resume} lacks {min(missing)}: leave --cls_token and --global_pool out, or fine-tune first")
    run.open()
    run.model.to(run.device)
    results, probabilities, features = engine.evaluate(run, localise=True)
    results = {"checkpoint": args.resume, **results}
    if distributed.is_main():
        labels = run.val_images.labels.numpy()
        metrics.write_results(run.folder, results, run.val_images.paths, labels, probabilities.numpy(), run.classes)
    say(metrics.table(results))
    engine.draw_pictures(run, results, probabilities, features)
    say(f"written in {run.folder}: metrics.json, predictions.csv; roc.png, confusion.png, tsne.png, attention.png")
    distributed.stop()


def find_source(args: argparse.Namespace) -> Checkpoint | None:
    """The checkpoint to evaluate, to go on from, or to begin from; None: random weights."""
    if args.eval:
        return checkpoint.load(args.resume)
    resumed = find_resumed(args, "finetune") if args.resume else None
    return resumed or (checkpoint.load(args.finetune) if args.finetune else None)


def remark_on_masking(args: argparse.Namespace) -> None:
    """Say in a line what the choice of masking means where it is not a choice of the user's own making."""
    if args.masking == "none":
        say("note: fine-tuning on all patches; --masking attention uses only those that SAM leaves visible")
    elif args.masking == "attention" and args.protocol == "paper":
        say(
            "note: fine-tuning on SAM's visible patches, as in the paper. With small models this ended 15 points below all "
            "patches on BUSI (6 to 24) and 11 on Brain Tumor MRI (-4 to 25; RESULTS.md). --protocol tuned uses all patches"
        )


def main() -> None:
    args = get_args()
    source = find_source(args)
    args = get_args(recorded=recorded_options(args, source))
    if args.eval:
        return evaluate_only(args, source)
    resumed = source if source and args.resume and source.phase == "finetune" else None
    run = ClassificationRun(args, "finetune", options.departures(args, protocol_of(args)), resumed)
    seed_everything(args.seed, "weights")
    model = build_model(args, len(run.classes), args.drop_path, args.pool)
    remark_on_masking(args)
    if not source:
        say("note: no --finetune, the encoder starts from random weights")
    elif not resumed:
        say(checkpoint.load_encoder(model, source, new_head=True))
    nn.init.normal_(model.head.weight, std=2e-5)
    pretrained = None if resumed else model_of_first_maps(args, source, len(run.classes))
    run.open()
    model.to(run.device)
    groups = parameter_groups(model, args.weight_decay, args.layer_decay, never_decay=("cls_token", "pos_embed"))
    augment = Augment(args.input_size, args.patch_size, args.crop_scale, args.color_jitter, args.aa)
    run.prepare(model, groups, (0.9, 0.999), augment)

    mixup, erasing = engine.make_mixup(args, len(run.classes)), engine.make_erasing(args, run.device)
    masked_epochs = args.epochs - args.unmasked_epochs
    with run.saving_when_stopped():
        for epoch in run.epochs():
            masking = args.masking if epoch < masked_epochs else "none"
            if masking == "attention" and run.map_entropy is None:
                run.refresh_maps(pretrained and pretrained.to(run.device))
                pretrained = None
            values = engine.train_one_epoch(run, epoch, masking, mixup, erasing)
            if masking == "attention":
                values |= {"map_entropy": run.map_entropy, "map_source": run.map_source}
            last = epoch + 1 == args.epochs
            preview = last or (epoch + 1) % (args.preview_every or args.loc_interval) == 0
            results, probabilities, _ = engine.evaluate(run, localise=preview)
            if preview:
                draw_sheet(run, epoch, probabilities)
            values |= {f"val_{name}": results[name] for name in engine.LOGGED}
            values |= {name: value for name, value in results.items() if name.startswith(("map_", "localisation"))}
            if args.masking == "attention" and epoch + 1 < masked_epochs and run.maps_due_after(epoch, first=0):
                run.refresh_maps()
            is_best = values["val_top1"] > run.best.get("val_top1", -1.0)
            if is_best:
                run.best = {"epoch": epoch, "val_top1": values["val_top1"]}
            run.end_epoch(epoch, values, is_best)
            if last:
                say(f"last epoch {epoch}: top-1 {100 * values['val_top1']:.2f} % (checkpoint-last.pth)")
                say(
                    f"best epoch {run.best['epoch']}: top-1 {100 * run.best['val_top1']:.2f} %, chosen on val/ itself "
                    "(checkpoint-best.pth)"
                )
    run.close()


if __name__ == "__main__":
    run_script(main)
