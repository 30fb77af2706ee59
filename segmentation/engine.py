"""One epoch of training, and the masks and metrics of the validation set."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from segmentation.data import Pairs, apply
from segmentation.metrics import Counts, count, summary
from util.data.augment import normalize
from util.data.loading import prepared
from util.system import distributed, interruption
from util.system.console import track
from util.system.device import Precision
from util.training.epoch import Epoch


def train_one_epoch(model: nn.Module, epoch: Epoch, loss_function: Callable[[Tensor, Tensor], Tensor]) -> dict[str, float]:
    """Train for one epoch; return the means of what was measured. The loss is the mean over the model's heads."""
    model.train()
    for batch in epoch:
        epoch.adjust_learning_rate()
        masks = batch["masks"].float()
        with epoch.precision():
            logits = model(batch["image"])
        loss = torch.stack([loss_function(each, masks) for each in logits.float()]).mean()
        epoch.step(loss)
    return epoch.summary()


@torch.no_grad()
def predict(
    model: nn.Module, pairs: Pairs, transform: v2.Transform, loss_function: Callable, batch_size: int, precision: Precision
) -> tuple[Tensor, Tensor, float]:
    """Predicted and true masks of a set at the input size, and the mean loss over its images.

    Args:
        model: a :class:`segmentation.setr.SETR` on the device of ``precision``.
        pairs: of the set.
        transform: of an image and its masks, to the input size.
        loss_function: between logits and masks ``[B, classes, h, w]``.
        batch_size: images in a batch.
        precision: of the forward pass.

    Returns:
        ``[N, classes, h, w]`` uint8 probabilities in 1/255, the same of true masks (0 or 1), and the loss of the last head.

    Raises:
        Stopped: between batches, when a signal asked for it.
    """
    was_training = model.training
    model.eval()
    predicted, true, losses = [], [], []
    of_this_process = -(-len(pairs) // distributed.world_size())
    batches = prepared(lambda index: apply(transform, *pairs[index]), range(len(pairs)), batch_size)
    for batch in track(batches, "evaluating", total=-(-of_this_process // batch_size), scale=batch_size):
        images, masks = (torch.stack(part) for part in zip(*batch, strict=True))
        with precision():
            pixels = normalize(images.to(precision.device, non_blocking=True), model.variant.mean, model.variant.std)
            logits = model(pixels)[-1].float()
        on_device = masks.to(precision.device).float()
        losses += [loss_function(one[None], mask[None]) for one, mask in zip(logits, on_device, strict=True)]
        predicted.append((logits.sigmoid() * 255).round().to(torch.uint8).cpu())
        true.append(masks)
        interruption.stop_if_asked()
    model.train(was_training)
    parts = [torch.cat(part) if part else None for part in (predicted, true)]
    parts.append(torch.stack(losses).cpu() if losses else None)
    predicted, true, losses = (distributed.gather_rows(part, len(pairs)) for part in parts)
    return predicted, true, losses.mean().item()


def evaluate(
    model: nn.Module, pairs: Pairs, transform: v2.Transform, loss_function: Callable, batch_size: int, precision: Precision
) -> tuple[dict, Counts, Tensor, Tensor]:
    """Metrics of :func:`segmentation.metrics.summary` with the ``loss``, the counts, and the masks of :func:`predict`."""
    predicted, true, loss = predict(model, pairs, transform, loss_function, batch_size, precision)
    counts = count(predicted > 127, true > 0)
    return {**summary(counts, batch_size, pairs.classes), "loss": loss}, counts, predicted, true
