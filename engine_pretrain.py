"""Pre-training: one epoch of steps (METHOD.md "Pre-training")."""

import torch
from torch import Tensor, nn

from util.masking import SAM, Split, weight_shares
from util.training.epoch import Epoch

NO_LABEL = -100  # what PyTorch's cross-entropy leaves out


def train_one_epoch(
    model: nn.Module,
    epoch: Epoch,
    masking: SAM,
    *,
    random_share: float,
    class_weight: float,
    balance: Tensor | None = None,
) -> dict[str, float]:
    """Train for one epoch; return the means of what was measured.

    Args:
        model: a :class:`models_msmae.MaskedAutoencoder`, maybe wrapped for several processes.
        epoch: gives the batches and takes the steps.
        masking: how much is masked and thrown.
        random_share: share of each batch whose patches are chosen at random, 0 to 1; of the others, the images' maps
            choose them. Between 0 and 1, the head learns from the former alone: it need not name a lesion that SAM hides
            from it (METHOD.md "SAM").
        class_weight: of the class loss beside the pixel loss.
        balance: ``[classes]``, how much each class's images count in the class loss; None: all alike.
    """
    model.train()
    for batch in epoch:
        epoch.adjust_learning_rate()
        weights, labels = batch["weights"], batch["label"]
        at_random = round(random_share * len(labels))
        split = masking.split(weights, batch["noise"], at_random)
        supervised, shares = labels, {}
        if at_random:
            supervised = first_only(labels, at_random)
        if at_random < len(labels):
            shares = weight_shares(weights[at_random:], Split(*(part[at_random:] for part in split)))
        with epoch.precision():
            output = model(batch["image"], split, supervised, balance)
        loss = output.reconstruction + class_weight * output.classification
        epoch.step(
            loss,
            loss_pixels=output.reconstruction,
            loss_class=output.classification,
            train_top1=(output.logits.argmax(-1) == labels).float().mean(),
            **shares,
        )
    return epoch.summary()


def first_only(labels: Tensor, count: int) -> Tensor:
    """Labels ``[B]`` of which only the first ``count`` are supervised."""
    return labels.index_fill(0, torch.arange(count, len(labels), device=labels.device), NO_LABEL)
