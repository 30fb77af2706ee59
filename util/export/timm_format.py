"""timm: model.safetensors for ``checkpoint_path``, and config.json, with which timm loads the folder by itself."""

from functools import partial
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from util.export.exported import WEIGHTS, Exported, Written, largest_difference
from util.system.text import write_json
from util.variant import MAE

NAMES = {192: "vit_tiny_patch16_224", 384: "vit_small_patch16_224", 1024: "vit_large_patch16_224"}
NAMES |= {1280: "vit_huge_patch14_224"}


def write(exported: Exported, folder: Path) -> Written:
    """Write the encoder with its head for timm, and compare the logits of timm's model."""
    architecture, options, norm_eps = in_timms_words(exported)
    save_file(
        {name: value.contiguous() for name, value in exported.encoder().items()}, folder / WEIGHTS, exported.metadata()
    )
    notes = ["the decoder is left out: timm has none"] if exported.has_decoder else []
    cfg = {
        "input_size": [3, exported.side, exported.side],
        "mean": list(exported.model.variant.mean),
        "std": list(exported.model.variant.std),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",  # both sides resized, the aspect not kept
        "num_classes": exported.origin.outputs,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    words = [f"{name}={value!r}" for name, value in options.items()]
    imports, loading = ["import timm"], {}
    if norm_eps is None:
        config = {
            "architecture": architecture,
            "num_classes": exported.origin.outputs,
            "num_features": exported.model.embed_dim,
            "global_pool": exported.model.global_pool,
            "model_args": {name: value for name, value in options.items() if name != "num_classes"},
            "label_names": exported.classes,
            "pretrained_cfg": cfg,
        }
        write_json(folder / "config.json", config)
    else:
        write_json(folder / "pretrained_cfg.json", {**cfg, "label_names": exported.classes})
        notes.append(
            f"a config.json of timm's cannot state the layer normalisation's eps, {norm_eps:g} here: the call below does"
        )
        words.append(f"norm_layer=partial(LayerNorm, eps={norm_eps:g})")
        imports = ["from functools import partial", "", "import timm", "from torch.nn import LayerNorm"]
        loading["norm_layer"] = partial(nn.LayerNorm, eps=norm_eps)
    arguments = ",\n    ".join([f'"{architecture}"', f'checkpoint_path="{WEIGHTS}"', *words])
    usage = "\n".join([*imports, "", f"model = timm.create_model(\n    {arguments},\n).eval()"])

    model = timm.create_model(architecture, checkpoint_path=str(folder / WEIGHTS), **options, **loading).eval()
    images = exported.examples()
    with torch.no_grad():
        difference = largest_difference(exported.model.classify(images), model(images))
    return Written("timm", usage, difference, notes)


def in_timms_words(exported: Exported) -> tuple[str, dict, float | None]:
    """An architecture of timm's, the options that make it this model, and the eps of its norms where no option tells it."""
    model, variant = exported.model, exported.model.variant
    options = {
        "num_classes": exported.origin.outputs,
        "global_pool": model.global_pool,
        "img_size": exported.side,
        "patch_size": model.patch_size,
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": model.blocks[0].attn.num_heads,
    }
    if variant.layer_scale:
        options["init_values"] = 1e-5
    if variant.act_layer != MAE.act_layer:
        options["act_layer"] = variant.act_layer
    if variant.norm_eps == 1e-5:  # timm's CLIP models have it
        return "vit_base_patch16_clip_224", {**options, "pre_norm": variant.pre_norm}, None
    if variant.pre_norm:
        options["pre_norm"] = True
    name = NAMES.get(model.embed_dim, "vit_base_patch16_224")
    return name, options, None if variant.norm_eps == MAE.norm_eps else variant.norm_eps
