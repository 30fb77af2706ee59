"""A cut-off on one class's probability: chosen on some images, applied to others, and what a positive result then means."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_curve

from util.evaluation.intervals import SHARES, share_interval
from util.evaluation.metrics import one_against_rest
from util.system.errors import InputError

BOTH = 0.975  # confidence of each of two intervals that together hold both values in 95 %


class Cutoff(NamedTuple):
    """Images whose probability of one class is at least ``value`` are called positive.

    Attributes:
        positive: the class.
        value: of its probability.
        rule: what it was chosen for, in :func:`choose_cutoff`'s words.
    """

    positive: str
    value: float
    rule: str


def check_rule(rule: str) -> tuple[str, float | None]:
    """``"youden"``, ``"sensitivity=0.95"`` or ``"specificity=0.9"`` as a name and the value wanted, in (0, 1], or None.

    Raises:
        InputError: for anything else.
    """
    name, _, text = rule.partition("=")
    try:
        wanted = float(text) if text else None
    except ValueError:
        wanted = None
    if (name == "youden" and rule == name) or (name in ("sensitivity", "specificity") and wanted and 0 < wanted <= 1):
        return name, wanted
    raise InputError(f"cut-off {rule}: write youden, sensitivity=S or specificity=S with S above 0 and up to 1")


def check_positive(positive: str | None, classes: list[str]) -> str:
    """The class that a cut-off is for: the one given, or the second of two.

    Raises:
        InputError: if it is unknown, or not given while there are more than two.
    """
    if positive is None and len(classes) == 2:
        return classes[1]
    if positive is None:
        raise InputError(f"a cut-off is for one class against the rest: say which by --positive: {', '.join(classes)}")
    if positive not in classes:
        raise InputError(f"no class {positive} for a cut-off (--positive): there are {', '.join(classes)}")
    return positive


def check_both_sides(labels: np.ndarray, classes: list[str], positive: str) -> None:
    """Raise :class:`InputError` unless a cut-off can be chosen on these images: some are of the class, some of others."""
    cases = int((labels == classes.index(positive)).sum())
    if cases in (0, len(labels)):
        raise InputError(
            f"a cut-off for {positive} needs images of {positive} and others; here are {cases} of {len(labels)}"
        )


def choose_cutoff(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str], rule: str, positive: str | None = None
) -> Cutoff:
    """The cut-off that fits a rule best on these images.

    It lies midway between two neighbouring probabilities, so that no image used here is on its edge.

    Args:
        labels: ``[N]`` class indices, of images that no metric is reported on.
        probabilities: ``[N, classes]``; classes: names.
        rule: ``"sensitivity=S"``: the highest cut-off with a sensitivity of at least S; ``"specificity=S"``: the lowest
            with a specificity of at least S; ``"youden"``: the one with the largest sum of both.
        positive: the class; may be left out of two, where it is the second.

    Raises:
        InputError: if the images are all of the class, or all of others.
    """
    name, wanted = check_rule(rule)
    positive = check_positive(positive, classes)
    check_both_sides(labels, classes, positive)
    truth, scores = labels == classes.index(positive), probabilities[:, classes.index(positive)].astype(np.float64)
    false, true, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    if wanted is None:
        chosen = np.argmax(true - false)
    elif name == "sensitivity":
        chosen = np.flatnonzero(true >= wanted)[0]
    else:
        chosen = np.flatnonzero(1 - false >= wanted - 1e-12)[-1]
    thresholds[0] = 1 if thresholds[1] < 1 else 2  # beyond all: nothing is called positive
    edges = np.append(thresholds, 0.0)
    return Cutoff(positive, float(edges[chosen : chosen + 2].mean()), rule)


def cutoff_metrics(
    cutoff: Cutoff,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: list[str],
    patients: Sequence[str] | None = None,
    prevalence: float | None = None,
) -> dict:
    """What a cut-off does on other images, with 95 % intervals.

    Predictive values hold where the class is as frequent as among these images. With a ``prevalence`` they are those of a
    population in which it is that frequent, by Bayes' rule from sensitivity and specificity; their intervals come from the
    97.5 % intervals of these two and are therefore a little wide.

    Args:
        cutoff: of :func:`choose_cutoff`.
        labels: ``[N]``; probabilities: ``[N, classes]``; classes: names.
        patients: ``N`` names, if several images can be of one; for intervals as in
            :func:`util.evaluation.intervals.intervals`.
        prevalence: in (0, 1).

    Returns:
        Ready for JSON: the cut-off, ``counts`` of true and false positives and negatives, ``sensitivity``, ``specificity``,
        ``positive_predictive_value``, ``negative_predictive_value``, and ``intervals`` of these; None where there is no
        image to count.
    """
    if prevalence is not None and not 0 < prevalence < 1:
        raise InputError(f"prevalence {prevalence}: give a share above 0 and below 1")
    if cutoff.positive not in classes:
        raise InputError(f"the cut-off is for class {cutoff.positive}; there are {', '.join(classes)}")
    index = classes.index(cutoff.positive)
    truth, scores = labels == index, probabilities[:, index].astype(np.float64)
    called = scores >= cutoff.value
    shares = one_against_rest(truth, called, scores)
    values = {name: shares[name] for name in SHARES}
    ranges: dict[str, Sequence[float | None] | None] = {
        name: share_interval(*of(truth, called), patients) for name, of in SHARES.items()
    }
    if prevalence is not None:
        values |= predictive_values(values["sensitivity"], values["specificity"], prevalence)
        sensitivity, specificity = (
            share_interval(*SHARES[name](truth, called), patients, BOTH) or (None, None)
            for name in ("sensitivity", "specificity")
        )
        low, high = (predictive_values(*edge, prevalence) for edge in zip(sensitivity, specificity, strict=True))
        ranges |= {name: None if values[name] is None else [low[name], high[name]] for name in low}
    counts = {
        "true_positives": int((called & truth).sum()),
        "false_positives": int((called & ~truth).sum()),
        "true_negatives": int((~called & ~truth).sum()),
        "false_negatives": int((~called & truth).sum()),
    }
    return {
        "class": cutoff.positive,
        "cutoff": cutoff.value,
        "rule": cutoff.rule,
        "prevalence": prevalence,
        "counts": counts,
        **values,
        "intervals": ranges,
    }


def predictive_values(sensitivity: float | None, specificity: float | None, prevalence: float) -> dict[str, float | None]:
    """Bayes' rule: how often a positive and a negative result are right, where the class is that frequent."""
    names = ("positive_predictive_value", "negative_predictive_value")
    if sensitivity is None or specificity is None:
        return dict.fromkeys(names)
    positive, negative = sensitivity * prevalence, specificity * (1 - prevalence)
    called = positive + (1 - specificity) * (1 - prevalence)
    not_called = negative + (1 - sensitivity) * prevalence
    return dict(
        zip(names, (positive / called if called else None, negative / not_called if not_called else None), strict=True)
    )
