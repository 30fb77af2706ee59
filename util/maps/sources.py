"""Where a map comes from: the paper's source, and others that may find the lesion better (METHOD.md "The map").

To add a source, write its function here: ``--map``, its help, the tables and ``util.explain`` know it then.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from util.maps.attention import scale_to_unit
from util.system.errors import InputError

if TYPE_CHECKING:  # reading images takes torchvision, a second to load
    from util.data.images import Images
    from util.data.inference import Inference

FLOOR = 1e-3  # added to the blocks' maps in [0, 1], so that a single block cannot strike out a patch


class View:
    """A batch of whole images as a model sees them; a block's map is computed once, however many sources ask for it.

    Args:
        model: in evaluation mode; it has ``attention_maps`` and ``relevance_map``.
        pixels: ``[B, 3, S, S]``, normalised.
    """

    def __init__(self, model: torch.nn.Module, pixels: Tensor):
        self.model, self.pixels, self.depth = model, pixels, len(model.blocks)
        self._maps: dict[int, Tensor] = {}

    def block(self, number: int) -> Tensor:
        """The class token's attention in a block, counted from 1, ``[B, gh, gw]`` in [0, 1]."""
        if number not in self._maps:
            self._maps[number] = self.model.attention_maps(self.pixels, (number,))[:, 0]
        return self._maps[number]

    def blocks(self) -> Tensor:
        """The maps of all blocks, ``[B, blocks, gh, gw]``, from one pass."""
        numbers = range(1, self.depth + 1)
        if len(self._maps) < self.depth:
            self._maps = dict(zip(numbers, self.model.attention_maps(self.pixels, numbers).unbind(1), strict=True))
        return torch.stack([self._maps[number] for number in numbers], dim=1)


@dataclass(frozen=True)
class Source:
    """A source of maps: its function, from a :class:`View` to ``[B, gh, gw]`` in [0, 1], and what people are told of it."""

    compute: Callable[[View], Tensor]
    about: str
    reads_head: bool  # means nothing while the head is untrained


SOURCES: dict[str, Source] = {}


def source(name: str, about: str, reads_head: bool = False):
    """Register a function as a source of maps."""

    def register(compute: Callable[[View], Tensor]) -> Callable[[View], Tensor]:
        SOURCES[name] = Source(compute, about, reads_head)
        return compute

    return register


@source("last", "the last block's attention (the paper)")
def last(view: View) -> Tensor:
    return view.block(view.depth)


@source("consensus", "what all blocks look at")
def consensus(view: View) -> Tensor:
    """The geometric mean of all blocks' maps: a block that looks elsewhere is outvoted."""
    mean = (view.blocks() + FLOOR).log().mean(1).exp()
    return scale_to_unit(mean.flatten(1)).unflatten(1, mean.shape[1:])


@source("relevance", "what carries the predicted class's logit, gradient-weighted", reads_head=True)
def relevance(view: View) -> Tensor:
    return view.model.relevance_map(view.pixels)


def block_number(name: str) -> int | None:
    """The N of a source named ``blockN``; None for other sources."""
    match = re.fullmatch(r"block([1-9]\d*)", name)
    return int(match[1]) if match else None


def parse(name: str) -> str:
    """An argparse type: the name of a source."""
    if name in SOURCES or block_number(name):
        return name
    raise argparse.ArgumentTypeError(f"{name!r} is not a source of maps; there are blockN (as block3), {', '.join(SOURCES)}")


def help_text() -> str:
    """All sources in a sentence."""
    return "; ".join((*(f"{name}: {each.about}" for name, each in SOURCES.items()), "blockN: the N-th block's attention"))


def check(name: str, depth: int, option: str = "--map") -> None:
    """Raise :class:`InputError` when a source names a block that an encoder of ``depth`` blocks lacks."""
    if (block_number(name) or 0) > depth:
        raise InputError(f"{option} {name}: the encoder has {depth} blocks")


def reads_head(name: str) -> bool:
    """Whether a source needs a trained head."""
    return name in SOURCES and SOURCES[name].reads_head


def names(depth: int) -> list[str]:
    """All sources of an encoder of ``depth`` blocks; the last block goes by the name ``last``."""
    return [*(f"block{number}" for number in range(1, depth)), *SOURCES]


def canonical(name: str, depth: int) -> str:
    """The name of a source as :func:`names` has it."""
    return "last" if name == f"block{depth}" else name


def map_of(view: View, name: str) -> Tensor:
    """The maps of a batch from one source, ``[B, gh, gw]`` in [0, 1]."""
    number = block_number(name)
    return view.block(number) if number else SOURCES[name].compute(view)


def maps(
    model: torch.nn.Module, images: "Images", inference: "Inference", name: str, chosen: Sequence[int] | None = None
) -> Tensor:
    """The maps of a set, or of ``chosen`` images of it, from one source, ``[N, gh, gw]`` in [0, 1]."""

    def compute(pixels: Tensor) -> Tensor:
        return map_of(View(model, pixels), name)

    return inference.over(compute, model, images, f"maps of {images.split}", chosen)


def maps_by_source(
    model: torch.nn.Module, images: "Images", inference: "Inference", chosen: Sequence[int]
) -> dict[str, Tensor]:
    """The maps of some images of a set from every source, ``[N, gh, gw]`` each."""
    every = names(len(model.blocks))

    def compute(pixels: Tensor) -> Tensor:
        view = View(model, pixels)
        view.blocks()
        return torch.stack([map_of(view, name) for name in every], dim=1)

    stacked = inference.over(compute, model, images, f"all maps of {images.split}", chosen)
    return dict(zip(every, stacked.unbind(1), strict=True))
