"""How much an image of each class counts in the loss, or how often it is drawn (METHOD.md "Classes of unequal size")."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from util.system.console import say


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """The weight ``[classes]`` of each class's images: inverse to their number, and 1 on average over all images.

    Args:
        labels: ``[N]`` of the training images.
        classes: their number; one without images has weight 0.
    """
    counts = torch.bincount(labels, minlength=classes)
    weights = len(labels) / ((counts > 0).sum() * counts.clamp_min(1))
    return weights * (counts > 0)


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of a batch.

    With weights, an image's label counts as much as its class, and each label of a mixed image by its own class and its
    share. Only then is the label smoothed, so that smoothing spreads evenly over the classes. The sum over the images is
    divided by their number: weights are 1 on average over the training set, not over each batch.

    Args:
        logits: ``[B, classes]`` float32.
        targets: labels ``[B]``, of which -100 leaves an image out, or shares ``[B, classes]``, not smoothed.
        smoothing: of the labels.
        weights: ``[classes]`` of :func:`class_weights`; None: all alike.
    """
    if weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    images: Tensor | int = len(targets)
    if targets.ndim == 1:
        counted = targets >= 0
        images = counted.sum()
        targets = F.one_hot(targets.clamp_min(0), len(weights)) * counted[:, None]
    weighted = targets * weights
    smoothed = (1 - smoothing) * weighted + smoothing / len(weights) * weighted.sum(1, keepdim=True)
    return -(smoothed * logits.log_softmax(1)).sum() / images


class Balance:
    """What ``--balance`` makes of the classes of the training images; says so.

    Args:
        kind: "none", "loss" or "sampler".
        labels: ``[N]`` of the training images.
        classes: their names.
        device: of the loss.

    Attributes:
        loss_weights: ``[classes]`` on the device for :func:`cross_entropy`, under "loss"; else None.
        chances: ``[N]`` for :func:`util.data.loading.training_loader`, under "sampler"; else None.
    """

    def __init__(self, kind: str, labels: Tensor, classes: list[str], device: torch.device):
        self.labels, self.classes = labels, classes
        weights = class_weights(labels, len(classes))
        self.loss_weights = weights.to(device) if kind == "loss" else None
        self.chances = weights[labels] if kind == "sampler" else None
        if kind != "none":
            say(describe(kind, classes, weights))

    def summary(self, loader: DataLoader) -> dict:
        """For the log of an epoch, under "sampler": how many images of each class were drawn."""
        if self.chances is None:
            return {}
        drawn = torch.bincount(self.labels[loader.sampler.drawn()], minlength=len(self.classes))
        return {"drawn": dict(zip(self.classes, drawn.tolist(), strict=True))}


def describe(kind: str, classes: list[str], weights: Tensor) -> str:
    """A line on what ``--balance`` does with the training images."""
    ranked = sorted(zip(weights.tolist(), classes, strict=True), reverse=True)
    (most, rarest), (least, commonest) = ranked[0], ranked[-1]
    span = f"{most:.3g} times ({rarest}) to {least:.3g} times ({commonest})"
    if kind == "loss":
        return f"balance: in the loss, an image counts {span} as much as the average one"
    return f"balance: all classes are drawn alike, so that an image comes {span} as often as the average one"
