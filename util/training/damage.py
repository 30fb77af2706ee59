"""What can be wrong with a checkpoint: a file that changed since it was written, fields that are not what they should be."""

import math
import re
import zipfile
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from util.system.errors import InputError
from util.system.text import one_line

GIT_LFS = b"version https://git-lfs"


def check_file(path: Path, checksums: bool) -> None:
    """Raise :class:`InputError` where a file is no checkpoint by its first bytes, or its checksums do not agree.

    PyTorch writes a zip archive with a checksum of each tensor. Files of other formats have none. Without ``checksums``
    the tensors are not read.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        raise InputError(f"{path} is empty")
    if start.startswith(GIT_LFS):
        raise InputError(f"{path} is a Git LFS pointer and not the file itself: fetch it by git lfs pull")
    if re.match(rb"\s*(<!doctype|<html)", start, re.IGNORECASE):
        raise InputError(f"{path} is a web page and not a checkpoint: download the file itself")
    if checksums and start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except Exception as error:  # zipfile raises nearly anything on damaged headers
            raise InputError(f"{path} is damaged ({plainly(error)})") from None
        if damaged:
            raise InputError(
                f"{path} is damaged: the checksum of {one_line(damaged)} is wrong, the file changed since it was written"
            )


NUMBERS = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64)  # int64: a counter of batches
FIELDS: dict[str, tuple[type, ...]] = {  # what a checkpoint holds beside its weights, where it holds it
    **{"args": (dict,), "format": (int,), "epoch": (int,), "step": (int,), "classes": (list,), "phase": (str,)},
    **{"best": (dict,), "precision": (str,), "optimizer": (dict,), "scaler": (dict,)},
    **{"maps": (Tensor, NoneType), "map_entropy": (float, NoneType), "maps_made_for": (int, NoneType)},
    **{"begun_from": (dict, NoneType), "processes": (int,), "variant": (dict,), "decoder_heads": (int,)},
}


def check_content(content: dict, path: Path) -> None:
    """Raise :class:`InputError` naming the first field that is not what a checkpoint holds there."""
    room = path.stat().st_size if path.is_file() else math.inf
    for name, value in content["model"].items():
        check_parameter(name, value, room, path)
    position = content["model"].get("pos_embed")
    if position is not None and (position.ndim != 3 or position.shape[1] < 2):
        raise InputError(f"{path}: pos_embed is {tuple(position.shape)}, which is no position embedding")
    for name, kinds in FIELDS.items():
        if name in content and type(content[name]) not in kinds:
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(f"{path}: {name} is {type(content[name]).__name__}, where a checkpoint has {wanted}")
    best = content.get("best", {})
    if best and (type(best.get("epoch")) is not int or not all(type(score) in (int, float) for score in best.values())):
        raise InputError(f"{path}: best is not an epoch and its score")
    if not is_plain(content.get("args", {})) or not is_plain(content.get("begun_from")):
        raise InputError(f"{path}: its options are not plain numbers and texts")
    if "phase" in content:  # one of ours
        for name in ("epoch", "classes", "args"):
            if name not in content:
                raise InputError(f"{path} lacks {name}")
        if not all(isinstance(name, str) for name in content["classes"]):
            raise InputError(f"{path}: a class has a name that is no text")
        if not -1 <= content["epoch"] < 2**31 or not 0 <= content.get("step", 0) < 2**31:
            raise InputError(f"{path}: no run has an epoch {content['epoch']} with a step {content.get('step', 0)}")


def check_parameter(name: Any, value: Any, room: float, path: Path) -> None:
    """Raise :class:`InputError` unless this is a parameter; ``room`` are the bytes of ``path``, if it is a file."""
    if not isinstance(name, str):
        raise InputError(f"{path}: a parameter is named {name!r}, which is no text")
    if not isinstance(value, Tensor):
        raise InputError(f"{path}: {name} is no tensor")
    if value.layout != torch.strided or value.dtype not in NUMBERS:
        kind = value.dtype if value.layout == torch.strided else value.layout
        raise InputError(f"{path}: {name} holds numbers of type {kind}; weights must be floating-point")
    if value.is_meta:
        return
    if value.nbytes > room:
        raise InputError(f"{path}: {name} is {tuple(value.shape)}, more numbers than the file holds")
    if not value.isfinite().all():
        raise InputError(f"{path}: {name} holds infinite values or NaN; the training that wrote it had failed")


def is_plain(value: Any) -> bool:
    """Whether something is a number, a text or nothing, or a collection of such."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_plain(each) for name, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | int | float)


def square_side(patches: int, path: str | Path) -> int:
    """Patches along each side of a square grid of ``patches``; raise :class:`InputError` where there is none."""
    side = math.isqrt(patches)
    if side * side != patches:
        raise InputError(f"{path}: its position embedding has {patches} patches, which form no square: give --input_size")
    return side


def plainly(error: Any) -> str:
    """An error of a library in a line, without control characters."""
    return one_line(str(error).strip().split("\n")[0][:160] or type(error).__name__)
