"""Passes over a set of un-augmented images without gradient: class probabilities, and whatever else is asked of each."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from util.data.augment import normalize
from util.data.images import Images
from util.data.loading import whole_batches
from util.system import distributed, interruption
from util.system.console import track
from util.training.optimisation import Precision


@torch.no_grad()
def over_images(
    compute: Callable[[Tensor, Tensor], Tensor],
    model: torch.nn.Module,
    images: Images,
    args,
    precision: Precision,
    title: str,
    chosen: Sequence[int] | None = None,
) -> Tensor:
    """``compute(pixels, labels)`` in evaluation mode for whole images in their order, on the CPU as float32.

    Args:
        compute: takes ``[B, 3, S, S]``, normalised, and ``[B]``, on the device; gives ``[B, ...]``.
        model: put into evaluation mode meanwhile.
        images: of which ``chosen``, indices, are used (None: all).
        args: ``input_size`` and ``batch_size``.
        precision: of the model's products.
        title: of the progress bar.

    Raises:
        Stopped: between batches, when a signal asked for it.
    """
    was_training = model.training
    model.eval()
    rows = []
    total = len(images) if chosen is None else len(chosen)
    batches = whole_batches(images, args.input_size, args.batch_size, chosen)
    own = -(-total // distributed.world_size())
    for batch, labels in track(batches, title, total=-(-own // args.batch_size), scale=args.batch_size):
        pixels = normalize(batch.to(precision.device, non_blocking=True))
        with precision():
            rows.append(compute(pixels, labels.to(precision.device, non_blocking=True)).float())
        if interruption.asked() and distributed.world_size() == 1:  # several processes stop together, after a step
            raise interruption.Stopped(interruption.asked())
    model.train(was_training)
    return distributed.gather_rows(torch.cat(rows).cpu(), total)


def class_probabilities(model: torch.nn.Module, images: Images, args, precision: Precision) -> Tensor:
    """The probabilities of a set, ``[N, classes]``, from all patches of each image."""

    def compute(pixels: Tensor, _: Tensor) -> Tensor:
        return model.classify(pixels).float().softmax(-1)

    return over_images(compute, model, images, args, precision, f"evaluating {images.root.name}")
