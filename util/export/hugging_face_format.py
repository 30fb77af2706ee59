"""Hugging Face: a folder for ViTForImageClassification, BeitForImageClassification or ViTMAEForPreTraining."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from util.export.exported import (
    WEIGHTS,
    Exported,
    Written,
    largest_difference,
    need,
    preprocessing,
    refuse_without_head,
)
from util.masking import Split
from util.system.errors import InputError
from util.system.text import write_json
from util.weights.hugging_face import DECODER_BLOCKS, FAMILIES, IN_BLOCK, Family, names

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu"}
# what pools the mean of the patches and normalises it after, and knows LayerScale; its key has no bias, which a softmax over
# the keys cancels anyway
BEIT = Family("beit.", IN_BLOCK, ("lambda_1", "lambda_2"), has_head=True)


def write(exported: Exported, folder: Path) -> Written:
    """Write a folder for transformers, and compare the outputs of its model.

    A pre-training model becomes ViTMAEForPreTraining. A classifier becomes ViTForImageClassification where it pools the
    class token. Mean pooling with a norm after it, and LayerScale, are what BeitForImageClassification computes without
    relative positions.

    Raises:
        InputError: for what no class of transformers expresses.
    """
    need("hf", "transformers")
    import transformers  # heavy, and needed here alone

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if exported.model.variant.pre_norm:
        raise InputError("--to hf: no classifier of Hugging Face's has a norm before the blocks; use --to timm or onnx")
    if exported.has_decoder:
        return write_autoencoder(exported, folder, transformers)
    refuse_without_head(exported, "hf")
    variant, token = exported.model.variant, exported.model.global_pool == "token"
    shape = {**shape_of(exported), "id2label": dict(enumerate(exported.classes))}
    shape["label2id"] = {name: number for number, name in enumerate(exported.classes)}
    config: Any
    if token and not variant.layer_scale:
        kind, family, config = "ViTForImageClassification", FAMILIES["vit"], transformers.ViTConfig(**shape, qkv_bias=True)
    else:
        kind, family = "BeitForImageClassification", BEIT
        config = transformers.BeitConfig(
            **shape,
            use_absolute_position_embeddings=True,
            use_mean_pooling=not token,
            layer_scale_init_value=1.0 if variant.layer_scale else 0.0,
            drop_path_rate=0.0,
        )
    tensors = renamed(exported.encoder(), names(family, family.prefix, len(exported.model.blocks)))
    if kind.startswith("Beit"):
        tensors = {name: value for name, value in tensors.items() if not name.endswith("key.bias")}
        for part in ("weight", "bias") if not token else ():
            tensors[f"beit.pooler.layernorm.{part}"] = exported.encoder()[f"fc_norm.{part}"]
    model = write_folder(exported, folder, transformers, kind, config, tensors)
    images = exported.examples()
    with torch.no_grad():
        difference = largest_difference(exported.model.classify(images), model(images).logits)
    notes = [] if kind.startswith("ViT") else ["BEiT's class holds it, without relative positions: it computes the same"]
    return Written("transformers", usage(kind), difference, notes)


def write_autoencoder(exported: Exported, folder: Path, transformers: Any) -> Written:
    """Write a pre-training model, and compare what it reconstructs."""
    model, options = exported.model, exported.origin.options
    if model.variant.layer_scale:
        raise InputError("--to hf: Hugging Face's ViTMAE has no LayerScale; use --to timm, which leaves the decoder out")
    block = model.decoder_blocks[0]
    config = transformers.ViTMAEConfig(
        **shape_of(exported),
        decoder_hidden_size=model.decoder_embed.out_features,
        decoder_num_hidden_layers=len(model.decoder_blocks),
        decoder_num_attention_heads=block.attn.num_heads,
        decoder_intermediate_size=block.mlp.fc1.out_features,
        mask_ratio=options.get("random_mask_ratio", 0.75),
        norm_pix_loss=model.norm_pix_loss,
    )
    family = FAMILIES["vit_mae"]
    named = names(family, family.prefix, len(model.blocks), len(model.decoder_blocks), DECODER_BLOCKS[0])
    tensors = renamed(model.state_dict(), named)
    theirs = write_folder(exported, folder, transformers, "ViTMAEForPreTraining", config, tensors)
    images = exported.examples()
    noise = torch.rand(len(images), model.patch_embed.num_patches, generator=torch.Generator().manual_seed(0))
    order, keep = noise.argsort(1), int(noise.shape[1] * (1 - config.mask_ratio))
    split = Split(visible=order[:, :keep], masked=order[:, keep:], thrown=order[:, :0])
    with torch.no_grad():
        ours = model.decode(model.forward_features(images, split.visible), split.visible, split.masked)
        whole = theirs(images, noise=noise).logits
    there = whole.gather(1, split.masked[..., None].expand(-1, -1, whole.shape[-1]))
    notes = ["the head is left out: ViTMAE has none"] if exported.origin.outputs else []
    return Written("transformers", usage("ViTMAEForPreTraining"), largest_difference(ours, there), notes)


def shape_of(exported: Exported) -> dict[str, Any]:
    """What all configurations state."""
    model = exported.model
    return {
        "hidden_size": model.embed_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": model.blocks[0].attn.num_heads,
        "intermediate_size": model.blocks[0].mlp.fc1.out_features,
        "hidden_act": ACTIVATIONS[model.variant.act_layer],
        "layer_norm_eps": model.variant.norm_eps,
        "image_size": exported.side,
        "patch_size": model.patch_size,
    }


def renamed(state: dict[str, Tensor], named) -> dict[str, Tensor]:
    """Parameters by Hugging Face's names; ``named`` are the pairs of :func:`util.weights.hugging_face.names`."""
    tensors: dict[str, Tensor] = {}
    for ours, parts in named:
        if ours in state:
            tensors |= dict(zip(parts, state[ours].chunk(len(parts)) if len(parts) > 1 else [state[ours]], strict=True))
    return {name: value.contiguous() for name, value in tensors.items()}


def write_folder(exported: Exported, folder: Path, transformers: Any, kind: str, config: Any, tensors: dict) -> Any:
    """Write weights, configuration and pre-processing; give the model that transformers makes of them.

    Raises:
        InputError: where it does not find all its parameters, or does not use them all.
    """
    config.architectures = [kind]
    config.save_pretrained(folder)
    save_file(tensors, folder / WEIGHTS, metadata=exported.metadata())
    write_json(folder / "preprocessor_config.json", preprocessing(exported))
    model, account = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    gaps = [*account["missing_keys"], *account["unexpected_keys"], *account["mismatched_keys"]]
    if gaps:
        raise InputError(f"--to hf: transformers {transformers.__version__} does not take {gaps[0]}; nothing was written")
    return model.eval()


def usage(kind: str) -> str:
    return (
        f"from transformers import AutoImageProcessor, {kind}\n\n"
        'processor = AutoImageProcessor.from_pretrained(".")\n'
        f'model = {kind}.from_pretrained(".")'
    )
