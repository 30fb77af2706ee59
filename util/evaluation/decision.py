"""From logits to a decision: a temperature and a cut-off, chosen on val/, kept in the checkpoint, applied elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax
from sklearn.metrics import log_loss

from util.evaluation.calibration import LIMITS, apply_temperature, calibration_metrics, fit_temperature
from util.evaluation.cutoffs import Cutoff, check_both_sides, check_positive, check_rule, choose_cutoff, cutoff_metrics
from util.evaluation.table import OF_EACH_CLASS, with_interval
from util.system.errors import InputError


class Decision(NamedTuple):
    """How logits become probabilities, and probabilities a call.

    Attributes:
        temperature: that logits are divided by; None: they stay as they are.
        cutoff: of one class's probability; None: there is none.
    """

    temperature: float | None = None
    cutoff: Cutoff | None = None

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """``[N, classes]`` from logits, in 32 bits as they come; with a temperature in 64, in which no two fall together."""
        return softmax(logits, axis=1) if self.temperature is None else apply_temperature(logits, self.temperature)

    def calls(self, probabilities: np.ndarray, classes: list[str]) -> dict[str, list[str]]:
        """The column that says for each image whether it lies ``above`` the cut-off, or at it, or ``below``."""
        if self.cutoff is None:
            return {}
        above = probabilities[:, classes.index(self.cutoff.positive)].astype(np.float64) >= self.cutoff.value
        return {f"cutoff({self.cutoff.positive})": ["above" if each else "below" for each in above]}

    @property
    def parts(self) -> list[str]:
        """Names of what it has."""
        return [*(["temperature"] if self.temperature is not None else []), *(["cut-off"] if self.cutoff else [])]

    def content(self) -> dict:
        """What a checkpoint keeps, for :func:`read_decision`."""
        return {"temperature": self.temperature, "cutoff": self.cutoff and self.cutoff._asdict()}


def read_decision(content: dict, classes: list[str], path: Path) -> Decision:
    """What :meth:`Decision.content` was kept in a checkpoint under ``decision``; one without any where there is none.

    Raises:
        InputError: naming the file, if it is not what a checkpoint keeps there, or is for a class that the model lacks.
    """
    kept = content.get("decision")
    if kept is None:
        return Decision()
    try:
        temperature, cutoff = kept["temperature"], kept["cutoff"] and Cutoff(**kept["cutoff"])
        right = temperature is None or LIMITS[0] <= temperature <= LIMITS[1]
        if cutoff:
            check_rule(cutoff.rule)
            right = right and cutoff.positive in classes and cutoff.value >= 0
    except (TypeError, KeyError, AttributeError, InputError):
        right = False
    if not right:
        raise InputError(f"{path}: its temperature or cut-off is damaged; choose them anew from the checkpoint before")
    return Decision(temperature, cutoff)


class Choice(NamedTuple):
    """What to choose on the images of val/.

    Attributes:
        calibrate: fit a temperature.
        rule: of a cut-off, as :func:`util.evaluation.cutoffs.choose_cutoff` takes it, or None.
        positive: the cut-off's class; None: the second of two.
    """

    calibrate: bool
    rule: str | None
    positive: str | None

    def check(self, known: Decision, labels: np.ndarray, classes: list[str], path: Path) -> None:
        """Raise :class:`InputError` where no choice is possible, before any image is read.

        Args:
            known: what the checkpoint kept, which lies at ``path``.
            labels: ``[N]``, of val/; classes: names.
        """
        if self.rule:
            check_both_sides(labels, classes, check_positive(self.positive, classes))
        elif known.cutoff:
            raise InputError(
                f"--calibrate: {path} has a cut-off, which another temperature would move: choose it anew too "
                "(--sensitivity S, --specificity S or --youden), or --resume the checkpoint without it"
            )

    def make(self, known: Decision, labels: np.ndarray, logits: np.ndarray, classes: list[str]) -> Decision:
        """The decision; what is not chosen stays as it is known. A cut-off is one of calibrated probabilities.

        Args:
            known: what the checkpoint kept.
            labels: ``[N]``, of val/; logits: ``[N, classes]``; classes: names.

        Raises:
            InputError: where no temperature fits.
        """
        made = known._replace(temperature=fit_temperature(labels, logits)) if self.calibrate else known
        if self.rule:
            cutoff = choose_cutoff(labels, made.probabilities(logits), classes, self.rule, self.positive)
            made = made._replace(cutoff=cutoff)
        return made


def before_and_after(labels: np.ndarray, logits: np.ndarray, temperature: float) -> dict[str, dict[str, float]]:
    """Log loss, which a temperature is fitted to lower, calibration error and Brier score, without it and with it."""
    results = {}
    for when, divisor in (("before", 1.0), ("after", temperature)):
        probabilities = apply_temperature(logits, divisor)
        measured = calibration_metrics(labels, probabilities)
        results[when] = {
            "log_loss": float(log_loss(labels, probabilities, labels=range(logits.shape[1]))),
            **{name: measured[name] for name in ("expected_calibration_error", "brier_score")},
        }
    return results


def decision_results(
    decision: Decision,
    sets: dict[str, tuple[np.ndarray, np.ndarray]],
    judged: str,
    classes: list[str],
    patients: Sequence[str] | None = None,
    prevalence: float | None = None,
) -> dict:
    """What a decision does, for ``metrics.json``: nothing without one.

    Args:
        decision: the temperature, the cut-off.
        sets: by the name of a split its labels ``[N]`` and logits ``[N, classes]``.
        judged: the split that the cut-off is applied to.
        classes: names.
        patients: of that split (:func:`util.evaluation.cutoffs.cutoff_metrics`).
        prevalence: in (0, 1): the predictive values where the class is that frequent, too.

    Returns:
        ``temperature`` and ``temperature_effect``: for each split ``before`` and ``after``; ``cutoff`` and
        ``cutoff_at_prevalence``: of :func:`util.evaluation.cutoffs.cutoff_metrics`.
    """
    results: dict[str, Any] = {}
    if decision.temperature is not None:
        effect = {name: before_and_after(*of, decision.temperature) for name, of in sets.items()}
        results |= {"temperature": decision.temperature, "temperature_effect": effect}
    if decision.cutoff:
        labels, logits = sets[judged]
        about = (decision.cutoff, labels, decision.probabilities(logits), classes, patients)
        results["cutoff"] = cutoff_metrics(*about)
        if prevalence is not None:
            results["cutoff_at_prevalence"] = cutoff_metrics(*about, prevalence)
    return results


def decision_in_words(results: dict) -> list[str]:
    """Lines for a reader on what :func:`decision_results` found."""
    lines = []
    if temperature := results.get("temperature"):
        lines.append(f"{'temperature':<20}{temperature:.4f}, fitted on val: {effect_in_words(temperature)}")
        for split in sorted(results["temperature_effect"], reverse=True):  # val, then test
            for when, measured in results["temperature_effect"][split].items():
                scores = f"log loss {measured['log_loss']:.4f}, {calibration_in_words(measured)}"
                lines.append(f"  {f'{split}, {when}':<18}{scores}")
    if cutoff := results.get("cutoff"):
        name, counts = cutoff["class"], cutoff["counts"]
        positive, images = counts["true_positives"] + counts["false_negatives"], sum(counts.values())
        lines.append(
            f"{'cut-off':<20}{name} is called where p({name}) is {cutoff['cutoff']:.4g} or more: "
            f"{rule_in_words(cutoff['rule'])}, chosen on val"
        )
        lines += shares_in_words(cutoff, list(OF_EACH_CLASS)[:4])
        lines.append(f"  of these {images} images {positive} are {name} ({100 * positive / images:.2f} %)")
    if at := results.get("cutoff_at_prevalence"):
        lines.append(f"at a prevalence of {100 * at['prevalence']:g} %")
        lines += shares_in_words(at, ["positive_predictive_value", "negative_predictive_value"])
    return lines


def shares_in_words(shares: dict, names: list[str]) -> list[str]:
    return [f"  {OF_EACH_CLASS[name]:<18}{with_interval(shares[name], shares['intervals'][name], True)}" for name in names]


def calibration_in_words(measured: dict) -> str:
    error = 100 * measured["expected_calibration_error"]
    return f"expected calibration error {error:.2f} %, Brier score {measured['brier_score']:.4f}"


def effect_in_words(temperature: float) -> str:
    """What a temperature does to the model's certainty."""
    return f"it makes the model {'less sure' if temperature > 1 else 'surer'}, and changes no prediction"


def rule_in_words(rule: str) -> str:
    name, _, wanted = rule.partition("=")
    return f"a {name} of at least {100 * float(wanted):g} %" if wanted else "the largest sum of sensitivity and specificity"
