#!/usr/bin/env python
"""Fine-tune a pre-trained encoder to classify images, on the patches that its attention map leaves visible; or evaluate it
with --eval, or classify new images with --predict."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while libraries load ends without a traceback

from util.options.finetuning import get_args, protocol_of, recorded_options
from util.system.errors import InputError, run_script

if __name__ == "__main__":  # --help and wrong options are answered before the imports below, which take seconds
    run_script(get_args)

import argparse

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.utils import ModelEmaV3
from torch import nn

import engine_finetune as engine
from models_vit import VisionTransformer, create_encoder
from util.data.augment import Augment
from util.data.images import note_skipped
from util.data.inference import Inference
from util.data.loading import TrainingImages, check_workers, loader_workers, training_loader
from util.data.opening import open_for_training, open_images
from util.data.seen_files import SeenFiles
from util.evaluation.preview import Preview
from util.maps import sources
from util.maps.localisation import find_masks, localise
from util.maps.training_maps import TrainingMaps
from util.masking import SAM
from util.options import checks, parsed, protocol
from util.system.console import say
from util.system.seeds import seed_everything
from util.system.workplace import named_folder, open_workplace
from util.training.balance import Balance
from util.training.checkpoint import Checkpoint
from util.training.optimisation import Schedule, Stepper, averaging_note, compile_model, parameter_groups
from util.training.resuming import find_resumed, folder_of
from util.training.run import About, Training
from util.training.run_folder import training_folder
from util.variant import MAE, Variant
from util.weights import history
from util.weights.into_model import load_encoder
from util.weights.sources import load_weights

LOGGED = ("top1", "balanced_accuracy", "macro_f1", "macro_auc", "loss")  # metrics of every epoch


def build_model(
    args: argparse.Namespace, num_classes: int, drop_path: float, pool: str, variant: Variant
) -> VisionTransformer:
    return create_encoder(
        args.model,
        args.patch_size,
        img_size=args.input_size,
        num_classes=num_classes,
        global_pool=pool,
        drop_path_rate=drop_path,
        variant=variant,
    )


def model_of_first_maps(args: argparse.Namespace, source: Checkpoint | None, classes: list[str]) -> VisionTransformer | None:
    """The model that makes the maps before epoch 0 where they need a trained head, which the new one is not yet.

    Returns:
        The pre-trained encoder with its own head and pooling; None where the map needs no head.
    """
    if args.masking != "attention" or not sources.reads_head(args.map):
        return None
    remedy = "use --map consensus, last or blockN"
    if not source:
        raise InputError(f"--map {args.map} needs --finetune, a checkpoint with a trained head; {remedy}")
    other_classes = source.outputs != len(classes) or (source.classes and source.classes != classes)
    if other_classes or not source.options.get("class_weight", 1):
        raise InputError(f"--map {args.map}: {args.finetune} has no head trained on these classes; {remedy}")
    model = build_model(args, len(classes), drop_path=0.0, pool=source.pooling, variant=source.variant)
    load_encoder(model, source, new_head=False)
    return model


def mixing_of(args: argparse.Namespace, num_classes: int) -> Mixup | None:
    """What mixes the images of a batch; None where no option asks for it."""
    if not (args.mixup or args.cutmix or args.cutmix_minmax):
        return None
    mixing = (args.mixup, args.cutmix, args.cutmix_minmax, args.mixup_prob, args.mixup_switch_prob, args.mixup_mode)
    smoothing = 0.0 if args.balance == "loss" else args.smoothing  # there the loss smooths what it has weighed
    return Mixup(*mixing, label_smoothing=smoothing, num_classes=num_classes)


def erasing_of(args: argparse.Namespace, device: torch.device) -> RandomErasing | None:
    """What erases parts of the images of a batch; None where no option asks for it."""
    return RandomErasing(args.reprob, mode=args.remode, max_count=args.recount, device=device) if args.reprob else None


def main() -> None:
    args = get_args()
    if args.eval or args.predict:
        import evaluate_finetune  # it needs more libraries than training does

        used = load_weights(args.resume)
        use = evaluate_finetune.evaluate if args.eval else evaluate_finetune.predict
        return use(get_args(recorded=recorded_options(args, used=used)), used)
    resumed = find_resumed(args.resume, "finetune", folder_of(args, "finetune"))
    initial = load_weights(args.finetune) if args.finetune and not resumed else None
    args = get_args(recorded=recorded_options(args, resumed, initial))
    source = resumed or initial

    # what can be wrong is found before any image is read
    train_files, val_files = open_for_training(
        args.data_path, args.num_classes, args.patients, args.on_patient_leak, args.on_leak
    )
    classes = train_files.classes
    effective_batch = checks.batches(args.batch_size, args.accum_iter, len(train_files))
    default_folder = named_folder("finetune", args.data_path)
    folder = training_folder(args.output_dir, default_folder, args.resume, overwrite=args.overwrite)
    check_workers(args.num_workers)
    workplace = open_workplace(folder, args.device, args.amp, args.log_dir)
    departures = protocol.departures(args, protocol_of(args))
    say(protocol.describe(args.protocol, departures))
    say(protocol.remark_on_masking(args.masking, args.protocol))
    checks.note_warmup(args.warmup_epochs, args.epochs)

    # model
    seed_everything(args.seed, "weights")
    model = build_model(args, len(classes), args.drop_path, args.pool, source.variant if source else MAE)
    if not source:
        say("note: no --finetune, the encoder starts from random weights")
    elif not resumed:
        say(load_encoder(model, source, new_head=True))
        if line := history.remark(args.finetune, val_files.paths, "validation images"):
            say(f"note: {line}")
    nn.init.normal_(model.head.weight, std=2e-5)
    first_maps_model = None if resumed else model_of_first_maps(args, source, classes)
    model.to(workplace.device)
    if first_maps_model:
        first_maps_model.to(workplace.device)
    average = ModelEmaV3(model, args.ema) if args.ema else None
    if args.compile:
        compile_model(model)

    # images, the maps of the training images, and how both are used
    train_images, val_images = open_images(
        train_files, val_files, cache=args.cache, on_bad=args.on_bad_image, reading=parsed.reading(args)
    )
    note_skipped(workplace.folder / "skipped.txt", train_images, val_images)
    checks.batches(args.batch_size, args.accum_iter, len(train_images))  # some may have been skipped
    lesion_masks = find_masks(val_images, args.lesion_masks)
    masked_epochs = range(args.epochs - args.unmasked_epochs if args.masking != "none" else 0)
    sam_epochs = masked_epochs if args.masking == "attention" else range(0)
    seen = SeenFiles.of(train_images, val_images)
    maps = TrainingMaps(
        len(train_images), model.grid_size, args.map, sam_epochs, args.loc_interval, files=seen.hashes["train"]
    )
    augment = Augment(
        args.input_size, args.patch_size, args.crop_scale, args.color_jitter, args.aa, args.flip, mean=model.variant.mean
    )
    dataset = TrainingImages(train_images, augment, maps.grids, args.seed)
    balance = Balance(args.balance, train_images.labels, classes, workplace.device)
    workers = loader_workers(args.num_workers, workplace.device, decoded=train_images.decoded is not None)
    loader = training_loader(dataset, args.batch_size, workers, args.pin_mem and workplace.on_gpu, chances=balance.chances)
    inference = Inference(args.input_size, args.batch_size, workplace.precision)
    sam = SAM(args.mask_ratio, args.throw_ratio, args.map_temperature)
    decision_title = "SAM's decision" if args.masking == "attention" else "what SAM would hide"
    hides = sam if args.masking != "none" else None
    preview = Preview(val_images, inference, args.map, hides, decision_title, args.model, args.figure_width)
    mixup, erasing = mixing_of(args, len(classes)), erasing_of(args, workplace.device)

    # optimisation
    lr = args.blr * effective_batch / 256 if args.lr is None else args.lr
    checks.note_lowest_rate(args.min_lr, lr)
    schedule = Schedule(lr, args.epochs, args.warmup_epochs, args.min_lr)
    groups = parameter_groups(model, args.weight_decay, args.layer_decay, never_decay=("cls_token", "pos_embed"))
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), fused=True)
    stepper = Stepper(model, optimizer, schedule, workplace.precision, args.accum_iter, args.clip_grad, average)
    if average:
        say(averaging_note(args.ema, args.epochs * len(loader) // args.accum_iter))
    judged = average.module if average else model  # what is evaluated, shown and saved as the model

    options = parsed.plain(args) | train_images.reading.recorded
    about = About("finetune", options, classes, departures, source)
    training = Training(workplace, about, parsed.plan(args), stepper, loader, (seen, maps), resumed)
    say(parsed.describe_model(args.model, model, len(train_images), len(val_images), classes, lr, effective_batch))
    with training.saving_when_stopped():
        for epoch in training.epochs():
            if maps.due(epoch.number):
                maps.refresh(epoch.number, first_maps_model or model, train_images, inference)
                first_maps_model = None
            masking = args.masking if epoch.number in masked_epochs else "none"
            values = engine.train_one_epoch(
                training.model,
                epoch,
                sam,
                masking=masking,
                smoothing=args.smoothing,
                balance=balance.loss_weights,
                mixup=mixup,
                erasing=erasing,
            )
            values |= balance.summary(loader)
            if epoch.number in sam_epochs:
                values |= maps.summary()
            results, probabilities = engine.evaluate(judged, val_images, inference)
            values |= {f"val_{name}": results[name] for name in LOGGED}
            is_best = training.note_score(epoch, "val_top1", values["val_top1"])
            preview_due = (epoch.number + 1) % (args.preview_every or args.loc_interval) == 0
            if preview_due or training.ends_after(epoch.number):
                values |= localise(
                    judged, val_images, lesion_masks, inference, args.map, sam if args.masking == "attention" else None
                )
                training.show("sheet", preview.draw(judged, epoch.number, probabilities), epoch, args.figure_format)
            training.end_epoch(epoch, values, is_best)
        if training.finished_now:
            top1, best = values["val_top1"], training.best
            say(f"last epoch {epoch.number}: top-1 {100 * top1:.2f} % (checkpoint-last.pth)")
            chosen = f"top-1 {100 * best['val_top1']:.2f} %, chosen on val/ itself"
            say(f"best epoch {best['epoch']}: {chosen} ({training.best_checkpoint_in_words})")
    training.close()


if __name__ == "__main__":
    run_script(main)
