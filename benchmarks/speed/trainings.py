"""Whole trainings from JPEG files, of this project and of other libraries, each as a user of it would start it.

Started as a module with a contender's name and its setting as JSON, this process becomes that training, and says when some
of its optimiser steps have ended. PyTorch is not imported before the training does, or before our scripts have set how its
threads wait. :mod:`benchmarks.speed.field` starts and ends these processes.
"""

import itertools
import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Setting(NamedTuple):
    """What all contenders share."""

    data: str  # folder with train/CLASS/* and val/CLASS/*
    output: str  # an empty folder
    model: str  # of util.sizes.ENCODERS
    input_size: int
    batch_size: int
    device: str
    amp: str  # bf16, fp16 or fp32
    num_workers: int
    marks: tuple[int, ...]  # optimiser steps, counted from 1, whose end is told


def ours(script: str, masking: str) -> Callable[[Setting], None]:
    """One of the entry scripts, as it stands."""

    def train(setting: Setting) -> None:
        prefix = "msmae_" if "pretrain" in script else ""
        command = (
            f"{script} --model {prefix}{setting.model} --input_size {setting.input_size} --batch_size {setting.batch_size} "
            f"--num_workers {setting.num_workers} --device {setting.device} --amp {setting.amp} --epochs 2 --warmup_epochs 1"
        )
        sys.argv = [*command.split(), *masking.split(), "--data_path", setting.data, "--output_dir", setting.output]
        runpy.run_path(str(ROOT / script), run_name="__main__")

    return train


def train_for_an_epoch(setting: Setting, model, loader, loss_of: Callable, betas: tuple[float, float]) -> None:
    """The shortest training loop that takes the same number formats as the scripts."""
    import torch

    device = torch.device(setting.device)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=betas, weight_decay=0.05, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=setting.amp == "fp16")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(setting.amp)
    for images, labels in loader:
        images, labels = (each.to(device, non_blocking=True) for each in (images, labels))
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            loss = loss_of(model, images, labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def hugging_face(setting: Setting) -> None:
    """ViTMAE of transformers, with the encoder and decoder that ours has, 75 % masked, images by torchvision."""
    import torch
    from torchvision import datasets, transforms
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    from util.sizes import AUTOENCODERS

    crop = transforms.RandomResizedCrop(setting.input_size, (0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC)
    augment = [crop, transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    images = datasets.ImageFolder(f"{setting.data}/train", transforms.Compose(augment))
    loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
        images,
        setting.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=setting.num_workers,
        pin_memory="cuda" in setting.device,
    )
    sizes = AUTOENCODERS[f"msmae_{setting.model}"]
    decoder_width = sizes.get("decoder_embed_dim", 512)
    model = ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=setting.input_size,
            patch_size=sizes["patch_size"],
            hidden_size=sizes["embed_dim"],
            num_hidden_layers=sizes["depth"],
            num_attention_heads=sizes["num_heads"],
            intermediate_size=4 * sizes["embed_dim"],
            decoder_hidden_size=decoder_width,
            decoder_num_hidden_layers=sizes.get("decoder_depth", 8),
            decoder_num_attention_heads=sizes.get("decoder_num_heads", 16),
            decoder_intermediate_size=4 * decoder_width,
        )
    )
    train_for_an_epoch(setting, model, loader, lambda model, images, _: model(pixel_values=images).loss, (0.9, 0.95))


def timm_vit(setting: Setting) -> None:
    """timm's own ViT of the same size on all patches, images by timm's loader."""
    import timm
    import torch
    from timm import data

    from util.sizes import ENCODERS

    loader = data.create_loader(
        data.create_dataset("", root=setting.data, split="train"),
        setting.input_size,
        setting.batch_size,
        is_training=True,
        use_prefetcher=False,
        scale=(0.2, 1.0),
        color_jitter=None,
        interpolation="bicubic",
        mean=MEAN,
        std=STD,
        num_workers=setting.num_workers,
        pin_memory="cuda" in setting.device,
    )
    classes = len(loader.dataset.reader.class_to_idx)
    sizes = {**ENCODERS[setting.model], "img_size": setting.input_size}
    model = timm.create_model("vit_base_patch16_224", num_classes=classes, drop_path_rate=0.1, **sizes)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    train_for_an_epoch(setting, model, loader, lambda model, images, labels: loss(model(images), labels), (0.9, 0.999))


def lightly(setting: Setting) -> None:
    """LightlyTrain's image classification with timm's ViT of the same size, from random weights, on all patches.

    Its own defaults, but for what the others have too: crop and flip alone, label smoothing and drop path of 0.1, each
    batch a step.
    """
    os.environ["LIGHTLY_TRAIN_EVENTS_DISABLED"] = "1"  # it would report each run to its makers
    import lightly_train

    from util.sizes import ENCODERS

    kind, _, index = setting.device.partition(":")
    classes = sorted(folder.name for folder in Path(setting.data, "train").iterdir())
    lightly_train.train_image_classification(
        out=setting.output,
        overwrite=True,
        data={
            "train": f"{setting.data}/train",
            "val": f"{setting.data}/val",
            "classes": dict(enumerate(classes)),
        },
        model="timm/vit_base_patch16_224",
        batch_size=setting.batch_size,
        num_workers=setting.num_workers,
        accelerator=kind,
        devices=[int(index or 0)] if kind == "cuda" else 1,
        precision={"bf16": "bf16-mixed", "fp16": "16-mixed"}.get(setting.amp, "32-true"),
        gradient_accumulation_steps=1,
        model_args={
            "label_smoothing": 0.1,
            "backbone_args": {**ENCODERS[setting.model], "img_size": setting.input_size, "drop_path_rate": 0.1},
        },
        transform_args={"image_size": (setting.input_size, setting.input_size), "color_jitter": None},
    )


class Contender(NamedTuple):
    train: Callable[[Setting], None]
    needs: str  # the package it measures, as pip names it; "" for ours
    requirements: str = "benchmarks/requirements.txt"  # the file that names it


CONTENDERS = {
    "pre-training": {
        "ours, SAM 0.45 / 0.3": Contender(ours("main_pretrain.py", "--sam_epoch 0"), ""),
        "ours, random 75 %": Contender(ours("main_pretrain.py", "--masking random"), ""),
        "Hugging Face ViTMAE, 75 %": Contender(hugging_face, "transformers"),
    },
    "fine-tuning": {
        "ours, SAM 0.45 / 0.3": Contender(ours("main_finetune.py", "--masking attention"), ""),
        "ours, all patches": Contender(ours("main_finetune.py", "--masking none"), ""),
        "timm, all patches": Contender(timm_vit, "timm"),
        "LightlyTrain, all patches": Contender(lightly, "lightly-train", "benchmarks/requirements-lightly.txt"),
    },
}


def tell_ends(marks: tuple[int, ...], device: str, channel) -> None:
    """After each optimiser step in ``marks``, write a line: the bytes that this process has taken at most."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from benchmarks.speed.measure import high_water, wait

    steps = itertools.count(1)

    def tell(*_) -> None:
        if next(steps) in marks:
            wait(torch.device(device))
            peak = torch.cuda.max_memory_allocated(device) if "cuda" in device else high_water()
            print(peak, file=channel, flush=True)

    register_optimizer_step_post_hook(tell)


def main() -> None:
    phase, name, setting_json, channel = sys.argv[1:]
    setting, contender = Setting(**json.loads(setting_json)), CONTENDERS[phase][name]
    if not contender.needs:
        import util.system.threads  # noqa: F401, as our scripts import it: before PyTorch
    with open(int(channel), "w") as lines:
        tell_ends(setting.marks, setting.device, lines)
        contender.train(setting)


if __name__ == "__main__":
    main()
