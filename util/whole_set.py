"""Passes over a whole set of un-augmented images without gradient: its maps, and its class probabilities."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode

from util import distributed
from util.augment import normalize
from util.data import Images, WholeImages, whole_loader
from util.optimisation import Precision
from util.progress import track


@torch.no_grad()
def over_images(
    compute: Callable[[Tensor], Tensor],
    model: torch.nn.Module,
    images: WholeImages,
    args,
    precision: Precision,
    title: str,
) -> Tensor:
    """``compute(batch)`` in evaluation mode for every image, in the order of the data set, on the CPU as float32."""
    was_training = model.training
    model.eval()
    rows = []
    loader = whole_loader(images, args.batch_size, args.num_workers, args.pin_mem)
    for batch in track(loader, title, scale=args.batch_size):
        pixels = normalize(batch["image"].to(precision.device, non_blocking=True))
        with precision():
            rows.append(compute(pixels).float())
    model.train(was_training)
    return distributed.gather_rows(torch.cat(rows).cpu(), len(images))


def attention_maps(model: torch.nn.Module, images: Images, args, precision: Precision) -> Tensor:
    """The maps of a set, ``[N, gh, gw]`` in [0, 1] (METHOD.md "The map")."""
    whole = WholeImages(images, args.input_size, InterpolationMode.BILINEAR)
    return over_images(model.attention_map, model, whole, args, precision, f"maps of {images.root.name}")


def class_probabilities(model: torch.nn.Module, images: Images, args, precision: Precision) -> Tensor:
    """The probabilities of a set, ``[N, classes]``, from all patches of each image."""
    whole = WholeImages(images, args.input_size)
    title = f"evaluating {images.root.name}"
    return over_images(lambda pixels: model.classify(pixels).float().softmax(-1), model, whole, args, precision, title)
