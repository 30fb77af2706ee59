#!/usr/bin/env python
"""Train SETR on a pre-trained MSMAE encoder to segment images; or evaluate it with --evaluate."""

import signal
import sys
from pathlib import Path

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while libraries load ends without a traceback
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from this folder as from any other

from segmentation.options import get_args, make_parser
from util.system.errors import run_script

if __name__ == "__main__":  # --help and wrong options are answered before the imports below, which take seconds
    run_script(make_parser().parse_args)

from segmentation import engine
from segmentation.data import TrainingPairs, augmentation, open_for_training, resize, seen_files
from segmentation.losses import LOSSES
from segmentation.protocol import default_folder, departures
from segmentation.schedules import Plateau, make_optimizer, make_schedule
from segmentation.setr import build_setr
from util.data.loading import check_workers, loader_workers, training_loader
from util.options import checks, parsed, protocol
from util.system import distributed
from util.system.console import say
from util.system.seeds import seed_everything
from util.system.workplace import open_workplace
from util.training.optimisation import Stepper, compile_model
from util.training.resuming import find_resumed
from util.training.run import About, Part, Training
from util.training.run_folder import training_folder
from util.variant import MAE
from util.weights import history
from util.weights.into_model import load_encoder
from util.weights.sources import load_weights

BEST_BY = {"batch_iou": "val_iou_batches", "image_iou": "val_iou"}  # the score in the log


def main() -> None:
    args = get_args()
    if args.evaluate:
        from segmentation.evaluation import evaluate_only  # it needs more libraries than training does

        return evaluate_only(args)
    default = default_folder(args.dataset, args.name)
    resumed = find_resumed(args.resume, "segmentation", Path(args.output_dir or default))

    train_pairs, val_pairs = open_for_training(
        args.root, args.img_ext, args.mask_ext, args.num_classes, args.on_leak, parsed.reading(args)
    )
    checks.batches(args.batch_size, args.accum_iter, len(train_pairs))
    folder = training_folder(args.output_dir, default, args.resume, overwrite=args.overwrite)
    check_workers(args.num_workers)
    workplace = open_workplace(folder, args.device, args.amp, args.log_dir)
    departing = departures(args)
    say(protocol.describe(args.protocol, departing))
    if args.scheduler == "cosine":
        checks.note_warmup(args.warmup_epochs, args.epochs)
        checks.note_lowest_rate(args.min_lr, args.lr)

    seed_everything(args.seed, "weights")
    size = (args.input_h, args.input_w)
    started_from = resumed or (load_weights(args.checkpoint) if args.checkpoint else None)
    model = build_setr(
        args.model,
        args.patch_size,
        size,
        len(val_pairs.classes),
        encoder_init=args.encoder_init,
        deep_supervision=args.deep_supervision,
        final_norm=args.final_norm,
        align_corners=args.align_corners,
        variant=started_from.variant if started_from else MAE,
    )
    if started_from and not resumed:
        say(load_encoder(model.encoder, started_from, new_head=True))
        if line := history.remark(args.checkpoint, val_pairs.paths, "validation images"):
            say(f"note: {line}")
    elif not resumed:
        say("note: no --checkpoint, the encoder starts from random weights")
    model.to(workplace.device)
    if args.compile:
        compile_model(model)

    augment = augmentation(
        size,
        turn_probability=args.turn_probability,
        flips=args.flips,
        crop_scale=args.crop_scale,
        color_jitter=args.color_jitter,
        antialias=args.antialias,
    )
    dataset = TrainingPairs(train_pairs, augment, args.seed)
    workers = loader_workers(args.num_workers, workplace.device, decoded=train_pairs.decoded)
    loader = training_loader(dataset, args.batch_size, workers, args.pin_mem and workplace.on_gpu)
    whole = resize(size, args.antialias)

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
    stepper = Stepper(model, optimizer, schedule, workplace.precision, args.accum_iter, args.clip_grad)
    options = parsed.plain(args) | train_pairs.reading.recorded
    seen = seen_files(train_pairs, val_pairs)
    about = About("segmentation", options, val_pairs.classes, departing, started_from)
    parts: list[Part] = [seen, schedule] if isinstance(schedule, Plateau) else [seen]
    training = Training(workplace, about, parsed.plan(args), stepper, loader, parts, resumed)
    weights = sum(parameter.numel() for parameter in model.parameters())
    say(
        f"{args.arch} on {args.model}: {weights:,} parameters; {len(dataset)} training and "
        f"{len(val_pairs)} validation images, masks of {len(val_pairs.classes)} classes"
    )

    loss_function, score = LOSSES[args.loss], BEST_BY[args.best_by]
    if score not in training.best:
        training.best = {}  # an earlier start may have chosen by the other score
    with training.saving_when_stopped():
        for epoch in training.epochs():
            values = engine.train_one_epoch(training.model, epoch, loss_function)
            distributed.share_buffers(model)  # the main process's are saved, so all evaluate with these
            results, *_ = engine.evaluate(model, val_pairs, whole, loss_function, args.batch_size, workplace.precision)
            values |= {f"val_{name}": value for name, value in results["per_image"].items()}
            values |= {"val_iou_whole_set": results["whole_set"]["iou"], "val_loss": results["loss"]}
            values |= {f"val_{name}_batches": results["batch_averaged"][name] for name in ("iou", "dice")}
            if isinstance(schedule, Plateau):
                schedule.observe(results["loss"])
            training.end_epoch(epoch, values, training.note_score(epoch, score, values[score]))
        if score in training.best:
            figure = best_in_words(training.best, score, args.batch_size)
            say(f"best epoch {training.best['epoch']}: {figure} ({training.best_checkpoint_in_words})")
    training.close()


def best_in_words(best: dict, score: str, batch_size: int) -> str:
    over = f"batches of {batch_size}, by their size" if score == "val_iou_batches" else "images"
    return f"IoU {100 * best[score]:.2f} %, averaged over {over}; chosen on val/ itself"


if __name__ == "__main__":
    run_script(main)
