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
    by_map: bool,
    class_weight: float,
    random_share: float = 0.0,
    balance: Tensor | None = None,
) -> dict[str, float]:
    """Train for one epoch; return the means of what was measured.

    Args:
        model: a :class:`models_msmae.MaskedAutoencoder`, maybe wrapped for several processes.
        epoch: gives the batches and takes the steps.
        masking: how much is masked and thrown.
        by_map: SAM chooses the patches by the images' maps; if not, they are chosen at random.
        class_weight: of the class loss beside the pixel loss.
        random_share: share of each batch that SAM leaves to random masking. Above 0, the head learns from that part alone:
            it need not name a lesion that SAM hides from it (METHOD.md "SAM").
        balance: ``[classes]``, how much each class's images count in the class loss; None: all alike.
    """
    model.train()
    for batch in epoch:
        epoch.adjust_learning_rate()
        weights, labels = batch["weights"], batch["label"]
        at_random, supervised, shares = 0, labels, {}
        if by_map:
            at_random = round(random_share * len(labels))
            split = masking.split(weights, batch["noise"], at_random)
            shares = weight_shares(weights[at_random:], Split(*(part[at_random:] for part in split)))
        else:
            split = masking.split_at_random(batch["noise"])
        if at_random:
            supervised = first_only(labels, at_random)
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
