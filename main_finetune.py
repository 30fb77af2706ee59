#!/usr/bin/env python
"""Fine-tune a pre-trained encoder to classify images, on the patches that its attention map leaves visible; or evaluate it
with --eval."""

from util.options.finetuning import get_args, goes_on, protocol_of, recorded_options
from util.system.errors import InputError, run_script

if __name__ == "__main__":  # --help and wrong options are answered before the imports below, which take seconds
    run_script(get_args)

import argparse
import json
from pathlib import Path

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import nn

import engine_finetune as engine
from models_vit import VisionTransformer, create_encoder
from util.data.augment import Augment
from util.data.copies import open_for_evaluation, open_for_training
from util.data.folders import has_split
from util.data.images import Images, note_skipped
from util.data.inference import Inference
from util.data.loading import TrainingImages, training_loader
from util.evaluation.pictures import draw_pictures
from util.evaluation.predictions import Predictions, write_predictions
from util.evaluation.preview import Preview
from util.evaluation.results import complete, in_words
from util.maps import sources
from util.maps.localisation import find_masks, localise
from util.maps.training_maps import TrainingMaps
from util.masking import SAM
from util.options import checks, parsed, protocol
from util.system import distributed
from util.system.console import say
from util.system.seeds import seed_everything
from util.system.workplace import (
    check_evaluation_folder,
    check_workers,
    describe,
    named_folder,
    open_workplace,
    training_folder,
)
from util.training.checkpoint import Checkpoint
from util.training.optimisation import Schedule, Stepper, compile_model, parameter_groups
from util.training.resuming import find_resumed, folder_of
from util.training.run import About, Training
from util.weights.into_model import load_encoder
from util.weights.sources import load_weights
from util.weights.variant import MAE, Variant

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


def model_of_first_maps(args: argparse.Namespace, source: Checkpoint | None, num_classes: int) -> VisionTransformer | None:
    """The model that makes the maps before epoch 0 where they need a trained head, which the new one is not yet.

    Returns:
        The pre-trained encoder with its own head and pooling; None where the map needs no head.
    """
    if args.masking != "attention" or not sources.reads_head(args.map):
        return None
    remedy = "use --map consensus, last or blockN"
    if not source:
        raise InputError(f"--map {args.map} needs --finetune, a checkpoint with a trained head; {remedy}")
    if source.outputs != num_classes or not source.options.get("class_weight", 1):
        raise InputError(f"--map {args.map}: {args.finetune} has no head trained on these classes; {remedy}")
    model = build_model(args, num_classes, drop_path=0.0, pool=source.pooling, variant=source.variant)
    load_encoder(model, source, new_head=False)
    return model


def evaluate_only(args: argparse.Namespace, source: Checkpoint) -> None:
    """``--eval``: metrics of a checkpoint, printed and written to ``metrics.json`` and ``predictions.csv``, and pictures."""
    if args.protocol != source.options.get("protocol", args.protocol):
        raise InputError(f"--protocol {args.protocol}: {args.resume} was trained by another; leave the option out")
    split = args.split or ("test" if has_split(args.data_path, "test") else "val")
    training_paths, files = open_for_evaluation(
        *(args.data_path, split, args.num_classes, source.classes),
        *(args.patients, args.on_patient_leak, args.on_leak),
    )
    classes = files.classes
    if source.outputs != len(classes):
        raise InputError(f"{args.resume} tells {source.outputs} classes apart, {args.data_path} has {len(classes)}")
    folder = Path(args.output_dir or named_folder("eval", args.data_path))
    check_evaluation_folder(folder, args.resume, split, args.overwrite)
    workplace = open_workplace(folder, args.device, args.amp)
    say(f"protocol of the checkpoint: {source.options.get('protocol', 'unknown')}")
    model = build_model(args, len(classes), drop_path=0.0, pool=args.pool, variant=source.variant)
    say(load_encoder(model, source, new_head=False))
    missing = model.state_dict().keys() - source.parameters.keys()
    if missing:
        raise InputError(f"{args.resume} lacks {min(missing)}: leave --cls_token and --global_pool out, or fine-tune first")
    describe(workplace, "eval", parsed.plain(args))
    images = Images(files, args.cache, args.on_bad_image)
    note_skipped(workplace.folder, images)
    lesion_masks = find_masks(images, args.lesion_masks)

    model.to(workplace.device)
    inference = Inference(args.input_size, args.batch_size, workplace.precision)
    sam = SAM(args.mask_ratio, args.throw_ratio, args.map_temperature) if args.masking == "attention" else None
    metrics, probabilities, features = engine.evaluate(model, images, inference, args.ordered)
    metrics |= localise(model, images, lesion_masks, inference, args.map, sam)
    results = {"checkpoint": args.resume, "split": split} | complete(
        metrics,
        images,
        probabilities.numpy(),
        training_paths=training_paths,
        chose_epoch=split == "val" and source.is_best,
        ordered=args.ordered,
    )
    if distributed.is_main():
        found = Predictions(images.paths, probabilities.numpy(), classes, images.labels.numpy(), images.patients)
        write_predictions(workplace.folder / "predictions.csv", found)
        (workplace.folder / "metrics.json").write_text(json.dumps(results, indent=2) + "\n")
    say(f"evaluated: {split}")
    say(in_words(results))
    drawn = draw_pictures(
        *(workplace.folder, model, images, inference, args.map, results, probabilities, features),
        width=args.figure_width,
        formats=args.figure_format,
    )
    say(f"written in {workplace.folder}: metrics.json, predictions.csv; {', '.join(drawn)}")
    distributed.stop()


def find_source(args: argparse.Namespace) -> Checkpoint | None:
    """The checkpoint to go on from, or to begin from; None: random weights."""
    resumed = find_resumed(args.resume, "finetune", folder_of(args, "finetune"))
    return resumed or (load_weights(args.finetune) if args.finetune else None)


def main() -> None:
    args = get_args()
    if args.eval:
        evaluated = load_weights(args.resume)
        return evaluate_only(get_args(recorded=recorded_options(args, evaluated)), evaluated)
    source = find_source(args)
    args = get_args(recorded=recorded_options(args, source))
    resumed = source if source and goes_on(args, source) else None

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

    # model
    seed_everything(args.seed, "weights")
    model = build_model(args, len(classes), args.drop_path, args.pool, source.variant if source else MAE)
    if not source:
        say("note: no --finetune, the encoder starts from random weights")
    elif not resumed:
        say(load_encoder(model, source, new_head=True))
    nn.init.normal_(model.head.weight, std=2e-5)
    first_maps_model = None if resumed else model_of_first_maps(args, source, len(classes))
    model.to(workplace.device)
    if args.compile:
        compile_model(model)

    # images, the maps of the training images, and how both are used
    train_images, val_images = (Images(each, args.cache, args.on_bad_image) for each in (train_files, val_files))
    note_skipped(workplace.folder, train_images, val_images)
    lesion_masks = find_masks(val_images, args.lesion_masks)
    masked_epochs = range(args.epochs - args.unmasked_epochs if args.masking != "none" else 0)
    sam_epochs = masked_epochs if args.masking == "attention" else range(0)
    maps = TrainingMaps(len(train_images), model.grid_size, args.map, sam_epochs, args.loc_interval)
    augment = Augment(args.input_size, args.patch_size, args.crop_scale, args.color_jitter, args.aa, model.variant.mean)
    dataset = TrainingImages(train_images, augment, maps.grids, args.seed)
    loader = training_loader(dataset, args.batch_size, args.num_workers, args.pin_mem and workplace.on_gpu)
    inference = Inference(args.input_size, args.batch_size, workplace.precision)
    sam = SAM(args.mask_ratio, args.throw_ratio, args.map_temperature)
    decision_title = "SAM's decision" if args.masking == "attention" else "what SAM would hide"
    hides = sam if args.masking != "none" else None
    preview = Preview(val_images, inference, args.map, hides, decision_title, args.model, args.figure_width)
    mixup, erasing = None, None
    if args.mixup or args.cutmix or args.cutmix_minmax:
        mixing = (args.mixup, args.cutmix, args.cutmix_minmax, args.mixup_prob, args.mixup_switch_prob, args.mixup_mode)
        mixup = Mixup(*mixing, label_smoothing=args.smoothing, num_classes=len(classes))
    if args.reprob:
        erasing = RandomErasing(args.reprob, mode=args.remode, max_count=args.recount, device=workplace.device)

    # optimisation
    lr = args.blr * effective_batch / 256 if args.lr is None else args.lr
    schedule = Schedule(lr, args.epochs, args.warmup_epochs, args.min_lr)
    groups = parameter_groups(model, args.weight_decay, args.layer_decay, never_decay=("cls_token", "pos_embed"))
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), fused=True)
    stepper = Stepper(model, optimizer, schedule, workplace.precision, args.accum_iter, args.clip_grad)

    training = Training(
        *(workplace, About("finetune", parsed.plain(args), classes, departures), stepper, loader, (maps,)),
        **parsed.of_training(args),
        resumed=resumed,
    )
    say(parsed.describe_model(args.model, model, len(train_images), len(val_images), classes, lr, effective_batch))
    with training.saving_when_stopped():
        for epoch in training.epochs():
            if maps.due(epoch.number):
                maps.refresh(epoch.number, first_maps_model or model, train_images, inference)
                first_maps_model = None
            masking = args.masking if epoch.number in masked_epochs else "none"
            values = engine.train_one_epoch(
                training.model, epoch, sam, masking=masking, smoothing=args.smoothing, mixup=mixup, erasing=erasing
            )
            if epoch.number in sam_epochs:
                values |= maps.summary()
            results, probabilities, _ = engine.evaluate(model, val_images, inference)
            values |= {f"val_{name}": results[name] for name in LOGGED}
            done = epoch.number + 1
            if done % (args.preview_every or args.loc_interval) == 0 or done == args.epochs:
                values |= localise(
                    model, val_images, lesion_masks, inference, args.map, sam if args.masking == "attention" else None
                )
                training.show("sheet", preview.draw(model, epoch.number, probabilities), epoch, args.figure_format)
            training.end_epoch(epoch, values, training.is_best(epoch, "val_top1", values["val_top1"]))
        if training.finished_now:
            top1, best = values["val_top1"], training.best
            say(f"last epoch {args.epochs - 1}: top-1 {100 * top1:.2f} % (checkpoint-last.pth)")
            chosen = f"top-1 {100 * best['val_top1']:.2f} %, chosen on val/ itself"
            say(f"best epoch {best['epoch']}: {chosen} (checkpoint-best.pth)")
    training.close()


if __name__ == "__main__":
    run_script(main)
