"""What ``--eval`` says of a set: metrics, intervals, calibration and remarks, for ``metrics.json`` and for a reader."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from util.evaluation.calibration import calibration_metrics
from util.evaluation.decision import Decision, calibration_in_words, decision_in_words
from util.evaluation.features import NAMES as FEATURES
from util.evaluation.features import write_features
from util.evaluation.intervals import intervals
from util.evaluation.predictions import Predictions, write_predictions
from util.evaluation.remarks import remarks
from util.evaluation.table import metrics_table
from util.maps.localisation import localisation_table
from util.system import distributed
from util.system.text import write_json


def complete(
    metrics: dict, predictions: Predictions, training_paths: list[str], chosen: Sequence[str], ordered: bool
) -> dict:
    """Metrics of a set with all that belongs beside them.

    Args:
        metrics: of :func:`util.evaluation.metrics.classification_metrics`, and others.
        predictions: that they are of, with labels.
        training_paths: of the training images, as far as they are at hand.
        chosen: what was chosen on these images, as :func:`remarks` names it.
        ordered: the classes are grades in their order.

    Returns:
        Ready for JSON: ``metrics``, with ``patients``, whose number is None where it is not known, ``intervals``,
        ``calibration`` and what :func:`remarks` finds.
    """
    labels, probabilities, patients = predictions.truth, predictions.probabilities, predictions.patients
    return {
        **metrics,
        "patients": len(set(patients)) if patients else None,
        "intervals": intervals(labels, probabilities, predictions.classes, patients, ordered=ordered),
        "calibration": calibration_metrics(labels, probabilities),
        **remarks(predictions, training_paths, chosen, ordered),
    }


def in_words(results: dict) -> str:
    """The results of :func:`complete`, and of a decision and ``localisation`` where there are, as lines for a reader."""
    lines = [
        metrics_table(results, results["intervals"]),
        f"{'calibration':<20}{calibration_in_words(results['calibration'])}",
        *decision_in_words(results),
        *(f"note: {line}" for line in results["remarks"]),
    ]
    if "localisation" in results:
        lines.append(localisation_table(results["localisation"]))
    return "\n".join(lines)


def write_evaluation(
    folder: Path, results: dict, predictions: Predictions, decision: Decision, features: np.ndarray | None
) -> list[str]:
    """Write ``metrics.json``, ``predictions.csv`` and, where given, features; return the names of the files."""
    names = ["metrics.json", "predictions.csv", *(FEATURES if features is not None else ())]
    if not distributed.is_main():
        return names
    write_predictions(
        folder / "predictions.csv", predictions, decision.calls(predictions.probabilities, predictions.classes)
    )
    for name in FEATURES:
        (folder / name).unlink(missing_ok=True)  # of an evaluation before
    if features is not None:
        write_features(folder, features, predictions.files, [predictions.classes[label] for label in predictions.truth])
    write_json(folder / "metrics.json", results)
    return names
