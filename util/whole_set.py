"""Passes over a whole set of un-augmented images without gradient: its maps, and its class probabilities."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode

from util import distributed, interruption
from util.augment import normalize
from util.data import whole_batches
from util.images import Images
from util.optimisation import Precision
from util.progress import track


@torch.no_grad()
def over_images(
    compute: Callable[[Tensor], Tensor],
    model: torch.nn.Module,
    images: Images,
    args,
    precision: Precision,
    title: str,
    interpolation: InterpolationMode = InterpolationMode.BICUBIC,
) -> Tensor:
    """``compute(batch)`` in evaluation mode for every whole image, in the order of the set, on the CPU as float32.

    Raises:
        Stopped: between batches, when a signal asked for it.
    """
    was_training = model.training
    model.eval()
    rows = []
    batches = whole_batches(images, args.input_size, args.batch_size, interpolation)
    own = -(-len(images) // distributed.world_size())
    for batch in track(batches, title, total=-(-own // args.batch_size), scale=args.batch_size):
        pixels = normalize(batch.to(precision.device, non_blocking=True))
        with precision():
            rows.append(compute(pixels).float())
        if interruption.asked() and distributed.world_size() == 1:  # several processes stop together, after a step
            raise interruption.Stopped(interruption.asked())
    model.train(was_training)
    return distributed.gather_rows(torch.cat(rows).cpu(), len(images))


def attention_maps(model: torch.nn.Module, images: Images, args, precision: Precision) -> Tensor:
    """The maps of a set, ``[N, gh, gw]`` in [0, 1] (METHOD.md "The map")."""
    title = f"maps of {images.root.name}"
    return over_images(model.attention_map, model, images, args, precision, title, InterpolationMode.BILINEAR)


def class_probabilities(model: torch.nn.Module, images: Images, args, precision: Precision) -> Tensor:
    """The probabilities of a set, ``[N, classes]``, from all patches of each image."""
    title = f"evaluating {images.root.name}"
    return over_images(lambda pixels: model.classify(pixels).float().softmax(-1), model, images, args, precision, title)
