#!/usr/bin/env python
"""Train SETR on a pre-trained MSMAE encoder to segment images; or evaluate it with --evaluate."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from this folder as from any other

from models_vit import ENCODERS, create_encoder
from segmentation import engine, metrics, pictures
from segmentation.data import extension
from segmentation.losses import LOSSES
from segmentation.run import SegmentationRun
from segmentation.schedules import Plateau
from segmentation.setr import SETR
from util import options
from util.system import distributed
from util.system.console import say
from util.system.errors import InputError, run_script
from util.system.seeds import seed_everything
from util.training import checkpoint

FROM_CHECKPOINT = ("model", "patch_size", "input_w", "input_h", "deep_supervision")


def get_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = options.Parser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument("--root", required=True, metavar="DIR", help="folder with {train,val}/images/NAME and masks/0/NAME")
    data.add_argument("--dataset", default="busi", metavar="NAME", help="names the output folder, with --name")
    data.add_argument("--img_ext", type=extension, default=".png", help="extension of the images")
    data.add_argument("--mask_ext", type=extension, default=".png", help="extension of the masks")
    data.add_argument(
        "--num_classes", type=options.COUNT, metavar="N", help="mask folders, 0 to N - 1 (default: those there)"
    )
    data.add_argument(
        "--num_workers", type=options.number(int, 0), default=options.default_workers(), help="loading processes"
    )
    data.add_argument("--pin_mem", action=argparse.BooleanOptionalAction, default=True, help="page-locked batches, for CUDA")
    augmentation = parser.add_argument_group("augmentation")
    augmentation.add_argument("--turns", action=argparse.BooleanOptionalAction, default=True, help="random quarter turns")
    augmentation.add_argument("--flips", action="store_true", help="random horizontal and vertical flips")
    augmentation.add_argument(
        "--crop_scale",
        type=options.number(float, 0, 1, open_ends="low"),
        nargs=2,
        default=(1.0, 1.0),
        metavar=("MIN", "MAX"),
        help="share of the image's area that a random crop takes; 1 1: no crop",
    )
    augmentation.add_argument("--color_jitter", type=options.NOT_NEGATIVE, default=0.0, help="strength of colour jitter")
    model = parser.add_argument_group("model")
    model.add_argument("--name", default="setr", help="of the run: names the output folder, with --dataset")
    model.add_argument("--arch", choices=("setr",), default="setr", help="SETR with progressive upsampling")
    model.add_argument("--model", choices=list(ENCODERS), metavar="NAME", help="encoder: " + ", ".join(ENCODERS)
                       + " (default: vit_base_patch16, or that of --checkpoint where it says)")  # fmt: skip
    model.add_argument("--patch_size", type=options.COUNT, metavar="PIXELS", help="side of a patch (default: the encoder's)")
    model.add_argument("--input_w", type=options.COUNT, default=224, metavar="PIXELS", help="width of the input")
    model.add_argument("--input_h", type=options.COUNT, default=224, metavar="PIXELS", help="height of the input")
    model.add_argument("--checkpoint", metavar="PRETRAINED", help="encoder to start from (default: none, random weights)")
    model.add_argument("--deep_supervision", action="store_true", help="heads on the features of earlier blocks learn too")
    add_optimisation_options(parser)
    running = options.add_running_options(parser)
    running.add_argument("--evaluate", metavar="CHECKPOINT", help="only evaluate a checkpoint of this script")
    args = parser.parse_args(arguments)
    if args.evaluate and (args.resume or args.checkpoint):
        raise InputError("--evaluate CHECKPOINT stands for itself; leave --resume and --checkpoint out")
    if args.crop_scale[0] > args.crop_scale[1]:
        raise InputError(f"--crop_scale {args.crop_scale[0]:g} {args.crop_scale[1]:g}: the smaller share comes first")
    if args.nesterov and not args.momentum:
        raise InputError("--nesterov needs --momentum above 0")
    if args.start_epoch is not None and args.start_epoch >= args.epochs:
        raise InputError(f"--start_epoch {args.start_epoch} must be below --epochs {args.epochs}")
    if args.resume and args.overwrite:
        raise InputError("--resume goes on with a run and --overwrite replaces it: give one of them")
    return args


def add_optimisation_options(parser: options.Parser) -> None:
    group = parser.add_argument_group("optimisation")
    group.add_argument("--epochs", type=options.COUNT, default=200, help="passes over the training images")
    group.add_argument("--batch_size", type=options.COUNT, default=8, help="images in a batch, for each process")
    group.add_argument("--accum_iter", type=options.COUNT, default=1, help="batches whose gradients make one step")
    group.add_argument("--loss", choices=list(LOSSES), default="BCEDiceLoss", help="0.5 x BCE + (1 - Dice), or BCE")
    group.add_argument("--optimizer", choices=("Adam", "AdamW", "SGD"), default="Adam", help="PyTorch's")
    group.add_argument("--lr", type=options.NOT_NEGATIVE, default=1e-4, help="learning rate")
    group.add_argument("--min_lr", type=options.NOT_NEGATIVE, default=1e-5, help="lowest rate of cosine and plateau")
    group.add_argument("--weight_decay", type=options.NOT_NEGATIVE, default=1e-4, help="of the optimiser")
    group.add_argument("--momentum", type=options.RATIO, default=0.9, help="of SGD")
    group.add_argument("--nesterov", action="store_true", help="Nesterov's momentum, in SGD")
    group.add_argument(
        "--scheduler", choices=("cosine", "plateau", "multistep", "constant"), default="cosine", help="of the learning rate"
    )
    group.add_argument("--warmup_epochs", type=options.NOT_NEGATIVE, default=0, help="of linear warm-up, before the cosine")
    group.add_argument("--factor", type=options.number(float, 0, 1, "lowhigh"), default=0.1, help="of plateau's reductions")
    group.add_argument("--patience", type=options.number(int, 0), default=2, help="epochs that plateau waits")
    group.add_argument(
        "--milestones", type=options.number(int, 1), nargs="+", default=(100, 150), metavar="EPOCH", help="of multistep"
    )
    group.add_argument("--gamma", type=options.number(float, 0, 1, "low"), default=0.1, help="factor at a milestone")
    group.add_argument("--clip_grad", type=options.number(float, 0, open_ends="low"), help="largest norm of the gradient")
    group.add_argument(
        "--early_stopping", type=options.COUNT, metavar="N", help="end after N epochs without a better IoU (default: never)"
    )


def settle_model_options(args, source: checkpoint.Checkpoint | None, path: str | None) -> None:
    """Settle what shapes the model; a checkpoint of this script decides, an encoder's only where no option does."""
    recorded = source.options if source else {}
    if source and source.phase == "segmentation":
        for name in FROM_CHECKPOINT:
            setattr(args, name, recorded[name])
        return
    named = str(recorded.get("model", "")).removeprefix("msmae_")
    args.model = args.model or (named if named in ENCODERS else "vit_base_patch16")
    shape = source.shape if source else None
    args.patch_size = args.patch_size or (shape.patch_size if shape else ENCODERS[args.model]["patch_size"])
    for option in ("input_w", "input_h"):
        if getattr(args, option) % args.patch_size:
            raise InputError(f"--{option} {getattr(args, option)} is not a multiple of the patch size {args.patch_size}")


def build_model(args, num_classes: int) -> SETR:
    encoder = create_encoder(
        args.model,
        args.patch_size,
        img_size=(args.input_h, args.input_w),
        num_classes=0,
        global_pool="token",
    )
    return SETR(encoder, num_classes, args.deep_supervision)


def evaluate_only(args) -> None:
    """``--evaluate``: figures, a row an image, the masks and a contact sheet of a checkpoint."""
    source = checkpoint.load(args.evaluate)
    if source.phase != "segmentation":
        raise InputError(f"{args.evaluate} is not a checkpoint of this script; to start from an encoder use --checkpoint")
    settle_model_options(args, source, args.evaluate)
    run = SegmentationRun(args, "eval")
    if source.classes != run.classes:
        raise InputError(f"{args.evaluate} was trained on the masks {source['classes']}, --root has {run.classes}")
    run.model = build_model(args, len(run.classes))
    run.model.load_state_dict(source.parameters)
    run.model.to(run.device)
    run.open()
    results, counts, found, true = engine.evaluate(run)
    results = {"checkpoint": args.evaluate, "input": [args.input_h, args.input_w], **results}
    if distributed.is_main():
        metrics.write_results(run.folder, results, counts, run.val_pairs.paths, run.classes)
        iou = pictures.mean_iou(metrics.figures(counts)["iou"])
        size = (args.input_h, args.input_w)
        title = f"{'/'.join(Path(args.evaluate).parts[-2:])}: best, median and worst of {len(iou)} images"
        pictures.contact_sheet(run.val_pairs, found > 127, true > 0, iou, size, title).savefig(run.folder / "sheet.png")
        pictures.write_masks(run.folder / "masks", run.val_pairs, found)
    say(metrics.table(results))
    say(f"written: {run.folder}/metrics.json, predictions.csv, sheet.png, masks/")
    distributed.stop()


def main() -> None:
    args = get_args()
    if args.evaluate:
        return evaluate_only(args)
    run = SegmentationRun(args, "segmentation")
    source = run.resumed or (checkpoint.load(args.checkpoint) if args.checkpoint else None)
    settle_model_options(args, source, args.checkpoint)
    seed_everything(args.seed, "weights")
    model = build_model(args, len(run.classes))
    if not source:
        say("note: no --checkpoint, the encoder starts from random weights")
    elif not run.resumed:
        say(checkpoint.load_encoder(model.encoder, source, new_head=True))
    run.open()
    run.prepare(model.to(run.device))
    with run.saving_when_stopped():
        for epoch in run.epochs():
            values = engine.train_one_epoch(run, epoch)
            results, *_ = engine.evaluate(run)
            values |= {f"val_{name}": value for name, value in results["per_image"].items()}
            values |= {"val_iou_whole_set": results["whole_set"]["iou"], "val_loss": results["loss"]}
            if isinstance(run.stepper.schedule, Plateau):
                run.stepper.schedule.observe(results["loss"])
            is_best = values["val_iou"] > run.best.get("val_iou", -1.0)
            if is_best:
                run.best = {"epoch": epoch, "val_iou": values["val_iou"]}
            run.end_epoch(epoch, values, is_best)
            if args.early_stopping and epoch - run.best["epoch"] >= args.early_stopping:
                say(f"early stopping: no better IoU for {args.early_stopping} epochs")
                break
        if run.best:
            best = f"IoU {100 * run.best['val_iou']:.2f} %, chosen on val/ itself (checkpoint-best.pth)"
            say(f"best epoch {run.best['epoch']}: {best}")
    run.close()


if __name__ == "__main__":
    run_script(main)
