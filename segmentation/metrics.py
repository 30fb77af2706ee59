"""How well predicted masks agree with true ones; each metric's name says what was averaged over what. Threshold 0.5."""

from math import isnan
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from util.data.tables import write_table
from util.evaluation.table import with_interval
from util.system.text import readable, write_json


class Counts(NamedTuple):
    """Pixels by truth and prediction, int64 tensors of one shape, such as ``[images, classes]``."""

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor


METRICS = ("iou", "dice", "sensitivity", "specificity")


def count(predicted: Tensor, masks: Tensor) -> Counts:
    """Count the pixels of each image and class: ``[B, classes, H, W]`` bool to :class:`Counts` of ``[B, classes]``."""
    predicted, true = predicted.flatten(2), masks.flatten(2)
    pairs = (predicted, true), (predicted, ~true), (~predicted, true), (~predicted, ~true)
    return Counts(*((a & b).sum(-1) for a, b in pairs))


def metrics_of(counts: Counts) -> dict[str, Tensor]:
    """IoU, Dice (which is F1), sensitivity and specificity, of the counts' shape, float64 in [0, 1].

    Where neither truth nor prediction has a pixel, IoU and Dice are 1. Sensitivity without a true pixel, and specificity
    without a false one, do not exist: NaN.
    """
    tp, fp, fn, tn = (each.double() for each in counts)
    empty = tp + fp + fn == 0
    return {
        "iou": torch.where(empty, 1.0, tp / (tp + fp + fn)),
        "dice": torch.where(empty, 1.0, 2 * tp / (2 * tp + fp + fn)),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
    }


def pooled(counts: Counts) -> Counts:
    """Counts of all images together."""
    return Counts(*(each.sum(0) for each in counts))


def weighted_mean(values: Tensor, weights: Tensor) -> float:
    """Mean of the values that exist (are not NaN), each by its weight."""
    there = ~values.isnan()
    return float((values * weights)[there].sum() / weights[there].sum())


def summary(counts: Counts, batch_size: int, classes: list[str]) -> dict:
    """All metrics of a set.

    Args:
        counts: of each image and class, ``[N, classes]``, in the order of the set.
        batch_size: of the batches that ``batch_averaged`` pools.
        classes: their names.

    Returns:
        ``per_image``: computed for each image, then averaged over images (those where they exist), then over classes;
        ``whole_set``: computed once from the pixels of all images together, then averaged over classes;
        ``batch_averaged``: computed from the pixels of each batch of consecutive images and of all classes together, then
        averaged over batches by their size, as the paper does; it depends on the batch size. ``per_class`` has the first
        two.
    """
    per_image = {name: values.nanmean(0) for name, values in metrics_of(counts).items()}
    whole_set = metrics_of(pooled(counts))
    batches = [
        Counts(*(part.sum().reshape(1) for part in each))
        for each in zip(*(each.split(batch_size) for each in counts), strict=True)
    ]
    sizes = torch.tensor([float(len(part)) for part in counts.tp.split(batch_size)])
    averaged = {name: weighted_mean(torch.cat([metrics_of(batch)[name] for batch in batches]), sizes) for name in METRICS}
    return {
        "images": len(counts.tp),
        "per_image": {name: float(values.nanmean()) for name, values in per_image.items()},
        "whole_set": {name: float(values.nanmean()) for name, values in whole_set.items()},
        "batch_averaged": {"batch_size": batch_size, **averaged},
        "per_class": {
            name: {
                "per_image": {metric: float(values[index]) for metric, values in per_image.items()},
                "whole_set": {metric: float(values[index]) for metric, values in whole_set.items()},
            }
            for index, name in enumerate(classes)
        },
    }


def write_results(folder: Path, results: dict, counts: Counts, paths: list[str], classes: list[str]) -> None:
    """Write ``metrics.json`` and ``predictions.csv``, a row an image and class."""
    write_json(folder / "metrics.json", results)
    values = metrics_of(counts)
    rows = []
    for row, path in enumerate(paths):
        for column, name in enumerate(classes):
            tp, fp, fn, _ = (int(each[row, column]) for each in counts)
            shown = [f"{float(values[metric][row, column]):.6f}" for metric in METRICS]
            rows.append([readable(path), name, *shown, tp + fn, tp + fp])
    write_table(folder / "predictions.csv", ["file", "class", *METRICS, "true pixels", "predicted pixels"], rows)


def table(results: dict) -> str:
    """The metrics as lines for a reader, IoU and Dice with their 95 % intervals."""
    ranges, batch_size = results["intervals"], results["batch_averaged"]["batch_size"]
    rows = {
        f"mean over {results['images']} images": (results["per_image"], ranges["per_image"]),
        "whole set, pixels pooled": (results["whole_set"], ranges["whole_set"]),
        f"batches of {batch_size} pooled, by their size": (results["batch_averaged"], {}),
    }
    if len(results["per_class"]) > 1:
        rows |= {
            f"class {name}, mean over images": (each["per_image"], ranges["per_class"][name]["per_image"])
            for name, each in results["per_class"].items()
        }
    lines = [f"{'in brackets 95 % intervals':<36}{'IoU':<26}{'Dice (F1)':<26}{'sensitivity':>11}{'specificity':>13}"]
    for title, (row, limits) in rows.items():
        overlaps = "".join(f"{with_interval(row[name], limits.get(name), percent=True):<26}" for name in ("iou", "dice"))
        lines.append(f"{title:<36}{overlaps}{percent(row['sensitivity']):>11}{percent(row['specificity']):>13}")
    return "\n".join(lines)


def percent(value: float) -> str:
    """A share in per cent; "-" for NaN, one that does not exist."""
    return "-" if isnan(value) else f"{100 * value:.2f} %"
