"""The bootstrap: random sets of the same images, or of the same patients, and the metrics of each set at once.

A resample is a row of counts, how often each image is in it, so that metrics of a thousand resamples are a few sums over
arrays. Each value equals scikit-learn's on the images as counted (``tests/evaluation/test_intervals.py``).
"""

from collections.abc import Iterator, Sequence

import numpy as np

CELLS = 2_000_000  # counts held at once: resamples x images


def resample_counts(
    images: int, patients: Sequence[str] | None = None, resamples: int = 1000, seed: int = 0
) -> Iterator[np.ndarray]:
    """Draw as many images as there are, with replacement and regardless of class; or patients, each with all its images.

    Args:
        images: their number, N.
        patients: ``N`` names, or None to draw images.
        resamples: how many resamples.
        seed: the same seed, images and patients give the same resamples.

    Yields:
        ``[some resamples, N]`` float64, how often each image was drawn.
    """
    names, group = np.unique(patients, return_inverse=True) if patients is not None else (range(images), None)
    rng, units, rows = np.random.default_rng(seed), len(names), max(1, CELLS // images)
    for start in range(0, resamples, rows):
        number = min(rows, resamples - start)
        drawn = rng.integers(units, size=(number, units)) + units * np.arange(number)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=number * units).reshape(number, units).astype(float)
        yield counts if group is None else counts[:, group]


def metrics_of_resamples(
    counts: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, ordered: bool = False
) -> dict[str, np.ndarray]:
    """The metrics of :func:`util.evaluation.metrics.classification_metrics` in each resample.

    Where a resample lacks a class, its averages are over the classes that it has; the class's own metrics are NaN there.

    Args:
        counts: ``[R, N]`` how often each image is in each resample.
        labels: ``[N]`` class indices; probabilities: ``[N, classes]``.
        ordered: adds ``quadratic_kappa``.

    Returns:
        By name, ``[R]`` for ``top1``, ``balanced_accuracy``, ``macro_f1``, ``macro_auc``, ``average_precision``,
        ``quadratic_kappa``, and ``[R, classes]`` for a ``"class_"`` metric of each class.
    """
    confusion = confusions(counts, labels, probabilities.argmax(1), probabilities.shape[1])
    rows, columns = confusion.sum(2), confusion.sum(1)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    total = rows.sum(1, keepdims=True)
    areas = [ranking(counts, labels == index, probabilities[:, index]) for index in range(probabilities.shape[1])]
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN, "not defined in this resample"
        true_negatives = total - rows - columns + right
        per_class = {
            "sensitivity": right / rows,
            "specificity": true_negatives / (total - rows),
            "positive_predictive_value": right / columns,
            "negative_predictive_value": true_negatives / (total - columns),
            "auc": np.stack([auc for auc, _ in areas], axis=1),
            "average_precision": np.stack([precision for _, precision in areas], axis=1),
        }
        f1 = np.where(rows > 0, 2 * right / (rows + columns), np.nan)
        metrics = {
            "top1": right.sum(1) / total[:, 0],
            "balanced_accuracy": mean_over_known(per_class["sensitivity"]),
            "macro_f1": mean_over_known(f1),
            "macro_auc": mean_over_known(per_class["auc"]),
            "average_precision": mean_over_known(per_class["average_precision"]),
        }
        if ordered:
            metrics["quadratic_kappa"] = kappas(confusion)
    return metrics | {f"class_{name}": values for name, values in per_class.items()}


def confusions(counts: np.ndarray, labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Confusion matrices ``[R, classes, classes]`` of resamples, a row for each true class."""
    cell = labels * classes + predictions
    order = np.argsort(cell, kind="stable")
    there, starts = np.unique(cell[order], return_index=True)
    cells = np.zeros((len(counts), classes * classes))
    cells[:, there] = np.add.reduceat(counts[:, order], starts, axis=1)
    return cells.reshape(-1, classes, classes)


def ranking(counts: np.ndarray, truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision of resamples, each ``[R]``; NaN where a side has no image.

    Args:
        counts: ``[R, N]``; truth: ``[N]`` bool; scores: ``[N]``, higher for those that should be true.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan))  # of images with equal scores: one threshold
    counts = counts[:, order]
    positives = np.add.reduceat(counts * truth[order], starts, axis=1)
    called = np.add.reduceat(counts, starts, axis=1)
    negatives = called - positives
    hits, called = positives.cumsum(1), called.cumsum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # a negative counts the positives above it, and half of those beside it
        area = (negatives * (hits - positives / 2)).sum(1) / (hits[:, -1] * negatives.sum(1))
        precision = (positives * hits / np.maximum(called, 1)).sum(1) / hits[:, -1]
        precision[negatives.sum(1) == 0] = np.nan
    return area, precision


def kappas(confusion: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights of confusion matrices ``[R, classes, classes]``; NaN if all is one class."""
    grades = np.arange(confusion.shape[1])
    weights = (grades[:, None] - grades) ** 2
    by_chance = confusion.sum(2)[:, :, None] * confusion.sum(1)[:, None, :] / confusion.sum((1, 2))[:, None, None]
    return 1 - (weights * confusion).sum((1, 2)) / (weights * by_chance).sum((1, 2))


def mean_over_known(values: np.ndarray) -> np.ndarray:
    """Row means of ``[R, classes]`` without NaN; NaN where all are."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(1) / known.sum(1)
