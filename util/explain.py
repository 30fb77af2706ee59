"""One image, in a notebook or script: its map, SAM's split of its patches, its reconstruction.

from models_msmae import load_model
from util.explain import attention_map, reconstruction, sam_split

model = load_model("checkpoint-last.pth")
weights = attention_map(model, "scan.png")
split = sam_split(weights, mask_ratio=0.45, throw_ratio=0.3)
picture = reconstruction(model, "scan.png", split)
"""

import torch
from torch import Tensor

from util.data.augment import denormalize, normalize
from util.data.images import read_image
from util.data.loading import resize_whole
from util.data.reading import AS_IT_IS, Reading
from util.evaluation.painting import rebuilt
from util.evaluation.preview import reconstructed_colours
from util.maps import sources
from util.masking import SAM, Split
from util.options.checks import ratios
from util.system.device import Precision
from util.system.errors import InputError


def network_input(model: torch.nn.Module, path: str, reading: Reading | None = None) -> Tensor:
    """An image file as a model takes it: ``[1, 3, S, S]``, whole, resized to its input size, normalised, on its device.

    Args:
        model: from :func:`models_msmae.load_model`.
        path: of the file, of any format in docs/formats.md.
        reading: how it is read, such as ``Reading(window=(40, 400))``; None: as the model's training images were.
    """
    side = model.grid_size[0] * model.patch_size
    reading = reading or getattr(model, "reading", None) or AS_IT_IS
    image = resize_whole(read_image(path, reading), side)[None].to(model.cls_token.device)
    return normalize(image, model.variant.mean, model.variant.std)


def attention_map(model: torch.nn.Module, path: str, source: str = "last", reading: Reading | None = None) -> Tensor:
    """Where the class token looks in an image (METHOD.md "The map").

    Args:
        model: from :func:`models_msmae.load_model`.
        path: of any image file.
        source: "last" (the paper's), "consensus" of all blocks, "block1" and so on, "relevance" (needs a trained head).
        reading: as in :func:`network_input`.

    Returns:
        ``[gh, gw]`` float32 in [0, 1], on the CPU.
    """
    depth = len(model.blocks)
    if sources.canonical(source, depth) not in sources.names(depth):
        raise InputError(f"no map source {source!r}; there are {', '.join(sources.names(depth))}")
    if sources.reads_head(source) and isinstance(model.head, torch.nn.Identity):
        raise InputError(f"the source {source} needs a head, which this model does not have; take last or consensus")
    pixels = network_input(model, path, reading)
    model.eval()
    return sources.map_of(sources.View(model, pixels), source)[0].cpu()


def sam_split(weights: Tensor, mask_ratio: float = 0.45, throw_ratio: float = 0.3, seed: int = 0) -> Split:
    """SAM's decision about the patches of one image (METHOD.md "SAM").

    Args:
        weights: ``[gh, gw]``, a map; all ones give random masking.
        mask_ratio, throw_ratio: shares of the patches to mask and to throw.
        seed: of the draw.

    Returns:
        Indices ``visible``, ``masked`` and ``thrown``, ``[1, n]`` each, counting patches row by row from 0.

    Raises:
        InputError: where the ratios mask no patch or leave none visible.
    """
    ratios(weights.numel(), mask_ratio, throw_ratio, "mask_ratio and throw_ratio")
    return SAM(mask_ratio, throw_ratio).example(weights.flatten()[None], seed)


@torch.no_grad()
def reconstruction(model: torch.nn.Module, path: str, split: Split, reading: Reading | None = None) -> Tensor:
    """An image as pre-training sees it: visible patches as they are, masked ones as guessed, thrown ones striped.

    Args:
        model: from :func:`models_msmae.load_model`, of a pre-training checkpoint.
        path: of any image file.
        split: from :func:`sam_split`.
        reading: as in :func:`network_input`.

    Returns:
        ``[S, S, 3]`` float32 in [0, 1], on the CPU, for matplotlib's ``imshow``.
    """
    if not hasattr(model, "reconstruct"):
        raise InputError("this model has no decoder; load a checkpoint of pre-training")
    pixels = network_input(model, path, reading)
    image = denormalize(pixels, model.variant.mean, model.variant.std)[0].permute(1, 2, 0).cpu()
    masked = reconstructed_colours(model, pixels, split, Precision(pixels.device, "fp32"))
    return rebuilt(image, split, 0, masked[0])
