"""Fine-tuning: one epoch of steps on SAM's visible patches, and the evaluation on all of them (METHOD.md "Fine-tuning")."""

import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn

from util.data.augment import mix_batch
from util.data.images import Images
from util.data.inference import Inference
from util.data.loading import WholeImages
from util.masking import SAM, weight_shares
from util.training.balance import cross_entropy
from util.training.epoch import Epoch


def train_one_epoch(
    model: nn.Module,
    epoch: Epoch,
    sam: SAM,
    *,
    masking: str,
    smoothing: float,
    balance: Tensor | None = None,
    mixup: Mixup | None = None,
    erasing: RandomErasing | None = None,
) -> dict[str, float]:
    """Train for one epoch; return the means of what was measured. The encoder computes the visible patches only.

    Args:
        model: a :class:`models_vit.VisionTransformer`, maybe wrapped for several processes.
        epoch: gives the batches and takes the steps.
        sam: the rule that hides patches.
        masking: what chooses them: "attention" (SAM by the images' maps), "random" (as many) or "none" (all are visible).
        smoothing: of the labels; those that ``mixup`` has smoothed are left as they are.
        balance: ``[classes]``, how much each class's images count in the loss; None: all alike.
        mixup: mixes a batch and its labels.
        erasing: replaces parts of the images.
    """
    model.train()
    for batch in epoch:
        epoch.adjust_learning_rate()
        images, weights, targets = batch["image"], batch["weights"], batch["label"]
        if erasing:
            images = erasing(images)
        if mixup:
            images, weights, targets = mix_batch(mixup, images, weights, targets)
        visible, shares = None, {}
        if masking == "attention":
            split = sam.split(weights, batch["noise"])
            visible, shares = split.visible, weight_shares(weights, split)
        elif masking == "random":
            visible = sam.split_at_random(batch["noise"]).visible
        with epoch.precision():
            logits = model(images, visible)
        smoothed = mixup and mixup.label_smoothing
        loss = cross_entropy(logits.float(), targets, 0.0 if smoothed else smoothing, balance)
        epoch.step(loss, train_top1=(logits.argmax(-1) == batch["label"]).float().mean(), **shares)
    return epoch.summary()


def outputs(model: nn.Module, images: WholeImages, inference: Inference) -> tuple[Tensor, Tensor]:
    """Logits ``[N, classes]`` from all patches of each image, and the features ``[N, D]`` that the head reads."""
    number = model.head.out_features

    def compute(pixels: Tensor) -> Tensor:
        features = model.forward_head(model.forward_features(pixels), pre_logits=True)
        return torch.cat([model.head(features).float(), features.float()], dim=1)

    logits, features = inference.over(compute, model, images, f"evaluating {images.split}").tensor_split([number], dim=1)
    return logits, features


def measure(images: Images, probabilities: Tensor, ordered: bool = False) -> dict:
    """The metrics of a set from its probabilities ``[N, classes]``, with the ``loss``; ``ordered``: classes are grades."""
    from util.evaluation.metrics import classification_metrics  # scikit-learn, which takes a second to load

    results = classification_metrics(images.labels.numpy(), probabilities.numpy(), images.classes, ordered)
    results["loss"] = F.nll_loss(probabilities.clamp_min(1e-12).log(), images.labels).item()
    return results


def evaluate(model: nn.Module, images: Images, inference: Inference) -> tuple[dict, Tensor]:
    """How well a model classifies a set: the metrics with the ``loss``, and the probabilities ``[N, classes]``."""
    probabilities = outputs(model, images, inference)[0].softmax(-1)
    return measure(images, probabilities), probabilities
