"""Which map a set of images gets: the paper's, or one of others that may find the lesion better (METHOD.md "The map").

Sources are named ``last`` (the paper's: the last block's attention), ``blockN`` (the N-th block's, counted from 1),
``consensus`` (what all blocks look at) and ``relevance`` (gradient-weighted, of the predicted class).
"""

import argparse
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from util.data.images import Images
from util.evaluation.inference import over_images
from util.maps.attention import average_heads
from util.system.errors import InputError
from util.training.optimisation import Precision

READS_HEAD = ("relevance",)  # sources that mean nothing while the head is untrained
UNSEEN = 1e-3  # added to the blocks' maps in [0, 1], so that a single block cannot strike out a patch


def parse(text: str) -> str:
    """An argparse type: the name of a source."""
    if re.fullmatch(r"last|consensus|relevance|block[1-9]\d*", text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is none of last, blockN (as block3), consensus, relevance")


def check(source: str, depth: int) -> None:
    """Raise :class:`InputError` when a source names a block that an encoder of ``depth`` blocks lacks."""
    if source.startswith("block") and int(source[5:]) > depth:
        raise InputError(f"--map {source}: the encoder has {depth} blocks")


def names(depth: int) -> list[str]:
    """All sources of an encoder of ``depth`` blocks, in the order of :func:`all_maps`; ``last`` is the last block's."""
    return [*(f"block{number}" for number in range(1, depth)), "last", "consensus", "relevance"]


def consensus(attention: Tensor) -> Tensor:
    """What all blocks look at: the geometric mean of their maps ``[B, blocks, gh, gw]``, as ``[B, gh, gw]`` in [0, 1]."""
    agreed = (attention + UNSEEN).log().mean(1).exp()
    return average_heads(agreed.flatten(1)[:, None]).unflatten(1, agreed.shape[1:])


def all_maps(model: torch.nn.Module, pixels: Tensor) -> Tensor:
    """Maps ``[B, sources, gh, gw]`` of a batch from every source of :func:`names`."""
    attention = model.attention_maps(pixels, range(1, len(model.blocks) + 1))
    more = consensus(attention), model.relevance_map(pixels)
    return torch.cat([attention, torch.stack(more, dim=1)], dim=1)


def map_of(model: torch.nn.Module, pixels: Tensor, source: str) -> Tensor:
    """Maps ``[B, gh, gw]`` in [0, 1] of a batch from one source."""
    depth = len(model.blocks)
    if source == "consensus":
        return consensus(model.attention_maps(pixels, range(1, depth + 1)))
    if source == "relevance":
        return model.relevance_map(pixels)
    return model.attention_maps(pixels, (depth if source == "last" else int(source[5:]),))[:, 0]


def maps(
    model: torch.nn.Module,
    images: Images,
    args,
    precision: Precision,
    source: str,
    chosen: Sequence[int] | None = None,
) -> Tensor:
    """The maps of a set, or of ``chosen`` images of it, from one source, ``[N, gh, gw]`` in [0, 1]."""

    def compute(pixels: Tensor, _: Tensor) -> Tensor:
        return map_of(model, pixels, source)

    title = f"maps of {images.root.name}"
    return over_images(compute, model, images, args, precision, title, chosen)


def maps_by_source(
    model: torch.nn.Module, images: Images, args, precision: Precision, chosen: Sequence[int]
) -> dict[str, Tensor]:
    """The maps of some images of a set from every source, ``[N, gh, gw]`` each."""

    def compute(pixels: Tensor, _: Tensor) -> Tensor:
        return all_maps(model, pixels)

    title = f"all maps of {images.root.name}"
    found = over_images(compute, model, images, args, precision, title, chosen)
    return dict(zip(names(len(model.blocks)), found.unbind(1), strict=True))
