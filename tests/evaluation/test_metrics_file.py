"""Every figure of an evaluation's ``metrics.json``, computed anew from its ``predictions.csv``: by scikit-learn, and by
torchmetrics, which shares no code with it."""

import csv
import json

import numpy as np
import pytest
import torch
import torchmetrics.classification as tm
from conftest import TINY_FINETUNE
from scipy.stats import beta
from sklearn import metrics as sk

from evaluation.made_up import classifier
from segmentation.metrics import count, metrics_of
from util.evaluation.calibration import calibration_metrics
from util.evaluation.intervals import intervals
from util.evaluation.metrics import classification_metrics
from util.evaluation.predictions import read_predictions


@pytest.fixture(scope="module")
def evaluated(phantoms, tmp_path_factory):
    """The folder of an evaluation, with ``--ordered``, of a model of four epochs."""
    import main_finetune

    folder = tmp_path_factory.mktemp("evaluated")
    common = f"--data_path {phantoms} --device cpu --num_workers 0"
    train = f"{TINY_FINETUNE} --input_size 32 --epochs 4 --warmup_epochs 0 --lr 3e-3 --output_dir {folder / 'run'}"
    evaluate = f"--eval --ordered --resume {folder / 'run' / 'checkpoint-last.pth'} --output_dir {folder / 'eval'}"
    with pytest.MonkeyPatch.context() as patch:
        for options in (train, evaluate):
            patch.setattr("sys.argv", f"main_finetune.py {options} {common}".split())
            main_finetune.main()
    return folder / "eval"


def flat(figures, path=()):
    """A nested account as one dictionary: ``{("per_class", "base", "auc"): 0.5, ...}``."""
    if isinstance(figures, dict | list):
        items = figures.items() if isinstance(figures, dict) else enumerate(figures)
        return {where: value for name, each in items for where, value in flat(each, (*path, name)).items()}
    return {path: figures}


def read_rows(path):
    """Labels, probabilities and classes, by nothing but Python's csv module."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    classes = [name[2:-1] for name in rows[0] if name.startswith("p(")]
    labels = np.array([classes.index(row["label"]) for row in rows])
    probabilities = np.array([[float(row[f"p({name})"]) for name in classes] for row in rows])
    assert [row["prediction"] for row in rows] == [classes[index] for index in probabilities.argmax(1)]
    return labels, probabilities, classes


def or_none(value, whole):
    return float(value) if whole else None


def by_scikit_learn(labels, probabilities, classes):
    """``metrics.json`` without intervals and maps."""
    predictions, one_hot = probabilities.argmax(1), np.eye(len(classes))[labels]
    normalised = probabilities / probabilities.sum(1, keepdims=True)
    per_class = {}
    for index, name in enumerate(classes):
        truth, called = labels == index, predictions == index
        per_class[name] = {
            "images": int(truth.sum()),
            "sensitivity": sk.recall_score(truth, called),
            "specificity": sk.recall_score(~truth, ~called),
            "positive_predictive_value": or_none(sk.precision_score(truth, called, zero_division=0), called.any()),
            "negative_predictive_value": or_none(sk.precision_score(~truth, ~called, zero_division=0), (~called).any()),
            "auc": sk.roc_auc_score(truth, probabilities[:, index]),
            "average_precision": sk.average_precision_score(truth, probabilities[:, index]),
        }
    confidence, right = probabilities.max(1), predictions == labels
    bins = np.minimum(np.ceil(confidence * 15).astype(int), 15)
    reliability = []
    for number in np.unique(bins):
        inside, hits = bins == number, int(right[bins == number].sum())
        total = int(inside.sum())
        low = beta.ppf(0.025, hits, total - hits + 1) if hits else 0.0
        high = beta.ppf(0.975, hits + 1, total - hits) if hits < total else 1.0
        reliability.append({
            "images": total, "confidence": confidence[inside].mean(), "accuracy": hits / total, "interval": [low, high]
        })  # fmt: skip
    return {
        "images": len(labels),
        "top1": sk.accuracy_score(labels, predictions),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predictions),
        "macro_f1": sk.f1_score(labels, predictions, average="macro"),
        "macro_auc": sk.roc_auc_score(labels, normalised, multi_class="ovr", average="macro"),
        "average_precision": sk.average_precision_score(one_hot, probabilities, average="macro"),
        "quadratic_kappa": sk.cohen_kappa_score(labels, predictions, weights="quadratic"),
        "absent": [],
        "per_class": per_class,
        "confusion": sk.confusion_matrix(labels, predictions).tolist(),
        "loss": sk.log_loss(labels, normalised),
        "calibration": {
            "expected_calibration_error": sum(
                row["images"] * abs(row["accuracy"] - row["confidence"]) for row in reliability
            )
            / len(labels),
            "brier_score": ((probabilities - one_hot) ** 2).sum(1).mean(),
            "bins": 15,
            "reliability": reliability,
        },
    }


def test_every_figure_is_scikit_learns(evaluated):
    figures = json.loads((evaluated / "metrics.json").read_text())
    of_maps = {name for name in figures if name.startswith(("map_", "localisation"))}
    about = {"checkpoint", "checkpoint_sha256", "data_path", "split", "remarks", "patients", "intervals"}
    labels, probabilities, classes = read_rows(evaluated / "predictions.csv")
    expected = by_scikit_learn(labels, probabilities, classes)
    assert set(figures) - of_maps - about == set(expected)
    found = flat({name: figures[name] for name in expected})
    wanted = flat(expected)
    assert found.keys() == wanted.keys() and len(found) > 55
    for where, value in wanted.items():
        assert found[where] == (value if value is None else pytest.approx(value, rel=1e-5, abs=1e-6)), where


def test_every_interval_is_that_of_the_predictions(evaluated):
    """The bootstrap is seeded, so it gives the same again; shares have the interval of Clopper and Pearson, by hand."""
    figures = json.loads((evaluated / "metrics.json").read_text())["intervals"]
    read = read_predictions(evaluated)
    again = flat(intervals(read.truth, read.probabilities, read.classes, ordered=True))
    assert flat(figures).keys() == again.keys()
    for where, value in flat(figures).items():
        assert again[where] == (value if value is None else pytest.approx(value, abs=1e-5)), where
    labels, probabilities, classes = read_rows(evaluated / "predictions.csv")
    for index, name in enumerate(classes):
        total = int((labels == index).sum())
        hits = int(((labels == index) & (probabilities.argmax(1) == index)).sum())
        low = beta.ppf(0.025, hits, total - hits + 1) if hits else 0
        high = beta.ppf(0.975, hits + 1, total - hits) if hits < total else 1
        assert figures["per_class"][name]["sensitivity"] == pytest.approx([low, high])


@pytest.mark.parametrize("classes", [3, 5])
def test_metrics_are_those_of_torchmetrics(classes):
    labels, probabilities = classifier(400, classes)
    names = [str(index) for index in range(classes)]
    found = classification_metrics(labels, probabilities, names, ordered=True)
    truth, chances = torch.from_numpy(labels), torch.from_numpy(probabilities)

    def value(metric):
        return metric(chances, truth).numpy()

    assert found["top1"] == pytest.approx(value(tm.MulticlassAccuracy(classes, average="micro")))
    assert found["balanced_accuracy"] == pytest.approx(value(tm.MulticlassAccuracy(classes)))
    assert found["macro_f1"] == pytest.approx(value(tm.MulticlassF1Score(classes)))
    assert found["macro_auc"] == pytest.approx(value(tm.MulticlassAUROC(classes)))
    assert found["average_precision"] == pytest.approx(value(tm.MulticlassAveragePrecision(classes)))
    assert found["quadratic_kappa"] == pytest.approx(value(tm.MulticlassCohenKappa(classes, weights="quadratic")))
    assert found["confusion"] == value(tm.MulticlassConfusionMatrix(classes)).tolist()
    of_classes = {
        "sensitivity": tm.MulticlassRecall(classes, average=None),
        "specificity": tm.MulticlassSpecificity(classes, average=None),
        "positive_predictive_value": tm.MulticlassPrecision(classes, average=None),
        "auc": tm.MulticlassAUROC(classes, average=None),
        "average_precision": tm.MulticlassAveragePrecision(classes, average=None),
    }
    for name, metric in of_classes.items():
        assert [found["per_class"][each][name] for each in names] == pytest.approx(value(metric)), name
    error = calibration_metrics(labels, probabilities)["expected_calibration_error"]
    assert error == pytest.approx(value(tm.MulticlassCalibrationError(classes, n_bins=15, norm="l1")), abs=1e-6)


def test_overlaps_of_masks_are_those_of_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    predicted, true = (torch.rand(6, 2, 16, 16, generator=generator) < share for share in (0.4, 0.3))
    found = metrics_of(count(predicted, true))
    metrics = {
        "iou": tm.BinaryJaccardIndex(),
        "dice": tm.BinaryF1Score(),
        "sensitivity": tm.BinaryRecall(),
        "specificity": tm.BinarySpecificity(),
    }
    for name, metric in metrics.items():
        for image in range(6):
            for kind in range(2):
                expected = metric(predicted[image, kind].int(), true[image, kind].int())
                assert found[name][image, kind].item() == pytest.approx(expected.item(), abs=1e-6)
