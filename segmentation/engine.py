"""One epoch of training, and the masks and figures of the validation set."""

import time

import torch
from torch import Tensor

from segmentation.data import Pairs, apply, resize
from segmentation.losses import LOSSES
from segmentation.metrics import Counts, count, summary
from segmentation.run import SegmentationRun
from util.data.augment import normalize
from util.data.loading import prepared
from util.system import distributed, interruption
from util.system.console import track
from util.training.epoch import training_steps
from util.training.log import Averages


def train_one_epoch(run: SegmentationRun, epoch: int) -> dict[str, float]:
    """Train for one epoch; return the means of what was measured. The loss is the mean over the model's heads."""
    stepper, loss_function = run.stepper, LOSSES[run.args.loss]
    run.trained.train()
    averages = Averages()
    start, images = time.monotonic(), 0
    for batch, last_of_window in training_steps(run, averages, epoch):
        masks = batch["masks"].float()
        with stepper.precision():
            logits = run.trained(batch["image"])
        loss = torch.stack([loss_function(each, masks) for each in logits.float()]).mean()
        stepper.backward(loss, last_of_window)
        averages.add(loss=loss)
        images += len(masks) * distributed.world_size()
    return {**averages.means(), **stepper.scaling(), "images_per_second": images / (time.monotonic() - start)}


@torch.no_grad()
def predict(run: SegmentationRun, pairs: Pairs) -> tuple[Tensor, Tensor, float]:
    """Predicted and true masks of a set at the input size, and the mean loss.

    Returns:
        ``[N, classes, h, w]`` uint8 probabilities in 1/255, the same of true masks (0 or 1), and the loss of the last head.

    Raises:
        Stopped: between batches, when a signal asked for it.
    """
    args, model = run.args, run.model
    transform = resize((args.input_h, args.input_w))
    was_training = model.training
    model.eval()
    found, true, losses = [], [], []
    own = -(-len(pairs) // distributed.world_size())
    batches = prepared(lambda index: apply(transform, *pairs[index]), range(len(pairs)), args.batch_size)
    for batch in track(batches, "evaluating", total=-(-own // args.batch_size), scale=args.batch_size):
        images, masks = (torch.stack(part) for part in zip(*batch, strict=True))
        with run.precision():
            logits = model(normalize(images.to(run.device, non_blocking=True)))[-1].float()
        on_device = masks.to(run.device).float()
        losses += [LOSSES[args.loss](one[None], mask[None]) for one, mask in zip(logits, on_device, strict=True)]
        found.append((logits.sigmoid() * 255).round().to(torch.uint8).cpu())
        true.append(masks)
        if interruption.asked() and distributed.world_size() == 1:  # several processes stop together, after a step
            raise interruption.Stopped(interruption.asked())
    model.train(was_training)
    gathered = [distributed.gather_rows(torch.cat(part), len(pairs)) for part in (found, true)]
    loss = distributed.gather_rows(torch.stack(losses).cpu(), len(pairs)).mean().item()
    return *gathered, loss


def evaluate(run: SegmentationRun) -> tuple[dict, Counts, Tensor, Tensor]:
    """Figures of :func:`segmentation.metrics.summary` with the ``loss``, the counts, and the masks of :func:`predict`."""
    found, true, loss = predict(run, run.val_pairs)
    counts = count(found > 127, true > 0)
    return {**summary(counts, run.args.batch_size, run.classes), "loss": loss}, counts, found, true
