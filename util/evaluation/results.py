"""What ``--eval`` says of a set: metrics, intervals, calibration and remarks, for ``metrics.json`` and for a reader."""

import numpy as np

from util.data.images import Images
from util.evaluation.calibration import calibration_metrics
from util.evaluation.intervals import intervals
from util.evaluation.remarks import remarks
from util.evaluation.table import metrics_table
from util.maps.localisation import localisation_table


def complete(
    metrics: dict,
    images: Images,
    probabilities: np.ndarray,
    *,
    training_paths: list[str],
    chose_epoch: bool,
    ordered: bool,
) -> dict:
    """Metrics of a set with all that belongs beside them.

    Args:
        metrics: of :func:`util.evaluation.metrics.classification_metrics`, and others.
        images: of the set; probabilities: ``[N, classes]``.
        training_paths: of the training images, as far as they are at hand.
        chose_epoch: the epoch was chosen on these images.
        ordered: the classes are grades in their order.

    Returns:
        Ready for JSON: ``metrics``, with ``intervals``, ``calibration`` and what :func:`remarks` finds.
    """
    labels = images.labels.numpy()
    return {
        **metrics,
        "intervals": intervals(labels, probabilities, images.classes, images.patients, ordered=ordered),
        "calibration": calibration_metrics(labels, probabilities),
        **remarks(images.paths, labels, probabilities, images.classes, training_paths, chose_epoch, ordered),
    }


def in_words(results: dict) -> str:
    """The results of :func:`complete`, and ``localisation`` where it was measured, as lines for a reader."""
    calibration = results["calibration"]
    error, brier = 100 * calibration["expected_calibration_error"], calibration["brier_score"]
    lines = [
        metrics_table(results, results["intervals"]),
        f"{'calibration':<20}expected calibration error {error:.2f} %, Brier score {brier:.4f}",
        *(f"note: {line}" for line in results["remarks"]),
    ]
    if "localisation" in results:
        lines.append(localisation_table(results["localisation"]))
    return "\n".join(lines)
