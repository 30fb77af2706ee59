"""Losses between logits and masks, both ``[B, classes, H, W]``."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1e-5


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - Dice of probabilities, computed for each image over all its classes' pixels, averaged over images."""
    probabilities, masks = logits.sigmoid().flatten(1), masks.flatten(1)
    overlap = (probabilities * masks).sum(1)
    dice = (2 * overlap + SMOOTH) / (probabilities.sum(1) + masks.sum(1) + SMOOTH)
    return 1 - dice.mean()


def bce_dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """0.5 x binary cross-entropy + (1 - Dice)."""
    return 0.5 * F.binary_cross_entropy_with_logits(logits, masks) + dice_loss(logits, masks)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "BCEDiceLoss": bce_dice_loss,
    "BCEWithLogitsLoss": F.binary_cross_entropy_with_logits,
}
