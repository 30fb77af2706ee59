#!/usr/bin/env python
"""Pre-train MSMAE on a folder of labelled images: masked patches are reconstructed, the class token is supervised, and
after some epochs its attention map chooses the patches to mask."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while libraries load ends without a traceback

from util.options.pretraining import get_args, protocol_of, recorded_options
from util.system.errors import run_script

if __name__ == "__main__":  # --help and wrong options are answered before the imports below, which take seconds
    run_script(get_args)

import argparse

import torch

import engine_pretrain as engine
from models_msmae import create_autoencoder
from util.data.augment import Augment
from util.data.images import note_skipped
from util.data.inference import Inference
from util.data.loading import TrainingImages, check_workers, loader_workers, training_loader
from util.data.opening import open_for_training, open_images
from util.data.seen_files import SeenFiles
from util.evaluation.preview import Preview
from util.maps.localisation import find_masks, localise
from util.maps.training_maps import TrainingMaps
from util.masking import SAM
from util.options import checks, parsed, protocol
from util.system.console import say
from util.system.seeds import seed_everything
from util.system.workplace import named_folder, open_workplace
from util.training.balance import Balance
from util.training.optimisation import Schedule, Stepper, compile_model, parameter_groups
from util.training.resuming import find_resumed, folder_of
from util.training.run import About, Training
from util.training.run_folder import training_folder
from util.variant import MAE
from util.weights.into_model import load_encoder
from util.weights.sources import load_weights


def preview_due(args: argparse.Namespace, epoch: int) -> bool:
    """Whether there is a preview after an epoch: by default before maps are made anew, and at the end."""
    done = epoch + 1
    if args.preview_every:
        due = done % args.preview_every == 0
    else:
        due = done >= args.loc_interval and (done - args.sam_epoch) % args.loc_interval == 0
    return due or done == args.epochs


def main() -> None:
    args = get_args()
    resumed = find_resumed(args.resume, "pretrain", folder_of(args, "pretrain"))
    initial = load_weights(args.init) if args.init and not resumed else None
    args = get_args(recorded=recorded_options(resumed, initial))

    # what can be wrong is found before any image is read
    least_classes = 2 if args.class_weight else 1
    train_files, val_files = open_for_training(
        args.data_path, args.num_classes, args.patients, args.on_patient_leak, args.on_leak, least_classes
    )
    classes = train_files.classes
    effective_batch = checks.batches(args.batch_size, args.accum_iter, len(train_files))
    default_folder = named_folder("pretrain", args.data_path)
    folder = training_folder(args.output_dir, default_folder, args.resume, overwrite=args.overwrite)
    check_workers(args.num_workers)
    workplace = open_workplace(folder, args.device, args.amp, args.log_dir)
    departures = protocol.departures(args, protocol_of(args))
    say(protocol.describe(args.protocol, departures))
    checks.note_warmup(args.warmup_epochs, args.epochs)

    # model
    seed_everything(args.seed, "weights")
    started_from = resumed or initial
    model = create_autoencoder(
        args.model,
        args.patch_size,
        img_size=args.input_size,
        num_classes=len(classes),
        norm_pix_loss=args.norm_pix_loss,
        variant=started_from.variant if started_from else MAE,
    )
    if initial:
        say(load_encoder(model, initial, new_head=True))
    model.to(workplace.device)
    if args.compile:
        compile_model(model)

    # images, the maps of the training images, and how both are used
    train_images, val_images = open_images(
        train_files, val_files, cache=args.cache, on_bad=args.on_bad_image, reading=parsed.reading(args)
    )
    note_skipped(workplace.folder / "skipped.txt", train_images, val_images)
    checks.batches(args.batch_size, args.accum_iter, len(train_images))  # some may have been skipped
    lesion_masks = find_masks(val_images, args.lesion_masks)
    sam_epochs = range(args.sam_epoch if args.masking == "attention" else args.epochs, args.epochs)
    if args.masking == "attention" and not sam_epochs:
        say(f"note: SAM never starts, --sam_epoch {args.sam_epoch} is not below --epochs {args.epochs}")
    seen = SeenFiles.of(train_images, val_images)
    maps = TrainingMaps(
        len(train_images), model.grid_size, args.map, sam_epochs, args.loc_interval, files=seen.hashes["train"]
    )
    augment = Augment(args.input_size, args.patch_size, args.crop_scale, flip=args.flip)
    dataset = TrainingImages(train_images, augment, maps.grids, args.seed)
    balance = Balance(args.balance, train_images.labels, classes, workplace.device)
    workers = loader_workers(args.num_workers, workplace.device, decoded=train_images.decoded is not None)
    loader = training_loader(dataset, args.batch_size, workers, args.pin_mem and workplace.on_gpu, chances=balance.chances)
    inference = Inference(args.input_size, args.batch_size, workplace.precision)
    sam = SAM(args.mask_ratio, args.throw_ratio, args.map_temperature)
    random_masking = SAM(args.random_mask_ratio, throw_ratio=0.0)  # with equal weights: MAE's masking
    decision_title = "SAM's decision" if args.masking == "attention" else "what SAM would hide"
    preview = Preview(val_images, inference, args.map, sam, decision_title, args.model, args.figure_width)

    # optimisation
    lr = args.blr * effective_batch / 256 if args.lr is None else args.lr
    checks.note_lowest_rate(args.min_lr, lr)
    schedule = Schedule(lr, args.epochs, args.warmup_epochs, args.min_lr)
    groups = parameter_groups(model, args.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)
    stepper = Stepper(model, optimizer, schedule, workplace.precision, args.accum_iter, args.clip_grad)

    options = parsed.plain(args) | train_images.reading.recorded
    about = About("pretrain", options, classes, departures, initial)
    training = Training(workplace, about, parsed.plan(args), stepper, loader, (seen, maps), resumed)
    say(parsed.describe_model(args.model, model, len(train_images), len(val_images), classes, lr, effective_batch))
    with training.saving_when_stopped():
        for epoch in training.epochs():
            if maps.due(epoch.number):
                maps.refresh(epoch.number, model, train_images, inference)
            by_map = epoch.number in sam_epochs
            values = engine.train_one_epoch(
                training.model,
                epoch,
                sam if by_map else random_masking,
                random_share=args.random_share if by_map else 1.0,
                class_weight=args.class_weight,
                balance=balance.loss_weights,
            )
            values |= balance.summary(loader)
            if by_map:
                values |= maps.summary()
            if preview_due(args, epoch.number):
                probabilities = inference.probabilities(model, val_images)
                values["val_top1"] = (probabilities.argmax(1) == val_images.labels).float().mean().item()
                values |= localise(
                    model, val_images, lesion_masks, inference, args.map, sam if args.masking == "attention" else None
                )
                training.show("sheet", preview.draw(model, epoch.number, probabilities), epoch, args.figure_format)
            training.end_epoch(epoch, values)
    training.close()


if __name__ == "__main__":
    run_script(main)
