"""95 % intervals of IoU, Dice, sensitivity and specificity, from the bootstrap over images."""

import numpy as np
import torch

from segmentation.metrics import METRICS, Counts, metrics_of
from util.evaluation.intervals import Interval, bootstrap_interval
from util.evaluation.resampling import mean_over_known, resample_counts

KINDS = ("per_image", "whole_set")


def intervals(counts: Counts, classes: list[str], resamples: int = 1000, seed: int = 0) -> dict:
    """Intervals of what :func:`segmentation.metrics.summary` gives as ``per_image`` and ``whole_set``, by the same names.

    How much a metric varies over random sets of the same images, drawn with replacement
    (:func:`util.evaluation.intervals.bootstrap_interval`). ``batch_averaged`` has none: it depends on the order of images.

    Args:
        counts: of each image and class, ``[N, classes]``.
        classes: their names.
        resamples: of the bootstrap; seed: of their draw.

    Returns:
        ``{"per_image": {"iou": [low, high], ...}, "whole_set": ..., "per_class": {NAME: {"per_image": ..., ...}}}``; None
        for what is not defined, and for all of a single image, which tells nothing of others.
    """
    images = len(counts.tp)
    parts = [weighted(counts, torch.from_numpy(drawn)) for drawn in resample_counts(images, None, resamples, seed)]
    whole = weighted(counts, torch.ones(1, images, dtype=torch.float64))

    def interval(kind: str, name: str, index: int | None = None) -> Interval:
        if images < 2:
            return None
        values, value = np.concatenate([part[kind, name] for part in parts]), whole[kind, name]
        if index is not None:
            return bootstrap_interval(value[0, index], values[:, index])
        return bootstrap_interval(mean_over_known(value)[0], mean_over_known(values))

    return {
        **{kind: {name: interval(kind, name) for name in METRICS} for kind in KINDS},
        "per_class": {
            class_name: {kind: {name: interval(kind, name, index) for name in METRICS} for kind in KINDS}
            for index, class_name in enumerate(classes)
        },
    }


def weighted(counts: Counts, weights: torch.Tensor) -> dict[tuple[str, str], np.ndarray]:
    """The metrics of sets in which each image occurs as often as ``weights`` ``[R, N]`` says, each ``[R, classes]``.

    NaN where a metric is not defined in a set.
    """
    metrics = {}
    for name, values in metrics_of(counts).items():
        there = (~values.isnan()).double()
        metrics["per_image", name] = ((weights @ values.nan_to_num(0)) / (weights @ there)).numpy()
    for name, values in metrics_of(Counts(*(weights @ each.double() for each in counts))).items():
        metrics["whole_set", name] = values.numpy()
    return metrics
