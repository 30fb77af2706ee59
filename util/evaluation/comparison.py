"""Two classifiers on the same images: how much better is one, and may that be chance?"""

import os
from pathlib import PurePath

import numpy as np
from scipy.stats import binomtest

from util.evaluation.intervals import of_one, percentile_interval
from util.evaluation.metrics import classification_metrics
from util.evaluation.predictions import Predictions
from util.evaluation.resampling import metrics_of_resamples, resample_counts
from util.system.errors import InputError


def align(a: Predictions, b: Predictions) -> Predictions:
    """``b`` with its images and classes in the order of ``a``'s, if they are the same.

    The same images under another path, such as a relative one or a copy of the data set, are recognised by their names from
    the last folder on that all images of an evaluation share.

    Raises:
        InputError: naming the first image that one lacks, or that has two labels or patients.
    """
    if sorted(a.classes) != sorted(b.classes):
        raise InputError(f"A and B differ in their classes: {', '.join(a.classes)}; {', '.join(b.classes)}")
    names_a, names_b = a.files, b.files
    if set(names_a).isdisjoint(names_b):
        names_a, names_b = names_in_set(a.files), names_in_set(b.files)
    position = {name: index for index, name in enumerate(names_b)}
    known = set(names_a)
    for here, there, names, others in (("A", "B", names_a, position), ("B", "A", names_b, known)):
        missing = next((name for name in names if name not in others), None)
        if missing is not None:
            raise InputError(f"A and B are not of the same images: {missing} is in {here} and not in {there}")
    order = [position[name] for name in names_a]
    columns = [b.classes.index(name) for name in a.classes]
    labels, truth = np.argsort(columns)[b.truth[order]], a.truth
    for index in np.flatnonzero(labels != truth):
        raise InputError(f"{names_a[index]} is labelled {a.classes[truth[index]]} in A and {a.classes[labels[index]]} in B")
    patients = [b.patients[index] for index in order] if b.patients else None
    if a.patients and patients:
        for name, one, other in zip(names_a, a.patients, patients, strict=True):
            if one != other:
                raise InputError(f"{name} is of patient {one} in A and of {other} in B")
    return Predictions(a.files, b.probabilities[order][:, columns], a.classes, labels, patients)


def names_in_set(files: list[str]) -> list[str]:
    """The files' paths from the last folder on that they share."""
    paths = [os.path.normpath(name) for name in files]
    try:
        shared = PurePath(os.path.commonpath([os.path.dirname(path) for path in paths]))
    except ValueError:  # absolute and relative ones
        return paths
    return [PurePath(path).relative_to(shared.parent).as_posix() for path in paths]


def compare(a: Predictions, b: Predictions, ordered: bool = False, resamples: int = 1000, seed: int = 0) -> dict:
    """Metrics of both, their differences with 95 % intervals, and McNemar's exact test of their right answers.

    Both are resampled alike, by patient where patients are known, so that what makes an image hard for both cancels out.

    Args:
        a, b: aligned (:func:`align`), with labels.
        ordered: adds the quadratic kappa.
        resamples: of the bootstrap; ``seed``: of their draw.

    Returns:
        ``images``, ``patients`` (number, or None); ``metrics``: by name ``a``, ``b``, ``difference`` (b - a) and
        ``interval`` of it (None by :func:`of_one`), without those that are not defined; ``only_a``, ``only_b``: images that
        only one classifies right; ``p``: of McNemar's test, whether such images fall to both alike.
    """
    labels, patients = a.truth, a.patients or b.patients
    whole = [classification_metrics(labels, each.probabilities, a.classes, ordered) for each in (a, b)]
    drawn: dict[str, list[np.ndarray]] = {}
    for counts in resample_counts(len(labels), patients, resamples, seed):
        one, other = (metrics_of_resamples(counts, labels, each.probabilities, ordered) for each in (a, b))
        for name in one:
            drawn.setdefault(name, []).append(other[name] - one[name])
    metrics, alone = {}, of_one(labels, patients)
    for name in (name for name in drawn if not name.startswith("class_")):
        one, other, interval = whole[0][name], whole[1][name], percentile_interval(np.concatenate(drawn[name]))
        if one is not None and other is not None and interval is not None:
            metrics[name] = {"a": one, "b": other, "difference": other - one, "interval": None if alone else interval}
    right_a, right_b = (each.probabilities.argmax(1) == labels for each in (a, b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return {
        "images": len(labels),
        "patients": len(set(patients)) if patients else None,
        "metrics": metrics,
        "only_a": only_a,
        "only_b": only_b,
        "p": float(binomtest(only_b, only_a + only_b).pvalue) if only_a + only_b else 1.0,
    }
