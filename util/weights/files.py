"""Files of parameters by timm's names, which are MAE's: ours, MAE's, MSMAE's, RETFound's, DINOv2's, any timm ViT's."""

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from util.data.reading import Reading
from util.system.errors import InputError
from util.training import checkpoint
from util.training.checkpoint import Checkpoint
from util.variant import MAE, Variant

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in a folder of another library's
WRAPPERS = ("model", "state_dict", "teacher")  # where a file may keep its parameters
PREFIXES = ("module.", "_orig_mod.", "backbone.")  # of several processes, of torch.compile, of DINOv2's training
RENAMED = {
    r"^blocks\.\d+\.(\d+)\.": r"blocks.\1.",  # DINOv2 trains its blocks in chunks
    r"^(blocks\.\d+)\.gamma_([12])$": r"\1.ls\2.gamma",  # LayerScale before it had a module
}
NOT_BUILT = {
    r"(^|\.)dist_token$|^head_dist\.": "a distillation token",
    r"(^|\.)(reg_token|register_tokens|storage_tokens)$": "register tokens",
    r"^blocks\.\d+\.mlp\.(w12|w3|fc1_g)\.": "gated (SwiGLU) blocks",
    r"^blocks\.\d+\.attn\.[qk]_norm\.": "normalised queries and keys",
    r"(rel_pos|relative_position)": "relative positions",
    r"^patch_embed\.(?!proj\.)": "a patch embedding of several layers",
}
CLIP_EPS = 1e-5  # of timm's and OpenAI's encoders with a norm before the blocks; no tensor tells it
METADATA = "msmae"  # where a safetensors file of ours says what its tensors do not


def load(name: str, weights: bool = True) -> Checkpoint:
    """Read a file of parameters (:func:`util.weights.sources.load_weights`)."""
    path = Path(name)
    content = checkpoint.read(name, weights)
    if isinstance(content, dict) and "phase" not in content:
        content = unwrapped(content)
        if isinstance(content.get("model"), dict):
            content |= stated(path)
            content["model"] = by_mae_names(content["model"])
            content.setdefault("variant", variant_of(content["model"]).plain())
    source = checkpoint.checked(content, path)
    if not source.phase:
        refuse_other_architectures(source.parameters, path)
    return source


def folder_of(name: str) -> Path:
    """The folder that a name stands for: itself, or where a file of weights lies."""
    path = Path(name)
    return path.parent if path.name in WEIGHTS else path


def weights_of(name: str) -> Path:
    """The file of weights that a name stands for: itself, or the one in that folder."""
    path = Path(name)
    files = [path] if path.is_file() else [path / file for file in WEIGHTS if (path / file).is_file()]
    if not files:
        raise InputError(f"{name} holds neither {' nor '.join(WEIGHTS)}")
    return files[0]


def read_json(path: Path) -> dict:
    """A JSON object that stands beside weights; raises :class:`InputError` where the file holds none."""
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object")
    return content


def unwrapped(content: dict) -> dict:
    """A file's content with its parameters under ``model``."""
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return {"model": content}
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict) and content[wrapper]:
            rest = {name: value for name, value in content.items() if name not in WRAPPERS}
            return {**rest, "model": content[wrapper]}
    return content


def stated(path: Path) -> dict:
    """What a safetensors file of ours says beside its tensors."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(METADATA)
    try:
        content = json.loads(text) if text else {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: what it says of its model is no JSON object")
    return content


def stated_reading(path: Path) -> dict:
    """The options of a file of ours that say how images are read: the intensity range and its like."""
    return Reading.of(stated(path).get("args", {})).said


def by_mae_names(parameters: dict[Any, Any]) -> dict[Any, Any]:
    """Parameters without the prefixes of a training, by MAE's names; the head of a training beside ``backbone.`` stays."""
    names = {name: str(name) for name in parameters}
    for prefix in PREFIXES:
        names = {name: renamed.removeprefix(prefix) for name, renamed in names.items()}
    for pattern, by in RENAMED.items():
        names = {name: re.sub(pattern, by, renamed) for name, renamed in names.items()}
    if len(set(names.values())) < len(names):
        return parameters  # two of one name: it is not what it seems
    renamed = {new if isinstance(old, str) else old: parameters[old] for old, new in names.items()}
    if isinstance(renamed.get("cls_token"), Tensor) and isinstance(renamed.get("pos_embed"), Tensor):
        renamed["pos_embed"] = with_class_position(renamed["pos_embed"])
    return renamed


def with_class_position(position: Tensor) -> Tensor:
    """A position embedding that leaves the class token out, as DeiT III's, with zeros for it: the same to the encoder.

    Its length tells: it is a square number, and one less is none.
    """
    if position.ndim != 3 or not is_square(position.shape[1]) or is_square(position.shape[1] - 1):
        return position
    return torch.cat([torch.zeros_like(position[:, :1]), position], dim=1)


def is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def variant_of(parameters: dict[Any, Any]) -> Variant:
    """What the names of an encoder's parameters tell; the rest is MAE's, or CLIP's with a norm before the blocks."""
    pre_norm = "norm_pre.weight" in parameters
    return Variant(
        norm_eps=CLIP_EPS if pre_norm else MAE.norm_eps,
        layer_scale=any(str(name).endswith(".ls1.gamma") for name in parameters),
        pre_norm=pre_norm,
    )


def refuse_other_architectures(parameters: dict[str, Tensor], path: str | Path) -> None:
    """Raise :class:`InputError` naming what an encoder has, or lacks, that is not built here."""
    if any(re.match(r"(\w+\.)?(embeddings\.|encoder\.layer)", name) for name in parameters):
        raise InputError(f"{path} has Hugging Face's names: give the folder that holds it and its config.json")
    for pattern, words in NOT_BUILT.items():
        if any(re.search(pattern, name) for name in parameters):
            raise InputError(f"{path} has {words}, which are not supported" if words.endswith("s") else
                             f"{path} has {words}, which is not supported")  # fmt: skip
    if "patch_embed.proj.weight" in parameters:
        for name, words in (("cls_token", "class token, which SAM's map needs"), ("pos_embed", "position embedding")):
            if name not in parameters:
                raise InputError(f"{path} has no {words}: such an encoder is not supported")
