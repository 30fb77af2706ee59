"""Figures of merit of a classifier, all from scikit-learn."""

import csv
import json
from pathlib import Path

import numpy as np
from sklearn import metrics as sk


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> dict:
    """Top-1, balanced accuracy, macro F1, macro one-vs-rest AUC; sensitivity and specificity of each class.

    Args:
        labels: ``[N]`` class indices.
        probabilities: ``[N, classes]``, rows adding up to 1.
        classes: names, in the order of the indices.

    Returns:
        Shares in [0, 1], ready for JSON.
    """
    predictions = probabilities.argmax(1)
    every = np.arange(len(classes))
    one_vs_rest = sk.multilabel_confusion_matrix(labels, predictions, labels=every)
    auc = [sk.roc_auc_score(labels == index, probabilities[:, index]) for index in every]
    return {
        "images": len(labels),
        "top1": float(sk.accuracy_score(labels, predictions)),
        "balanced_accuracy": float(sk.recall_score(labels, predictions, labels=every, average="macro", zero_division=0)),
        "macro_f1": float(sk.f1_score(labels, predictions, labels=every, average="macro", zero_division=0)),
        "macro_auc": float(np.mean(auc)),
        "per_class": {
            name: {
                "images": int(tp + fn),
                "sensitivity": float(tp / (tp + fn)),
                "specificity": float(tn / (tn + fp)),
                "auc": float(auc[index]),
            }
            for index, (name, ((tn, fp), (fn, tp))) in enumerate(zip(classes, one_vs_rest, strict=True))
        },
        "confusion": sk.confusion_matrix(labels, predictions, labels=every).tolist(),
    }


HEADLINES = ("top1", "balanced_accuracy", "macro_f1", "macro_auc")


def bootstrap_intervals(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str], resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals, over images, of the figures in :data:`HEADLINES`.

    Images are drawn class by class, as many as the class has, so that every figure exists in every resample.

    Args:
        labels: ``[N]``; probabilities: ``[N, classes]``; classes: names.
        resamples: number of resamples; seed: of their draw.
    """
    rng, found = np.random.default_rng(seed), []
    members = [np.flatnonzero(labels == index) for index in range(len(classes))]
    for _ in range(resamples):
        drawn = np.concatenate([rng.choice(own, len(own)) for own in members])
        figures = classification_metrics(labels[drawn], probabilities[drawn], classes)
        found.append([figures[name] for name in HEADLINES])
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(HEADLINES, low, high, strict=True)}


def write_results(
    folder: Path, results: dict, paths: list[str], labels: np.ndarray, probabilities: np.ndarray, classes: list[str]
) -> None:
    """Write ``metrics.json`` and ``predictions.csv`` (file, label, prediction, a probability for each class)."""
    (folder / "metrics.json").write_text(json.dumps(results, indent=2) + "\n")
    with open(folder / "predictions.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "prediction", *(f"p({name})" for name in classes)])
        for path, label, row in zip(paths, labels, probabilities, strict=True):
            table.writerow([path, classes[label], classes[row.argmax()], *(f"{value:.6f}" for value in row)])


def table(results: dict) -> str:
    """The figures as lines for a reader."""
    lines = [
        f"top-1 {100 * results['top1']:.2f} %   balanced accuracy {100 * results['balanced_accuracy']:.2f} %   "
        f"macro F1 {results['macro_f1']:.4f}   macro AUC {results['macro_auc']:.4f}   ({results['images']} images)",
        f"{'class':<24}{'images':>8}{'sensitivity':>13}{'specificity':>13}{'AUC':>8}",
    ]
    for name, row in results["per_class"].items():
        lines.append(
            f"{name:<24}{row['images']:>8}{100 * row['sensitivity']:>11.2f} %{100 * row['specificity']:>11.2f} %"
            f"{row['auc']:>8.4f}"
        )
    if where := results.get("localisation"):
        lines += [
            f"maps of {where['images']} images with a lesion: weight in it relative to its area (gain; chance 1), maximum "
            f"in it (pointing; chance {100 * where['chance']:.1f} %)",
            f"{'map':<24}{'gain':>8}{'pointing':>13}{'average precision':>19}",
        ]
        lines += [
            f"{name:<24}{row['gain']:>8.2f}{100 * row['pointing']:>11.1f} %{row['average_precision']:>19.3f}"
            for name, row in where["sources"].items()
        ]
    return "\n".join(lines)
