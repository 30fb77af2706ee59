"""Checkpoints: written whole or not at all, read without executing code."""

import argparse
import hashlib
import os
import re
import shutil
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from util.system.console import say
from util.system.errors import InputError
from util.system.files import replacing
from util.training.damage import check_content, check_file, plainly, square_side
from util.training.older import LAST_COMMIT, by_todays_names
from util.variant import Variant

FORMAT = 3  # 2: may stand within an epoch; 3: of a run that validates on images resized bilinearly


def file_sha256(path: Path) -> str | None:
    """The SHA-256 of a file, as ``sha256sum`` prints it; None where there is no such file."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Shape:
    """What an encoder's parameters tell of it."""

    width: int
    depth: int
    patch_size: int
    num_patches: int

    def __str__(self) -> str:
        return f"width {self.width}, {self.depth} blocks, patch size {self.patch_size}"

    @classmethod
    def of(cls, parameters: dict[str, Tensor], path: str | Path) -> "Shape":
        try:
            projection, position = parameters["patch_embed.proj.weight"], parameters["pos_embed"]
            blocks = {name.split(".")[1] for name in parameters if name.startswith("blocks.")}
            return cls(projection.shape[0], len(blocks), projection.shape[-1], position.shape[1] - 1)
        except (KeyError, IndexError):
            raise InputError(f"{path} holds no ViT encoder (no patch_embed.proj.weight or pos_embed in it)") from None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read, and all that it tells of its model and its run."""

    path: Path
    content: dict

    @cached_property
    def sha256(self) -> str | None:
        """The file's: what a run calls the file, wherever it lies; None where there is no such file."""
        return file_sha256(self.path)

    def named(self) -> dict[str, str | None]:
        """What ``run.json`` says of it."""
        return {"file": str(self.path), "sha256": self.sha256}

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The model's, by MAE's names."""
        return self.content["model"]

    @property
    def phase(self) -> str | None:
        """ "pretrain", "finetune" or "segmentation"; None where another project wrote the file."""
        return self.content.get("phase")

    @cached_property
    def options(self) -> dict:
        """The options of the run that wrote it, by today's names."""
        return by_todays_names(self.content.get("args", {}))

    @cached_property
    def variant(self) -> Variant:
        """How its encoder differs from MAE's, and the normalisation of its pixels; raises :class:`InputError`."""
        return Variant.of(self.content.get("variant", {}), self.path)

    @property
    def decoder_heads(self) -> int | None:
        """Attention heads of the decoder, where another project states them."""
        return self.content.get("decoder_heads")

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes that the head tells apart, where the file says."""
        return self.content.get("classes")

    @property
    def outputs(self) -> int:
        """Number of classes of the head; 0 without a head."""
        return len(self.parameters.get("head.bias", ()))

    @cached_property
    def shape(self) -> Shape:
        """The encoder's; raises :class:`InputError` where the file holds none."""
        return Shape.of(self.parameters, self.path)

    @property
    def input_size(self) -> int:
        """Side in pixels of the square images that the position embedding is made for."""
        return square_side(self.shape.num_patches, self.path) * self.shape.patch_size

    @property
    def pooling(self) -> str:
        """What the head reads: "avg" or "token"."""
        return "avg" if "fc_norm.weight" in self.parameters else "token"

    @property
    def is_finetuned(self) -> bool:
        """Whether it holds a classifier, and no decoder of pre-training."""
        return self.outputs > 0 and "decoder_pred.weight" not in self.parameters

    @property
    def trained_without_copies(self) -> bool:
        """Whether its training left out the images that have a copy in val (``--on_leak drop``)."""
        return self.options.get("on_leak") == "drop"

    @property
    def is_best(self) -> bool:
        """Whether it holds the epoch that was chosen as best on the validation images."""
        best = self.content.get("best", {})
        return "epoch" in best and best["epoch"] == self.content.get("epoch")

    def encoder_name(self, encoders: dict[str, dict]) -> str:
        """Which of ``encoders`` (``embed_dim`` and ``depth`` by name) it holds: the one it names, else the one that fits.

        Raises:
            InputError: when none fits, or several do and the file names none of them.
        """
        self._check_heads()
        fitting = [
            name
            for name, encoder in encoders.items()
            if (encoder["embed_dim"], encoder["depth"]) == (self.shape.width, self.shape.depth)
        ]
        named = re.sub("^(ms)?mae_", "", str(self.options.get("model", "")))
        if named in fitting:
            return named
        if not fitting:
            raise InputError(f"{self.path} holds no encoder that is known here ({self.shape})")
        if len(fitting) > 1:
            raise InputError(f"{self.path} may hold {' or '.join(fitting)} ({self.shape}): say which by --model")
        return fitting[0]

    def _check_heads(self) -> None:
        decoder = self.parameters.get("decoder_embed.weight")
        widths = [(self.shape.width, self.variant.num_heads)]
        widths += [(len(decoder), self.decoder_heads)] if decoder is not None else []
        for width, heads in widths:
            if heads is not None and (heads < 1 or width % heads):
                raise InputError(f"{self.path}: {heads} attention heads do not divide the width {width}")


def save(path: Path, **content: Any) -> None:
    """Write a checkpoint to a temporary file beside ``path``, flush it to disk and rename it."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save({"format": FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())


def duplicate(path: Path, name: str) -> None:
    """Give a checkpoint a second name; nothing is copied where the file system knows hard links."""
    target = path.with_name(name)
    if target.exists() and target.samefile(path):
        return
    with replacing(target) as temporary:
        temporary.unlink(missing_ok=True)  # of a run that was killed here
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)


def read(path: str | Path, weights: bool = True) -> Any:
    """What a file of weights holds, read without executing code: PyTorch's or safetensors.

    Args:
        path: of the file.
        weights: read them; if not, tensors have a shape and no values, and a large file takes no time.

    Raises:
        InputError: when there is no such file, or it is damaged, would run code, or holds the authors' SETR.
    """
    if not str(path):
        raise InputError("a checkpoint is wanted, and its path is empty")
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint {path}: no such file")
    check_file(path, checksums=weights)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a library's lines about what it refuses
                content = torch.load(path, map_location="cpu" if weights else "meta", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} is no checkpoint that can be loaded safely ({reason_in(error)})") from None
    refuse_released_setr(content, path)
    return content


def checked(content: Any, path: Path) -> Checkpoint:
    """A file's content as a checkpoint: parameters by MAE's names under ``model``, and what else it tells.

    Raises:
        InputError: when it holds no parameters there, or a field is not what it should be.
    """
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict) or not content["model"]:
        raise InputError(f"{path} is no checkpoint: it holds no parameters under 'model'")
    if isinstance(content.get("args"), argparse.Namespace):
        content["args"] = vars(content["args"])
    if "reg_token" in content["model"]:
        raise InputError(f"{path} has register tokens, which are not supported; commit {LAST_COMMIT} was the last with them")
    check_content(content, path)
    if content.get("format", FORMAT) > FORMAT:
        raise InputError(f"{path} was written by a newer version of this project (format {content['format']})")
    source = Checkpoint(path, content)
    _ = source.variant  # raises where it makes no sense
    return source


def load(path: str | Path, weights: bool = True) -> Checkpoint:
    """Read a checkpoint of ours (:func:`util.weights.sources.load_weights` reads those of others too).

    Raises:
        InputError: as :func:`read` and :func:`checked`.
    """
    content = read(path, weights)
    if isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values()):
        content = {"model": content}  # a bare state dict
    return checked(content, Path(path))


def reason_in(error: Exception) -> str:
    """Why PyTorch refuses a file, in plain words and without its advice to load the file anyway."""
    text = plainly(error)
    if text.isdigit():
        return "it is no file of PyTorch's"
    if "weights only" in text.lower() or "weights_only" in text.lower():
        return "it holds more than tensors and would run code, such as a whole pickled model, or it is damaged"
    return text


def refuse_released_setr(content: Any, path: Path) -> None:
    """Raise :class:`InputError` where a file holds the authors' SETR, bare or under ``model`` or ``state_dict``."""
    whole = content if isinstance(content, dict) else {}
    for parameters in (whole, whole.get("model"), whole.get("state_dict")):
        names = parameters if isinstance(parameters, dict) else {}
        if any(str(name).removeprefix("module.").startswith("VIT.") for name in names):
            raise InputError(
                f"{path} is a SETR of the authors' scripts (VIT.*, Head.*): it was trained on images that were scaled twice "
                "with red and blue swapped, and without the qkv bias, so correct code cannot reproduce its results. Train "
                "one anew from a pre-trained encoder, --checkpoint"
            )


def epoch_in_name(path: Path) -> int:
    """The epoch of ``checkpoint-<epoch>.pth`` or ``sheet-<epoch>.png``; -1 of other names."""
    number = re.fullmatch(r"(?:checkpoint|sheet)-(\d+)", path.stem)
    return int(number[1]) if number else -1


def numbered(folder: Path) -> list[Path]:
    """The checkpoints ``checkpoint-<epoch>.pth`` of a folder, newest epoch first."""
    checkpoints = [path for path in folder.glob("checkpoint-*.pth") if epoch_in_name(path) >= 0]
    return sorted(checkpoints, key=epoch_in_name, reverse=True)


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a run that loads; says which ones had to be skipped."""
    candidates = [path for path in (folder / "checkpoint-last.pth", *numbered(folder)) if path.exists()]
    for path in candidates:
        try:
            return load(path)
        except InputError as error:
            say(f"skipped: {error}")
    return None


def prune(folder: Path, keep: int | None) -> None:
    """Remove all but the newest ``keep`` numbered checkpoints; None removes nothing."""
    for path in numbered(folder)[keep:] if keep else []:
        path.unlink()
