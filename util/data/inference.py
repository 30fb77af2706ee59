"""Passes of whole images through a model, without gradient: not augmented, resized to the input size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from util.data.augment import normalize
from util.data.loading import WholeImages, whole_batches
from util.system import distributed, interruption
from util.system.console import track
from util.system.device import Precision


@dataclass(frozen=True)
class Inference:
    """How whole images pass through a model.

    Args:
        input_size: side in pixels that images are resized to.
        batch_size: images in a batch.
        precision: of the model's products; it knows the device.
    """

    input_size: int
    batch_size: int
    precision: Precision

    @torch.no_grad()
    def over(
        self,
        compute: Callable[[Tensor], Tensor],
        model: torch.nn.Module,
        images: WholeImages,
        title: str,
        chosen: Sequence[int] | None = None,
    ) -> Tensor:
        """``compute(pixels)`` in evaluation mode for each image in order, ``[N, ...]`` float32 on the CPU.

        Args:
            compute: takes ``[B, 3, S, S]``, normalised, on the device; gives ``[B, ...]``.
            model: put into evaluation mode meanwhile; its ``variant`` says how pixels are normalised.
            images: of which ``chosen``, indices, are used (None: all).
            title: of the progress bar.

        Raises:
            Stopped: between batches, when a signal asked for it.
        """
        was_training = model.training
        model.eval()
        rows = []
        total = len(images) if chosen is None else len(chosen)
        batches = whole_batches(images, self.input_size, self.batch_size, chosen)
        of_this_process = -(-total // distributed.world_size())
        for batch in track(batches, title, total=-(-of_this_process // self.batch_size), scale=self.batch_size):
            on_device = batch.to(self.precision.device, non_blocking=True)
            pixels = normalize(on_device, model.variant.mean, model.variant.std)
            with self.precision():
                rows.append(compute(pixels).float())
            interruption.stop_if_asked()
        model.train(was_training)
        return distributed.gather_rows(torch.cat(rows).cpu() if rows else None, total)

    def probabilities(self, model: torch.nn.Module, images: WholeImages) -> Tensor:
        """The class probabilities of a set, ``[N, classes]``, from all patches of each image."""

        def compute(pixels: Tensor) -> Tensor:
            return model.classify(pixels).float().softmax(-1)

        return self.over(compute, model, images, f"evaluating {images.split}")
