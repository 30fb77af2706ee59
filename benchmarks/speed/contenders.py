"""What is measured: training steps of this project's models and of others', each as a function without arguments."""

from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from torch import nn

from models_msmae import create_autoencoder
from models_vit import create_encoder
from util.masking import SAM
from util.system.device import Precision
from util.system.errors import InputError
from util.training.optimisation import Schedule, Stepper, parameter_groups

CLASSES = 4
PAPERS_SAM, RANDOM = SAM(0.45, 0.3), SAM(0.75, 0.0)


def stepper_for(model: nn.Module, precision: Precision) -> Stepper:
    """The project's own optimiser step."""
    groups = parameter_groups(model, weight_decay=0.05) if hasattr(model, "blocks") else list(model.parameters())
    optimizer = torch.optim.AdamW(groups, lr=1e-5, betas=(0.9, 0.95), fused=True)
    return Stepper(model, optimizer, Schedule(1e-5, 1, 0), precision)


def random_batch(model_input: int, patches: int, batch_size: int, device: torch.device) -> dict:
    """Images, labels, patch weights and noise as a loader gives them, normalised and on the device."""
    return {
        "image": torch.randn(batch_size, 3, model_input, model_input, device=device),
        "label": torch.randint(0, CLASSES, (batch_size,), device=device),
        "weights": torch.rand(batch_size, patches, device=device),
        "noise": torch.rand(batch_size, patches, device=device, dtype=torch.float64),
    }


def equip(model: nn.Module, input_size: int, batch_size: int, device: torch.device, amp: str, compiled: bool) -> tuple:
    """A model on its device, ready to train, with what its steps need: precision, stepper and a batch."""
    model = model.to(device).train()
    if compiled:
        model.compile()
    precision = Precision(device, amp)
    batch = random_batch(input_size, model.patch_embed.num_patches, batch_size, device)
    return model, precision, stepper_for(model, precision), batch


def plain_attention(model: nn.Module) -> None:
    """Make a model compute its softmax attention step by step, whatever kernel it would choose."""
    for module in model.modules():
        if hasattr(module, "record"):
            module.record = True


def pretraining(
    name: str,
    input_size: int,
    batch_size: int,
    device: torch.device,
    amp: str,
    masking: str = "sam",
    plain: bool = False,
    compiled: bool = False,
) -> Callable[[], object]:
    """A pre-training step of ours: forward, backward, optimiser; ``masking`` "sam" or "random" (75 %, none thrown)."""
    model = create_autoencoder(f"msmae_{name}", img_size=input_size, num_classes=CLASSES)
    if plain:
        plain_attention(model)
    model, precision, stepper, batch = equip(model, input_size, batch_size, device, amp, compiled)

    def step():
        if masking == "sam":
            split = PAPERS_SAM.split(batch["weights"], batch["noise"])
        else:
            split = RANDOM.split_at_random(batch["noise"])
        with precision():
            output = model(batch["image"], split, batch["label"])
        stepper.backward(output.reconstruction + 0.1 * output.classification, last_of_window=True)

    return step


def huggingface_pretraining(input_size: int, batch_size: int, device: torch.device, amp: str) -> Callable[[], object]:
    """A pre-training step of Hugging Face's ViTMAE (base, 75 % masked), under the same precision and optimiser."""
    try:
        from transformers import ViTMAEConfig, ViTMAEForPreTraining
    except ImportError:
        raise InputError("transformers is not installed: pip install -r benchmarks/requirements.txt") from None

    model = ViTMAEForPreTraining(ViTMAEConfig(image_size=input_size)).to(device).train()
    precision = Precision(device, amp)
    stepper = stepper_for(model, precision)
    images = random_batch(input_size, 1, batch_size, device)["image"]

    def step():
        with precision():
            loss = model(pixel_values=images).loss
        stepper.backward(loss, last_of_window=True)

    return step


def forward(name: str, input_size: int, batch_size: int, device: torch.device, amp: str, kind: str) -> Callable[[], object]:
    """A forward pass without gradient: ``kind`` as ``masking`` in :func:`finetuning`."""
    if kind in ("sam", "none"):
        model = create_encoder(name, img_size=input_size, num_classes=CLASSES, global_pool="avg").to(device).eval()
    else:
        model = timm.create_model(kind, img_size=input_size, num_classes=CLASSES).to(device).eval()
    precision = Precision(device, amp)
    batch = random_batch(input_size, model.patch_embed.num_patches, batch_size, device)
    arguments = [batch["image"]]
    if kind == "sam":
        arguments.append(PAPERS_SAM.split(batch["weights"], batch["noise"]).visible)

    @torch.no_grad()
    def call():
        with precision():
            return model(*arguments)

    return call


def finetuning(
    name: str, input_size: int, batch_size: int, device: torch.device, amp: str, masking: str, compiled: bool = False
) -> Callable[[], object]:
    """A fine-tuning step: ``masking`` "sam" (visible patches only), "none" (all patches) or the name of a timm model."""
    if masking not in ("sam", "none"):
        model = timm.create_model(masking, img_size=input_size, num_classes=CLASSES, drop_path_rate=0.1)
    else:
        model = create_encoder(name, img_size=input_size, num_classes=CLASSES, global_pool="avg", drop_path_rate=0.1)
    model, precision, stepper, batch = equip(model, input_size, batch_size, device, amp, compiled)

    def step():
        arguments = [batch["image"]]
        if masking == "sam":
            arguments.append(PAPERS_SAM.split(batch["weights"], batch["noise"]).visible)
        with precision():
            logits = model(*arguments)
        loss = F.cross_entropy(logits.float(), batch["label"], label_smoothing=0.1)
        stepper.backward(loss, last_of_window=True)

    return step
