"""timm's ViTs: a model by its name, whose weights lie in the local cache, and a folder as timm writes it for a hub."""

from pathlib import Path

import huggingface_hub
import timm
import torch
from timm.layers import LayerScale, Mlp
from timm.layers.activations import GELUTanh, QuickGELU
from timm.models import vision_transformer
from torch import nn

from util.system.console import say
from util.system.errors import InputError
from util.training import checkpoint
from util.training.checkpoint import Checkpoint
from util.training.damage import plainly
from util.variant import Variant
from util.weights.files import WEIGHTS, folder_of, read_json, stated_reading, weights_of, with_class_position

PREFIX = "timm:"
ACTIVATIONS = {nn.GELU: "gelu", GELUTanh: "gelu_tanh", QuickGELU: "quick_gelu"}


def names_a_model(name: str) -> bool:
    return name.startswith(PREFIX)


def is_folder(name: str) -> bool:
    """Whether it is a folder, or a file of weights in one, whose config.json names an architecture of timm's."""
    config = folder_of(name) / "config.json"
    return Path(name).exists() and config.is_file() and "architecture" in read_json(config)


def load(name: str, weights: bool = True) -> Checkpoint:
    """``timm:NAME``, from the local cache: nothing is downloaded (:func:`util.weights.sources.load_weights`)."""
    architecture = name.removeprefix(PREFIX)
    if not timm.is_model(architecture):
        raise InputError(f"{name}: timm {timm.__version__} has no model of this name")
    try:
        about = timm.get_pretrained_cfg(architecture)
    except RuntimeError as error:
        raise InputError(f"{name}: {plainly(error)}") from None
    state = None
    described(architecture, {}, about.to_dict(), name)  # refuses what is not built before weights are looked for
    if weights:
        file = cached(about.hf_hub_id, about.hf_hub_filename, about.url)
        if file is None:
            raise InputError(
                f'{name}: its weights are not in the local cache; fetch them by python -c "import timm; '
                f"timm.create_model('{architecture}', pretrained=True)\""
            )
        state = checkpoint.read(file)
    return described(architecture, {}, about.to_dict(), name, state)


def load_folder(name: str, weights: bool = True) -> Checkpoint:
    """A folder with timm's config.json and weights, or these (:func:`util.weights.sources.load_weights`)."""
    config = read_json(folder_of(name) / "config.json")
    architecture, options = config["architecture"], config.get("model_args") or {}
    about = config.get("pretrained_cfg") or {}
    if not about:  # older ones say it at the top
        about = {name: config[name] for name in ("mean", "std") if name in config}
    if not isinstance(options, dict) or not isinstance(about, dict):
        raise InputError(f"{name}: model_args or pretrained_cfg of its config.json is no JSON object")
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise InputError(f"{name}: timm {timm.__version__} has no model {architecture!r}, which its config.json names")
    options = {**options, **{option: config[option] for option in ("num_classes", "global_pool") if option in config}}
    file = weights_of(name)
    source = described(architecture, options, about, name, checkpoint.read(file, weights))
    source.content["args"] = stated_reading(file)
    if isinstance(config.get("label_names"), list):
        source.content["classes"] = config["label_names"]
    return source


def cached(hub: str | None, filename: str | None, url: str | None) -> Path | None:
    """The file in the local cache of the hub, or of PyTorch's; None where there is none."""
    if hub:
        for wanted in (filename,) if filename else WEIGHTS:
            file = huggingface_hub.try_to_load_from_cache(hub, wanted)
            if isinstance(file, str):
                return Path(file)
    if url and not url.endswith(".npz"):
        file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
        return file if file.is_file() else None
    return None


def described(architecture: str, options: dict, about: dict, name: str, state: object = None) -> Checkpoint:
    """A model of timm's as a checkpoint. Its names go through timm's own conversion.

    Args:
        architecture: timm's name of it; options: for ``timm.create_model``.
        about: its ``pretrained_cfg``, which states mean and deviation.
        name: what the user gave.
        state: the file's content; None: shapes without values.
    """
    try:
        with torch.device("meta"):
            model = timm.create_model(architecture, **options)
        variant = variant_of(model, about, name)
        if state is not None:
            overlay = {"pretrained_cfg": {**about, "state_dict": state, "custom_load": False}}
            model = timm.create_model(architecture, pretrained=True, **overlay, **options)
    except (RuntimeError, TypeError, ValueError, AssertionError, KeyError, AttributeError) as error:
        raise InputError(f"{name}: timm cannot load it ({plainly(error)})") from None
    parameters = dict(model.state_dict())
    if model.no_embed_class:
        parameters["pos_embed"] = with_class_position(parameters["pos_embed"])
    if "head.weight" in parameters and not reads_as_here(model):
        say(f"note: the head of {name} reads otherwise than any here ({model.global_pool}): only its encoder is taken")
        parameters = {key: value for key, value in parameters.items() if not key.startswith(("head.", "attn_pool."))}
    return checkpoint.checked({"model": parameters, "variant": variant.plain()}, Path(name))


def reads_as_here(model: nn.Module) -> bool:
    """Whether a head reads the class token after ``norm``, or the mean of the patches with ``fc_norm`` after it."""
    norms = isinstance(model.norm, nn.LayerNorm), isinstance(model.fc_norm, nn.LayerNorm)
    reads = {"token": norms == (True, False), "avg": norms == (False, True)}
    return reads.get(model.global_pool, False) and not getattr(model, "pool_include_prefix", False)


def variant_of(model: nn.Module, about: dict, name: str) -> Variant:
    """What a ViT of timm's has; raises :class:`InputError` where it has more than is built here, or less."""
    if type(model) is not vision_transformer.VisionTransformer:
        kind = "a distillation token" if hasattr(model, "dist_token") else f"another architecture ({type(model).__name__})"
        raise InputError(f"{name} has {kind}, which is not supported")
    block = model.blocks[0]
    not_built = {
        "no class token": not model.has_class_token,
        "register tokens": bool(model.num_reg_tokens),
        "no position embedding": model.pos_embed is None,
        "other blocks": type(block) is not vision_transformer.Block or type(block.mlp) is not Mlp,
        "other attention": type(block.attn) is not vision_transformer.Attention,
        "a patch embedding of several layers": not isinstance(model.patch_embed.norm, nn.Identity),
        "another normalisation": not isinstance(block.norm1, nn.LayerNorm),
        "another activation": type(getattr(block.mlp, "act", None)) not in ACTIVATIONS,
        "normalised queries and keys": not isinstance(getattr(block.attn, "q_norm", None), nn.Identity),
    }
    reason = next((words for words, there in not_built.items() if there), None)
    if reason:
        raise InputError(f"{name} has {reason}: such an encoder is not supported")
    return Variant(
        norm_eps=block.norm1.eps,
        layer_scale=isinstance(block.ls1, LayerScale),
        pre_norm=isinstance(model.norm_pre, nn.LayerNorm),
        act_layer=ACTIVATIONS[type(block.mlp.act)],
        num_heads=block.attn.num_heads,
        **{key: tuple(about[key]) for key in ("mean", "std") if about.get(key)},
    )
