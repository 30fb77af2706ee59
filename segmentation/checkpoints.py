"""What a checkpoint tells before its weights are read: how it was trained, and the shape of its encoder."""

import argparse
import math
from pathlib import Path

import torch

from models_vit import ENCODERS
from util import checkpoint
from util.errors import InputError


def peek(path: str | Path, option: str) -> dict:
    """A checkpoint as ``util.checkpoint.load`` gives it, but quickly: most of its tensors have a shape and no values.

    Args:
        path: of the file.
        option: that names it, for messages.

    Raises:
        InputError: when there is no such file, it is no checkpoint, or it is a SETR of the released scripts.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="meta", weights_only=True)
    except Exception:
        content = checkpoint.load(path)  # not PyTorch's format; or this says what is wrong
    if isinstance(content, dict):
        refuse_released(content, path, option)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        content = checkpoint.load(path)  # a bare one gets our form; or this says what is wrong
    if not isinstance(content.get("args", {}), dict):
        content["args"] = vars(content["args"])
    return content


def refuse_released(content: dict, path: str | Path, option: str) -> None:
    """Raise :class:`InputError` where a file holds the authors' SETR, bare or under ``model`` or ``state_dict``."""
    for parameters in (content, content.get("model"), content.get("state_dict")):
        names = parameters if isinstance(parameters, dict) else {}
        if any(str(name).removeprefix("module.").startswith("VIT.") for name in names):
            raise InputError(
                f"{option} {path} is a SETR of the authors' scripts (VIT.*, Head.*): it was trained on images that were "
                "scaled twice, with red and blue swapped, and without the qkv bias, so correct code cannot reproduce its "
                "figures; train one anew, from a pre-trained encoder given to --checkpoint"
            )


def newest(folder: Path) -> Path | None:
    """The checkpoint that ``--resume auto`` goes on from: the newest of the folder that can be read."""
    for path in (folder / "checkpoint-last.pth", *checkpoint.numbered(folder)):
        try:
            peek(path, "--resume")
        except InputError:
            continue  # the run itself says which it skips
        return path
    return None


def encoder_options(content: dict, path: str | Path) -> tuple[dict, str]:
    """The options that an encoder's checkpoint settles, and its shape in words.

    Returns:
        ``model``, ``patch_size`` and, where its patches form a square, ``input_w`` and ``input_h``.

    Raises:
        InputError: when the file holds no encoder, or one that no model has.
    """
    if content.get("phase") == "segmentation":
        raise InputError(f"--checkpoint {path} is a segmentation model: go on with it by --resume, or see --evaluate")
    shape = checkpoint.Shape.of(content["model"], path)
    fitting = [
        name for name, encoder in ENCODERS.items() if (encoder["embed_dim"], encoder["depth"]) == (shape.width, shape.depth)
    ]
    if not fitting:
        raise InputError(f"--checkpoint {path} holds an encoder that no --model has: {shape}")
    named = str(content.get("args", {}).get("model", "")).removeprefix("msmae_")
    options = {"model": named if named in fitting else fitting[0], "patch_size": shape.patch_size}
    side = math.isqrt(shape.num_patches)
    if side**2 == shape.num_patches:
        options |= dict.fromkeys(("input_w", "input_h"), side * shape.patch_size)
    return options, str(shape)
