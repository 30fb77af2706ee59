#!/usr/bin/env python
"""Train SETR on a pre-trained MSMAE encoder to segment images; or evaluate it with --evaluate."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from this folder as from any other

from segmentation import engine
from segmentation.data import TrainingPairs, augmentation, check_batch, open_pairs, resize
from segmentation.evaluation import evaluate_only
from segmentation.losses import LOSSES
from segmentation.options import get_args
from segmentation.protocol import PROTOCOLS, departures
from segmentation.run import SegmentationRun, default_folder
from segmentation.schedules import Plateau, make_optimizer, make_schedule
from segmentation.setr import build_setr
from util import checkpoint
from util.errors import run_script
from util.log import say
from util.seeds import seed_everything

BEST_BY = {"batch_iou": "val_iou_batches", "image_iou": "val_iou"}  # the figure in the log


def main() -> None:
    args = get_args()
    departing = departures(args, PROTOCOLS[args.protocol])
    say(f"protocol: {args.protocol}" + (f", except for {' '.join(departing)}" if departing else ""))
    if args.evaluate:
        return evaluate_only(args)
    val_pairs, train_pairs = open_pairs(args.root, ("val", "train"), args.img_ext, args.mask_ext, args.num_classes)
    check_batch(args.batch_size, args.accum_iter, len(train_pairs))
    run = SegmentationRun(args, "segmentation", val_pairs.classes, default_folder(args.dataset, args.name))

    seed_everything(args.seed, "weights")
    size = (args.input_h, args.input_w)
    model = build_setr(
        args.model,
        args.patch_size,
        size,
        len(val_pairs.classes),
        encoder_init=args.encoder_init,
        deep_supervision=args.deep_supervision,
        final_norm=args.final_norm,
        align_corners=args.align_corners,
    )
    if args.checkpoint and not run.resumed:
        encoder = checkpoint.load(args.checkpoint)["model"]
        say(checkpoint.load_encoder(model.encoder, encoder, args.checkpoint, new_head=True))
    elif not run.resumed:
        say("note: no --checkpoint, the encoder starts from random weights")
    run.open()

    augment = augmentation(
        size,
        turn_probability=args.turn_probability,
        flips=args.flips,
        crop_scale=args.crop_scale,
        color_jitter=args.color_jitter,
        antialias=args.antialias,
    )
    dataset = TrainingPairs(train_pairs, augment, args.seed)
    whole = resize(size, args.antialias)
    model.to(run.device)
    optimizer = make_optimizer(
        model, args.optimizer, args.lr, args.weight_decay, momentum=args.momentum, nesterov=args.nesterov
    )
    schedule = make_schedule(
        optimizer,
        args.scheduler,
        lr=args.lr,
        min_lr=args.min_lr,
        epochs=args.epochs,
        warmup_epochs=args.warmup_epochs,
        step=args.schedule_step,
        factor=args.factor,
        patience=args.patience,
        milestones=args.milestones,
        gamma=args.gamma,
    )
    run.begin(model, dataset, optimizer, schedule)
    weights = sum(parameter.numel() for parameter in model.parameters())
    say(
        f"{args.arch} on {args.model}: {weights:,} parameters; {len(dataset)} training and "
        f"{len(val_pairs)} validation images, masks of {len(val_pairs.classes)} classes"
    )

    loss_function, figure = LOSSES[args.loss], BEST_BY[args.best_by]
    with run.saving_when_stopped():
        for epoch in run.epochs():
            values = engine.train_one_epoch(run, loss_function, epoch)
            results, *_ = engine.evaluate(model, val_pairs, whole, loss_function, args.batch_size, run.precision)
            values |= {f"val_{name}": value for name, value in results["per_image"].items()}
            values |= {"val_iou_whole_set": results["whole_set"]["iou"], "val_loss": results["loss"]}
            values |= {f"val_{name}_batches": results["batch_averaged"][name] for name in ("iou", "dice")}
            if isinstance(schedule, Plateau):
                schedule.observe(results["loss"])
            is_best = values[figure] > run.best.get(figure, -1.0)
            if is_best:
                run.best = {"epoch": epoch, figure: values[figure]}
            run.end_epoch(epoch, values, is_best)
            if args.early_stopping and epoch - run.best["epoch"] >= args.early_stopping:
                say(f"early stopping: no better IoU for {args.early_stopping} epochs")
                break
        if figure in run.best:
            say(f"best epoch {run.best['epoch']}: {best_in_words(run.best, figure, args.batch_size)}")
    run.close()


def best_in_words(best: dict, figure: str, batch_size: int) -> str:
    over = f"batches of {batch_size}, by their size" if figure == "val_iou_batches" else "images"
    return f"IoU {100 * best[figure]:.2f} %, averaged over {over}; chosen on val/ itself (checkpoint-best.pth)"


if __name__ == "__main__":
    run_script(main)
