"""What can be wrong with a checkpoint: a file that changed since it was written, fields that are not what they should be."""

import math
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from util.system.errors import InputError

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
            raise InputError(f"{path} is damaged: the checksum of {damaged} is wrong, the file changed since it was written")


def check_content(content: dict, path: Path) -> None:
    """Raise :class:`InputError` naming the first field that is not what a checkpoint holds there."""
    for name, value in content["model"].items():
        if not isinstance(name, str):
            raise InputError(f"{path}: a parameter is named {name!r}, which is no text")
        if not isinstance(value, Tensor):
            raise InputError(f"{path}: {name} is no tensor")
        if value.is_complex() or (value.dtype != torch.int64 and not value.is_floating_point()):
            raise InputError(f"{path}: {name} holds numbers of type {value.dtype}; weights must be floating-point")
        if value.is_floating_point() and not value.is_meta and not value.isfinite().all():
            raise InputError(f"{path}: {name} holds infinite values or none (NaN); the training that wrote it had failed")
    position = content["model"].get("pos_embed")
    if position is not None and (position.ndim != 3 or position.shape[1] < 2):
        raise InputError(f"{path}: pos_embed is {tuple(position.shape)}, which is no position embedding")
    expected = {
        "args": dict,
        "format": int,
        "epoch": int,
        "classes": list,
        "phase": str,
        "variant": dict,
        "decoder_heads": int,
    }
    for name, kind in expected.items():
        if name in content and not isinstance(content[name], kind):
            raise InputError(f"{path}: {name} is {type(content[name]).__name__}, where a checkpoint has {kind.__name__}")
    if "phase" in content:  # one of ours
        for name in ("epoch", "classes", "args"):
            if name not in content:
                raise InputError(f"{path} lacks {name}")
        if not all(isinstance(name, str) for name in content["classes"]):
            raise InputError(f"{path}: a class has a name that is no text")


def square_side(patches: int, path: str | Path) -> int:
    """Patches along each side of a square grid of ``patches``; raise :class:`InputError` where there is none."""
    side = math.isqrt(patches)
    if side * side != patches:
        raise InputError(f"{path}: its position embedding has {patches} patches, which form no square: give --input_size")
    return side


def plainly(error: Any) -> str:
    """An error of a library in a line, without control characters."""
    text = str(error).strip().split("\n")[0][:160] or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in text)
