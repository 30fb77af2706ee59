"""Which map a set of images gets: the paper's, or one of others that may find the lesion better (METHOD.md "The map").

Sources are named ``last`` (the paper's: the last block's attention), ``blockN`` (the N-th block's, counted from 1),
``consensus`` (what all blocks look at), ``relevance`` (gradient-weighted, of the predicted class), ``label`` (the same of
the labelled class) and ``auto`` (a rule chooses one that needs no label).
"""

import argparse
import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode

from util.attention_map import average_heads
from util.errors import InputError
from util.images import Images
from util.optimisation import Precision
from util.whole_set import over_images

READS_HEAD = ("relevance", "label", "auto")  # sources that mean nothing while the head is untrained
DELETED_SHARES = (0.1, 0.25, 0.5)  # of the patches, in the rule's trials
TRIAL_IMAGES = 256  # that the rule tries, spread over the set
UNSEEN = 1e-3  # added to the blocks' maps in [0, 1], so that a single block cannot strike out a patch


def parse(text: str) -> str:
    """An argparse type: the name of a source."""
    if re.fullmatch(r"last|consensus|relevance|label|auto|block[1-9]\d*", text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is none of last, blockN (as block3), consensus, relevance, label, auto")


def check(source: str, depth: int) -> None:
    """Raise :class:`InputError` when a source names a block that an encoder of ``depth`` blocks lacks."""
    if source.startswith("block") and int(source[5:]) > depth:
        raise InputError(f"--map {source}: the encoder has {depth} blocks")


def names(depth: int) -> list[str]:
    """All sources of an encoder of ``depth`` blocks, in the order of :func:`all_maps`; ``last`` is the last block's."""
    return [*(f"block{number}" for number in range(1, depth)), "last", "consensus", "relevance", "label"]


def consensus(attention: Tensor) -> Tensor:
    """What all blocks look at: the geometric mean of their maps ``[B, blocks, gh, gw]``, as ``[B, gh, gw]`` in [0, 1]."""
    agreed = (attention + UNSEEN).log().mean(1).exp()
    return average_heads(agreed.flatten(1)[:, None]).unflatten(1, agreed.shape[1:])


def candidate_maps(model: torch.nn.Module, pixels: Tensor) -> Tensor:
    """Maps ``[B, sources, gh, gw]`` of a batch from every source of :func:`names` but ``label``."""
    attention = model.attention_maps(pixels, range(1, len(model.blocks) + 1))
    more = consensus(attention), model.relevance_map(pixels)
    return torch.cat([attention, torch.stack(more, dim=1)], dim=1)


def all_maps(model: torch.nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    """Maps ``[B, sources, gh, gw]`` of a batch from every source of :func:`names`."""
    return torch.cat([candidate_maps(model, pixels), model.relevance_map(pixels, labels)[:, None]], dim=1)


def map_of(model: torch.nn.Module, pixels: Tensor, source: str, labels: Tensor | None = None) -> Tensor:
    """Maps ``[B, gh, gw]`` in [0, 1] of a batch from one source (not ``auto``); ``label`` needs the labels ``[B]``."""
    depth = len(model.blocks)
    if source == "consensus":
        return consensus(model.attention_maps(pixels, range(1, depth + 1)))
    if source in READS_HEAD:
        return model.relevance_map(pixels, labels if source == "label" else None)
    return model.attention_maps(pixels, (depth if source == "last" else int(source[5:]),))[:, 0]


def maps(
    model: torch.nn.Module,
    images: Images,
    args,
    precision: Precision,
    source: str,
    chosen: Sequence[int] | None = None,
) -> Tensor:
    """The maps of a set, or of ``chosen`` images of it, from one source (not ``auto``), ``[N, gh, gw]`` in [0, 1]."""

    def compute(pixels: Tensor, labels: Tensor) -> Tensor:
        return map_of(model, pixels, source, labels)

    title = f"maps of {images.root.name}"
    return over_images(compute, model, images, args, precision, title, InterpolationMode.BILINEAR, chosen)


def maps_by_source(
    model: torch.nn.Module, images: Images, args, precision: Precision, chosen: Sequence[int]
) -> dict[str, Tensor]:
    """The maps of some images of a set from every source, ``[N, gh, gw]`` each."""

    def compute(pixels: Tensor, labels: Tensor) -> Tensor:
        return all_maps(model, pixels, labels)

    title = f"all maps of {images.root.name}"
    found = over_images(compute, model, images, args, precision, title, InterpolationMode.BILINEAR, chosen)
    return dict(zip(names(len(model.blocks)), found.unbind(1), strict=True))


def fall_of_confidence(model: torch.nn.Module, pixels: Tensor) -> Tensor:
    """How much of the predicted class's probability is lost when the patches that a map ranks highest are deleted.

    A token is deleted by leaving it out. This is the perturbation test by which relevance maps are compared (Samek et al.,
    2017; Chefer et al., 2021): a map that knows what the head looks at takes it away first.

    Args:
        model: in evaluation mode.
        pixels: ``[B, 3, H, W]``, normalised.

    Returns:
        ``[B, sources]``, for each of :func:`names` but ``label``, averaged over :data:`DELETED_SHARES`.
    """

    def confidence(visible: Tensor | None = None) -> Tensor:
        return model.classify(pixels, visible).float().softmax(-1)

    before, predicted = confidence().max(-1)
    falls = []
    for order in candidate_maps(model, pixels).flatten(2).argsort(dim=-1, descending=True).unbind(1):
        after = [confidence(order[:, int(order.shape[1] * share) :]) for share in DELETED_SHARES]
        remaining = torch.stack(after).mean(0).gather(1, predicted[:, None])[:, 0]
        falls.append(before - remaining)
    return torch.stack(falls, dim=1)


def choose(model: torch.nn.Module, images: Images, args, precision: Precision) -> tuple[str, dict[str, float]]:
    """The rule behind ``auto``: the source whose deletions cost most confidence; no lesion mask and no label is used.

    Returns:
        Its name, and the fall of every candidate (probability, averaged over :data:`TRIAL_IMAGES` images of the set).
    """
    chosen = torch.linspace(0, len(images) - 1, min(TRIAL_IMAGES, len(images))).long().tolist()

    def compute(pixels: Tensor, _: Tensor) -> Tensor:
        return fall_of_confidence(model, pixels)

    falls = over_images(compute, model, images, args, precision, "choosing the map", InterpolationMode.BILINEAR, chosen)
    candidates = dict(zip(names(len(model.blocks))[:-1], falls.mean(0).tolist(), strict=True))
    return max(candidates, key=candidates.get), candidates
