"""How many floating-point operations the models execute, counted by PyTorch on shapes alone (nothing is computed)."""

from collections.abc import Callable
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models_msmae import create_autoencoder
from models_vit import create_encoder
from util.masking import Split, hidden_counts

ATTENTION = {torch.ops.aten.bmm, torch.ops.aten.baddbmm}  # batched products: attention has no others


def count(call: Callable[[], object]) -> dict[str, int]:
    """Operations (a multiply-add is two) of the linear layers and of the attention products in a call on meta tensors."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    by_operator = counter.get_flop_counts().get("Global", {})
    attention = sum(flops for operator, flops in by_operator.items() if operator in ATTENTION)
    return {"linear": sum(by_operator.values()) - attention, "attention": attention}


def meta_split(patches: int, mask_ratio: float, throw_ratio: float) -> Split:
    """A split of one image's patches; which ones does not matter here."""
    masked, hidden = hidden_counts(patches, mask_ratio, throw_ratio)
    sizes = (patches - hidden, masked, hidden - masked)
    return Split(*(torch.empty(1, size, dtype=torch.int64, device="meta") for size in sizes))


def encoder_flops(name: str, input_size: int = 224, mask_ratio: float = 0.0, throw_ratio: float = 0.0) -> dict[str, int]:
    """Operations of one image's forward pass through encoder and head, on SAM's visible patches only.

    Returns:
        ``executed``: all matrix products, attention included, only visible patches embedded. ``paper``: as the paper
        counts, the whole image embedded and the attention products left out.
    """
    with torch.device("meta"):
        model = create_encoder(name, img_size=input_size, num_classes=4).eval()
        image = torch.empty(1, 3, input_size, input_size)
    patches = model.patch_embed.num_patches
    visible = meta_split(patches, mask_ratio, throw_ratio).visible if mask_ratio + throw_ratio else None
    run = count(lambda: model(image, visible))
    embedded, whole = (count(partial(model.embed, image, seen))["linear"] for seen in (visible, None))
    return {"executed": run["linear"] + run["attention"], "paper": run["linear"] - embedded + whole}


def pretraining_step_flops(
    name: str,
    input_size: int = 224,
    mask_ratio: float = 0.45,
    throw_ratio: float = 0.3,
) -> int:
    """Operations of one image in a pre-training step, forward and backward, attention included."""
    with torch.device("meta"):
        model = create_autoencoder(f"msmae_{name}", img_size=input_size, num_classes=4)
        image, label = torch.empty(1, 3, input_size, input_size), torch.empty(1, dtype=torch.int64)

    def step():
        output = model(image, meta_split(model.patch_embed.num_patches, mask_ratio, throw_ratio), label)
        (output.reconstruction + output.classification).backward()

    return sum(count(step).values())


def finetuning_step_flops(
    name: str,
    input_size: int = 224,
    mask_ratio: float = 0.0,
    throw_ratio: float = 0.0,
) -> int:
    """Operations of one image in a fine-tuning step, forward and backward, attention included."""
    with torch.device("meta"):
        model = create_encoder(name, img_size=input_size, num_classes=4, global_pool="avg")
        image = torch.empty(1, 3, input_size, input_size)
    patches = model.patch_embed.num_patches
    visible = meta_split(patches, mask_ratio, throw_ratio).visible if mask_ratio + throw_ratio else None
    return sum(count(lambda: model(image, visible).sum().backward()).values())
