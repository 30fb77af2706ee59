"""The figures of a cross-validation: of all held-out images together, and how much they differ from fold to fold."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from util.data.tables import write_table
from util.evaluation.calibration import calibration_metrics
from util.evaluation.figure import save
from util.evaluation.intervals import intervals
from util.evaluation.metrics import classification_metrics
from util.evaluation.page import WIDTH
from util.evaluation.pictures import confusion_figure, reliability_figure, roc_figure
from util.evaluation.predictions import Predictions, write_predictions
from util.evaluation.table import HEADLINES, PERCENT, with_interval
from util.system.errors import InputError
from util.system.text import write_json


def pool(folds: Sequence[Predictions]) -> Predictions:
    """The predictions of all folds, one after the other.

    Raises:
        InputError: where folds have different classes, or an image comes twice.
    """
    first = folds[0]
    files = [file for fold in folds for file in fold.files]
    if any(fold.classes != first.classes for fold in folds):
        raise InputError("the folds have different classes: their predictions cannot be put together")
    if len(set(files)) < len(files):
        raise InputError("an image was held out in two folds: their predictions cannot be put together")
    patients = [name for fold in folds for name in fold.patients or ()]
    return Predictions(
        files,
        np.concatenate([fold.probabilities for fold in folds]),
        first.classes,
        np.concatenate([fold.truth for fold in folds]),
        patients if len(patients) == len(files) else None,
    )


def cross_validated(pooled: Predictions, folds: dict[int, dict], ordered: bool) -> dict:
    """Metrics of a cross-validation, ready for JSON, in the form of an evaluation's ``metrics.json``.

    Args:
        pooled: of :func:`pool`.
        folds: the ``metrics.json`` of each fold, by its number.
        ordered: the classes are grades in their order.

    Returns:
        Metrics, ``patients``, ``intervals`` and ``calibration`` of all held-out images; ``folds``: each fold's ``fold``,
        ``images`` and headline metrics; ``over_folds``: of each metric the ``mean``, the ``standard_deviation`` (divisor:
        folds - 1), and the ``lowest`` and ``highest`` fold, each ``[fold, value]``; ``remarks``.
    """
    names = [name for name in HEADLINES if name in next(iter(folds.values()))]
    return {
        **classification_metrics(pooled.truth, pooled.probabilities, pooled.classes, ordered),
        "patients": len(set(pooled.patients)) if pooled.patients else None,
        "intervals": intervals(pooled.truth, pooled.probabilities, pooled.classes, pooled.patients, ordered=ordered),
        "calibration": calibration_metrics(pooled.truth, pooled.probabilities),
        "folds": [
            {"fold": number, "images": results["images"], **{name: results[name] for name in names}}
            for number, results in folds.items()
        ],
        "over_folds": {name: spread({number: results[name] for number, results in folds.items()}) for name in names},
        "remarks": remarks(folds),
    }


def spread(values: dict[int, float | None]) -> dict | None:
    """Mean, standard deviation and extremes of a metric over folds; None where a fold has no such value."""
    known = {number: value for number, value in values.items() if value is not None}
    if len(known) < len(values):
        return None
    lowest, highest = min(known, key=lambda number: known[number]), max(known, key=lambda number: known[number])
    return {
        "mean": float(np.mean(list(known.values()))),
        "standard_deviation": float(np.std(list(known.values()), ddof=1)),
        "lowest": [lowest, known[lowest]],
        "highest": [highest, known[highest]],
    }


def remarks(folds: dict[int, dict]) -> list[str]:
    """What a reader must know of the folds' figures: copies of training images among those held out."""
    images, copies = (sum(results.get(name, 0) for results in folds.values()) for name in ("images", "copies"))
    if not copies:
        return []
    others = [each for results in folds.values() if (each := results.get("without_copies", results))]
    unseen = sum(each["images"] for each in others)
    right = sum(each["images"] * each["top1"] for each in others)
    top1 = f"; without them top-1 is {100 * right / unseen:.2f} %" if unseen else ""
    return [f"{copies} of these {images} images are copies of a training image of their fold{top1}"]


def folds_table(results: dict) -> list[list[str]]:
    """A row for each fold, then mean and standard deviation; the first row names the columns."""
    names = list(results["over_folds"])
    rows = [["fold", "images", *(HEADLINES[name] for name in names)]]
    for fold in results["folds"]:
        shown = (with_interval(fold[name], None, name in PERCENT) for name in names)
        rows.append([str(fold["fold"]), str(fold["images"]), *shown])
    for key, title in (("mean", "mean"), ("standard_deviation", "std. deviation")):
        spreads = ((name, results["over_folds"][name]) for name in names)
        shown = (with_interval(values and values[key], None, name in PERCENT) for name, values in spreads)
        rows.append([title, "", *shown])
    return rows


def folds_in_words(results: dict) -> str:
    """The rows of :func:`folds_table` as lines, and which folds are lowest and highest in top-1."""
    rows = folds_table(results)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    low, high = (results["over_folds"]["top1"][name] for name in ("lowest", "highest"))
    lines.append(
        f"top-1 is lowest in fold {low[0]} ({100 * low[1]:.2f} %) and highest in fold {high[0]} ({100 * high[1]:.2f} %)"
    )
    return "\n".join(lines)


def write_results(
    folder: Path, results: dict, pooled: Predictions, width: float = WIDTH, formats: Sequence[str] = ("png",)
) -> list[str]:
    """Write what an evaluation writes, of all folds together, and ``folds.csv``, the rows of :func:`folds_table`.

    Args:
        width: of each picture in millimetres; formats: of :data:`util.evaluation.page.FORMATS`.

    Returns:
        The names of the files.
    """
    write_predictions(folder / "predictions.csv", pooled)
    columns, *rows = folds_table(results)
    write_table(folder / "folds.csv", columns, rows)
    write_json(folder / "metrics.json", results)
    count, images = len(results["folds"]), len(pooled.files)
    title = f"{folder.name}, {count} folds, {images} held-out images, top-1 {100 * results['top1']:.2f} %"
    drawn = {
        "roc": roc_figure(pooled.truth, pooled.probabilities, pooled.classes, title, width),
        "confusion": confusion_figure(results["confusion"], pooled.classes, title, width),
        "reliability": reliability_figure(results["calibration"], title, width),
    }
    pictures = [file for name, figure in drawn.items() for file in save(figure, folder, name, formats)]
    return ["folds.csv", "metrics.json", "predictions.csv", *pictures]
