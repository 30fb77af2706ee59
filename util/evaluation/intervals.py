"""95 % intervals of a classifier's metrics: the bootstrap over images or patients, and Clopper and Pearson's for shares."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit
from scipy.stats import binomtest, norm

from util.evaluation.resampling import metrics_of_resamples, resample_counts

Interval = list[float] | None  # low and high; None where the metric is not defined


def intervals(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: list[str],
    patients: Sequence[str] | None = None,
    ordered: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Intervals of the metrics of :func:`util.evaluation.metrics.classification_metrics`, under the same names.

    Metrics of all classes together, and each class's AUC and average precision, have an interval from the bootstrap over
    images, drawn regardless of class (:func:`bootstrap_interval`). In a resample that lacks a class, means over classes are
    over those that it has, as scikit-learn would give for these images; a class's own AUC is not defined there, and that
    resample does not count for it. Sensitivity, specificity and predictive values are shares of independent images and have
    the exact interval of Clopper and Pearson.

    Images of one patient are not independent. With ``patients``, patients are drawn, each with all its images, and shares
    have the bootstrap's intervals too. A share of 0 or 1 has no spread in resamples; its interval is then the exact one for
    as many cases as the share has patients.

    An interval without width means that no resample differed, as with an AUC of 1, and not that the metric is certain. One
    patient, or one image, tells nothing of others: there is no interval from the bootstrap then.

    Args:
        labels: ``[N]`` class indices; probabilities: ``[N, classes]``; classes: names.
        patients: ``N`` names, or None where each image counts as a patient of its own.
        ordered: also of ``quadratic_kappa``.
        resamples: of the bootstrap; ``seed``: of their draw.

    Returns:
        ``{"top1": [low, high], ..., "per_class": {NAME: {"sensitivity": [low, high], ...}}}``, ready for JSON, None for
        what is not defined.
    """

    def of_resamples(counts: np.ndarray) -> dict[str, np.ndarray]:
        return metrics_of_resamples(counts, labels, probabilities, ordered)

    parts = [of_resamples(counts) for counts in resample_counts(len(labels), patients, resamples, seed)]
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    whole = {name: value[0] for name, value in of_resamples(np.ones((1, len(labels)))).items()}
    predictions = probabilities.argmax(1)
    right = predictions == labels
    alone = of_one(labels, patients)

    def spread(value: float, resampled: np.ndarray, lowest: float = 0) -> Interval:
        return None if alone else bootstrap_interval(value, resampled, lowest=lowest)

    result = {
        name: spread(whole[name], value, lowest=-1 if name == "quadratic_kappa" else 0)
        for name, value in values.items()
        if value.ndim == 1
    }
    if right.all() or not right.any():
        result["top1"] = share_interval(right, np.ones_like(right), patients)
    per_class = {}
    for index, name in enumerate(classes):
        truth, called = labels == index, predictions == index
        per_class[name] = {
            metric: share_interval(*of(truth, called), patients, resampled=values[f"class_{metric}"][:, index])
            for metric, of in SHARES.items()
        } | {
            metric: spread(whole[f"class_{metric}"][index], values[f"class_{metric}"][:, index])
            for metric in ("auc", "average_precision")
        }
    return result | {"per_class": per_class}


# Of the images of a class (truth) and those called so (called): what is counted, and among which images
SHARES = {
    "sensitivity": lambda truth, called: (called, truth),
    "specificity": lambda truth, called: (~called, ~truth),
    "positive_predictive_value": lambda truth, called: (truth, called),
    "negative_predictive_value": lambda truth, called: (~truth, ~called),
}


def of_one(labels: np.ndarray, patients: Sequence[str] | None) -> bool:
    """Whether all images are of one patient, or there is one image: it tells nothing of others."""
    return len(set(patients) if patients else labels) < 2


def share_interval(
    counted: np.ndarray,
    among: np.ndarray,
    patients: Sequence[str] | None = None,
    confidence: float = 0.95,
    resampled: np.ndarray | None = None,
) -> Interval:
    """The interval of the share of images that are ``counted``, among some of them.

    Args:
        counted, among: ``[N]`` bool.
        patients: ``N`` names, or None if images are independent.
        confidence: of the interval.
        resampled: the share in each resample of patients, if it is known already.
    """
    total, hits = int(among.sum()), int((counted & among).sum())
    if total == 0:
        return None
    if patients is None:
        return clopper_pearson(hits, total, confidence)
    if hits in (0, total):
        cases = len(set(np.asarray(patients)[among]))
        return clopper_pearson(cases if hits else 0, cases, confidence)
    if len(set(patients)) < 2:
        return None
    if resampled is None:
        drawn = list(resample_counts(len(among), patients))
        with np.errstate(invalid="ignore"):
            resampled = np.concatenate([(counts @ (counted & among)) / (counts @ among) for counts in drawn])
    return bootstrap_interval(hits / total, resampled, confidence)


def clopper_pearson(hits: int, total: int, confidence: float = 0.95) -> list[float]:
    """The exact interval of a share of independent cases, ``hits`` of ``total``."""
    low, high = binomtest(hits, total).proportion_ci(confidence, method="exact")
    return [float(low), float(high)]


def bootstrap_interval(value: float, resampled: np.ndarray, confidence: float = 0.95, lowest: float = 0) -> Interval:
    """The interval of a metric that ends at 1, from its spread over resamples.

    It is symmetric about the metric in log odds, where it is closer to normal than as it stands (Pepe, The Statistical
    Evaluation of Medical Tests, 2003, for the AUC). The percentiles of resamples miss the truth more often where a metric
    is near 1; ``tests/evaluation/coverage.py`` counts how often.

    Args:
        value: the metric of all images; NaN if it is not defined.
        resampled: ``[R]``, its values in resamples; NaN for those in which it is not defined.
        confidence: of the interval.
        lowest: the metric's least value.
    """
    known = resampled[~np.isnan(resampled)]
    if np.isnan(value) or not len(known):
        return None
    odds = logit((value - lowest) / (1 - lowest))
    if not np.isfinite(odds):
        return percentile_interval(known, confidence)
    reach = norm.ppf((1 + confidence) / 2) * known.std() * (1 - lowest) / ((value - lowest) * (1 - value))
    return [float(lowest + (1 - lowest) * expit(edge)) for edge in (odds - reach, odds + reach)]


def percentile_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """The middle ``confidence`` of the values that are not NaN; None if all are."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    return [float(edge) for edge in np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])]
