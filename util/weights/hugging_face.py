"""Hugging Face's ViT, ViTMAE and DINOv2: a folder with config.json and model.safetensors or pytorch_model.bin."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from util.system.errors import InputError
from util.training import checkpoint
from util.training.checkpoint import Checkpoint
from util.variant import Variant
from util.weights.files import WEIGHTS, folder_of, read_json, stated_reading, weights_of

ACTIVATIONS = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}

AROUND = {  # MAE's names of what stands before and after the blocks, and Hugging Face's
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
QKV = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))  # one matrix in MAE
IN_BLOCK = {
    "norm1": ("layernorm_before",),
    "attn.qkv": QKV,
    "attn.proj": ("attention.output.dense",),
    "norm2": ("layernorm_after",),
    "mlp.fc1": ("intermediate.dense",),
    "mlp.fc2": ("output.dense",),
}
IN_DINOV2_BLOCK = {
    **{"norm1": ("norm1",), "norm2": ("norm2",), "mlp.fc1": ("mlp.fc1",), "mlp.fc2": ("mlp.fc2",)},
    **{"attn.qkv": QKV, "attn.proj": ("attention.output.dense",)},
}
DECODER = {
    "decoder_embed.weight": "decoder.decoder_embed.weight",
    "decoder_embed.bias": "decoder.decoder_embed.bias",
    "mask_token": "decoder.mask_token",
    "decoder_pos_embed": "decoder.decoder_pos_embed",
    "decoder_norm.weight": "decoder.decoder_norm.weight",
    "decoder_norm.bias": "decoder.decoder_norm.bias",
    "decoder_pred.weight": "decoder.decoder_pred.weight",
    "decoder_pred.bias": "decoder.decoder_pred.bias",
}
DECODER_BLOCKS = (
    "decoder.decoder_layers",
    "decoder.decoder_encoder.layer",
)  # as published; as transformers 5.24 writes them


@dataclass(frozen=True)
class Family:
    """A kind of model, ``model_type`` in config.json.

    Args:
        prefix: of the encoder's names where a head or decoder stands beside it.
        in_block: names within a block, without ``weight`` and ``bias``.
        scales: names of LayerScale's two parameters in a block, where it has them.
        has_head: ``classifier`` is a linear layer on the class token after the last norm.
    """

    prefix: str
    in_block: dict[str, tuple[str, ...]]
    scales: tuple[str, ...] = ()
    has_head: bool = False


FAMILIES = {
    "vit": Family("vit.", IN_BLOCK, has_head=True),
    "vit_mae": Family("vit.", IN_BLOCK),
    "dinov2": Family("dinov2.", IN_DINOV2_BLOCK, ("layer_scale1.lambda1", "layer_scale2.lambda1")),
}


def names(
    family: Family, prefix: str, depth: int, decoder_depth: int = 0, decoder_blocks: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """MAE's name of each parameter, and Hugging Face's of those that it is made of, to be concatenated.

    Args:
        family: of the model.
        prefix: of the encoder's names.
        depth, decoder_depth: number of blocks.
        decoder_blocks: where the decoder's blocks are, one of :data:`DECODER_BLOCKS`.
    """
    for ours, theirs in AROUND.items():
        yield ours, [prefix + theirs]
    for number in range(depth):
        block = f"{prefix}encoder.layer.{number}"
        for ours, parts in family.in_block.items():
            for kind in ("weight", "bias"):
                yield f"blocks.{number}.{ours}.{kind}", [f"{block}.{part}.{kind}" for part in parts]
        for which, part in enumerate(family.scales, start=1):
            yield f"blocks.{number}.ls{which}.gamma", [f"{block}.{part}"]
    if family.has_head:
        for kind in ("weight", "bias"):
            yield f"head.{kind}", [f"classifier.{kind}"]
    if decoder_depth:
        for ours, theirs in DECODER.items():
            yield ours, [theirs]
    for number in range(decoder_depth):
        for ours, parts in family.in_block.items():
            for kind in ("weight", "bias"):
                yield (
                    f"decoder_blocks.{number}.{ours}.{kind}",
                    [f"{decoder_blocks}.{number}.{part}.{kind}" for part in parts],
                )


def by_mae_names(parameters: dict[str, Tensor], family: Family, depth: int, decoder_depth: int) -> dict[str, Tensor]:
    """Parameters by MAE's names; those that have none keep their own."""
    prefix = family.prefix if any(name.startswith(family.prefix) for name in parameters) else ""
    blocks = next((each for each in DECODER_BLOCKS if any(name.startswith(each) for name in parameters)), DECODER_BLOCKS[0])
    renamed, used = {}, set()
    for ours, parts in names(family, prefix, depth, decoder_depth, blocks):
        tensors = [parameters[part] for part in parts if part in parameters]
        if len(tensors) == len(parts) and len({value.shape for value in tensors}) == 1:
            renamed[ours] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
            used |= set(parts)
    return renamed | {name: value for name, value in parameters.items() if name not in used}


def takes(name: str) -> bool:
    """Whether it is a folder, or a file of weights beside a config.json of Hugging Face's, which names a model type."""
    path, config = Path(name), folder_of(name) / "config.json"
    beside = path.is_file() and path.name in WEIGHTS and config.is_file()
    return path.is_dir() or (beside and "model_type" in read_json(config))


def load(name: str, weights: bool = True) -> Checkpoint:
    """Read a folder of Hugging Face's (:func:`util.weights.sources.load_weights`)."""
    folder = folder_of(name)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{name} is a folder without config.json: give a checkpoint's file, or a folder of a Hugging Face or timm model"
        )
    config = read_json(folder / "config.json")
    family = family_of(config, name)
    file = weights_of(name)
    content = checkpoint.read(file, weights)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputError(f"{file} holds no parameters")
    try:
        depth, heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
        decoder_depth = int(config.get("decoder_num_hidden_layers") or 0)
        decoder_heads = int(config["decoder_num_attention_heads"]) if decoder_depth else 0
        variant = Variant(
            norm_eps=float(config["layer_norm_eps"]),
            layer_scale=bool(family.scales),
            act_layer=ACTIVATIONS[config.get("hidden_act", "gelu")],
            num_heads=heads,
            **normalisation(folder),
        )
        classes = named_classes(config) if family.has_head else None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / 'config.json'}: {type(error).__name__} at {error}, which is missing or unknown"
        ) from None
    made: dict[str, Any] = {"model": by_mae_names(content, family, depth, decoder_depth), "variant": variant.plain()}
    made["args"] = stated_reading(file)
    if decoder_depth:
        made["decoder_heads"] = decoder_heads
        made["args"]["norm_pix_loss"] = bool(config.get("norm_pix_loss"))
    if classes:
        made["classes"] = classes
    return checkpoint.checked(made, Path(name))


def family_of(config: dict, name: str) -> Family:
    """The family that a config.json names; raises :class:`InputError` for what is not built here."""
    kind = config.get("model_type")
    if kind == "dinov2_with_registers":
        raise InputError(f"{name} has register tokens, which are not supported")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"{name} is a {kind!r} of Hugging Face's; {', '.join(FAMILIES)} are supported")
    unusual = {
        "gated (SwiGLU) blocks": bool(config.get("use_swiglu_ffn")),
        "no bias of queries, keys and values": config.get("qkv_bias") is False,
        "another number of colours than three": config.get("num_channels", 3) != 3,
        f"the activation {config.get('hidden_act')!r}": str(config.get("hidden_act", "gelu")) not in ACTIVATIONS,
    }
    reason = next((words for words, there in unusual.items() if there), None)
    if reason:
        raise InputError(f"{name} has {reason}: such an encoder is not supported")
    return FAMILIES[kind]


def named_classes(config: dict) -> list[str]:
    """The classes' names in the order of the head's outputs; none where a config.json only numbers them."""
    labels = config.get("id2label") or {}
    in_order = [str(labels[key]) for key in sorted(labels, key=int)]
    return [] if all(label.startswith("LABEL_") for label in in_order) else in_order


def normalisation(folder: Path) -> dict[str, Any]:
    """Mean and deviation of preprocessor_config.json; nothing where there is none, or it does not say."""
    file = folder / "preprocessor_config.json"
    stated = read_json(file) if file.is_file() else {}
    if stated.get("do_normalize") is False:
        return {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    colours = {ours: stated[theirs] for ours, theirs in (("mean", "image_mean"), ("std", "image_std")) if theirs in stated}
    return {name: tuple(values) for name, values in colours.items() if values} if len(colours) == 2 else {}
