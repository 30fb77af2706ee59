"""Metrics of a classifier on labelled images, all from scikit-learn."""

import math

import numpy as np
from sklearn import metrics as sk


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray, classes: list[str], ordered: bool = False) -> dict:
    """Metrics of all classes together and of each against the rest.

    A class without an image in ``labels`` is left out of every average, and named under ``"absent"``. What cannot be
    computed (the sensitivity for such a class, an AUC without images on both sides, the predictive value of a class that is
    never predicted) is None.

    Args:
        labels: ``[N]`` class indices.
        probabilities: ``[N, classes]``, rows adding up to 1; the most probable class is predicted.
        classes: names, in the order of the indices.
        ordered: the classes are grades in this order; adds the kappa with quadratic weights.

    Returns:
        Ready for JSON. Shares in [0, 1]: ``top1``; ``balanced_accuracy``, ``macro_f1``, ``macro_auc`` and
        ``average_precision``, means over classes; ``quadratic_kappa`` in [-1, 1] with ``ordered``. ``per_class``: for each
        name its ``images``, ``sensitivity``, ``specificity``, ``positive_predictive_value``, ``negative_predictive_value``,
        ``auc`` and ``average_precision``. ``confusion``: counts, a row for each true class. ``images``: N.
    """
    every = np.arange(len(classes))
    predictions = probabilities.argmax(1)
    present = np.unique(labels)
    per_class = {
        name: one_against_rest(labels == index, predictions == index, probabilities[:, index])
        for index, name in enumerate(classes)
    }
    metrics = {
        "images": len(labels),
        "top1": float(sk.accuracy_score(labels, predictions)),
        "balanced_accuracy": float(sk.recall_score(labels, predictions, labels=present, average="macro")),
        "macro_f1": float(sk.f1_score(labels, predictions, labels=present, average="macro", zero_division=0)),
        "macro_auc": _mean([row["auc"] for row in per_class.values()]),
        "average_precision": _mean([row["average_precision"] for row in per_class.values()]),
    }
    if ordered:
        kappa = _kappa(labels, predictions, every)
        metrics["quadratic_kappa"] = None if math.isnan(kappa) else kappa
    return metrics | {
        "absent": [name for index, name in enumerate(classes) if index not in present],
        "per_class": per_class,
        "confusion": sk.confusion_matrix(labels, predictions, labels=every).tolist(),
    }


def one_against_rest(truth: np.ndarray, called: np.ndarray, scores: np.ndarray) -> dict:
    """Metrics of one class against the rest, None where there is nothing to divide by.

    Args:
        truth: ``[N]`` bool, the images of the class.
        called: ``[N]`` bool, the images that are called so.
        scores: ``[N]`` the class's probabilities.
    """
    (tn, fp), (fn, tp) = sk.confusion_matrix(truth, called, labels=[False, True])
    return {
        "images": int(tp + fn),
        "sensitivity": share(tp, tp + fn),
        "specificity": share(tn, tn + fp),
        "positive_predictive_value": share(tp, tp + fp),
        "negative_predictive_value": share(tn, tn + fn),
        "auc": float(sk.roc_auc_score(truth, scores)) if 0 < truth.sum() < len(truth) else None,
        "average_precision": float(sk.average_precision_score(truth, scores)) if 0 < truth.sum() < len(truth) else None,
    }


def share(part: int, whole: int) -> float | None:
    """``part / whole``, or None of nothing."""
    return float(part / whole) if whole else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _kappa(labels: np.ndarray, predictions: np.ndarray, every: np.ndarray) -> float:
    """Cohen's kappa with quadratic weights; NaN where one and the same class is all that is true and predicted."""
    if len(np.union1d(labels, predictions)) < 2:
        return math.nan
    return float(sk.cohen_kappa_score(labels, predictions, labels=every, weights="quadratic"))
