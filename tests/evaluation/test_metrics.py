"""Metrics against scikit-learn, called as its own documentation has it, and by hand; sets that lack a class."""

import json
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from evaluation.made_up import classifier
from util.evaluation.intervals import intervals
from util.evaluation.metrics import classification_metrics
from util.evaluation.predictions import Predictions
from util.evaluation.remarks import remarks
from util.evaluation.table import metrics_table


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_every_metric_is_scikit_learns(classes):
    labels, probabilities = classifier(300, classes)
    predictions, names = probabilities.argmax(1), [f"grade{index}" for index in range(classes)]
    found = classification_metrics(labels, probabilities, names, ordered=True)
    assert found["images"] == 300 and found["absent"] == []
    assert found["top1"] == pytest.approx(sk.accuracy_score(labels, predictions))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predictions))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, predictions, average="macro"))
    scores = probabilities if classes > 2 else probabilities[:, 1]
    assert found["macro_auc"] == pytest.approx(sk.roc_auc_score(labels, scores, multi_class="ovr", average="macro"))
    one_hot = np.eye(classes)[labels]
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(one_hot, probabilities, average="macro"))
    assert found["quadratic_kappa"] == pytest.approx(sk.cohen_kappa_score(labels, predictions, weights="quadratic"))
    assert found["confusion"] == sk.confusion_matrix(labels, predictions).tolist()
    for index, name in enumerate(names):
        truth, called, row = labels == index, predictions == index, found["per_class"][name]
        assert row["images"] == truth.sum()
        assert row["sensitivity"] == pytest.approx(sk.recall_score(truth, called))
        assert row["specificity"] == pytest.approx(sk.recall_score(~truth, ~called))
        assert row["positive_predictive_value"] == pytest.approx(sk.precision_score(truth, called))
        assert row["negative_predictive_value"] == pytest.approx(sk.precision_score(~truth, ~called))
        assert row["auc"] == pytest.approx(sk.roc_auc_score(truth, probabilities[:, index]))
        assert row["average_precision"] == pytest.approx(sk.average_precision_score(truth, probabilities[:, index]))


def test_a_class_without_images_is_named_and_left_out_of_averages():
    labels, probabilities = classifier(200, 4, skill=1.0)
    kept = labels != 2
    labels, probabilities = labels[kept], probabilities[kept]
    predictions = probabilities.argmax(1)
    assert (predictions == 2).any()  # or the test would not see how a class that is only predicted counts
    found = classification_metrics(labels, probabilities, list("abcd"), ordered=True)
    assert found["absent"] == ["c"]
    assert found["per_class"]["c"]["sensitivity"] is None and found["per_class"]["c"]["auc"] is None
    assert found["per_class"]["c"]["specificity"] == pytest.approx((predictions != 2).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of a class that is only predicted
        assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predictions))
    present = [0, 1, 3]
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, predictions, labels=present, average="macro"))
    auc = [sk.roc_auc_score(labels == index, probabilities[:, index]) for index in present]
    assert found["macro_auc"] == pytest.approx(np.mean(auc))
    ranges = intervals(labels, probabilities, list("abcd"), ordered=True, resamples=200)
    assert ranges["per_class"]["c"]["sensitivity"] is None and ranges["per_class"]["c"]["auc"] is None
    json.dumps([found, ranges], allow_nan=False)
    told = metrics_table(found, ranges)
    assert "no image of c: left out" in told and f"top-1               {100 * found['top1']:.2f} % (" in told


def test_one_class_alone_and_a_class_never_predicted():
    labels, probabilities = np.zeros(5, dtype=int), np.tile([0.6, 0.4], (5, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(labels, probabilities, ["no", "yes"], ordered=True)
        ranges = intervals(labels, probabilities, ["no", "yes"], ordered=True)
    assert found["top1"] == 1 and found["macro_auc"] is None and found["quadratic_kappa"] is None
    assert found["per_class"]["yes"]["positive_predictive_value"] is None
    assert ranges["macro_auc"] is None and ranges["quadratic_kappa"] is None
    assert ranges["top1"] == [pytest.approx(0.025 ** (1 / 5)), 1]
    json.dumps([found, ranges], allow_nan=False)


def test_figures_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 2])
    probabilities = np.full((6, 3), 0.1)
    probabilities[np.arange(6), predicted] = 0.8
    results = classification_metrics(labels, probabilities, ["a", "b", "c"])
    assert results["top1"] == pytest.approx(4 / 6)
    assert results["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert results["per_class"]["a"]["sensitivity"] == pytest.approx(2 / 3)
    assert results["per_class"]["a"]["specificity"] == pytest.approx(2 / 3)
    assert results["per_class"]["b"]["specificity"] == pytest.approx(3 / 4)
    f1 = [2 * 2 / (3 + 3), 2 * 1 / (2 + 2), 1.0]
    assert results["macro_f1"] == pytest.approx(np.mean(f1))
    assert results["per_class"]["c"]["auc"] == 1.0
    assert results["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    lines = metrics_table(results, intervals(labels, probabilities, ["a", "b", "c"]))
    assert "top-1               66.67 % (" in lines and "6 images; in brackets 95 % intervals" in lines
    lines = metrics_table(results | {"patients": 4}, intervals(labels, probabilities, ["a", "b", "c"], list("aabbcd")))
    assert "6 images of 4 patients; in brackets 95 % intervals over patients" in lines


def test_a_set_of_one_class_has_no_curve():
    labels, probabilities = np.zeros(4, dtype=int), np.array([[0.4, 0.6], [0.7, 0.3], [0.2, 0.8], [0.9, 0.1]])
    results, ranges = (of(labels, probabilities, ["a", "b"]) for of in (classification_metrics, intervals))
    for name in ("auc", "average_precision"):
        assert results["per_class"]["a"][name] is None and ranges["per_class"]["a"][name] is None
    assert results["average_precision"] is None


def test_grades_that_count_in_another_order_are_noted():
    names = sorted(map(str, range(1, 12)))
    said = remarks(Predictions([], np.eye(11), names, np.zeros(11, int)), [], [], ordered=True)["remarks"]
    assert "the grades count in the order 1, 10, 11, 2" in said[0]
    assert not any(
        "order" in line
        for line in remarks(Predictions([], np.eye(2), ["g1", "g2"], np.zeros(2, int)), [], [], True)["remarks"]
    )


def test_two_classes():
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    results = classification_metrics(np.array([0, 0, 1, 1]), np.stack([1 - scores, scores], axis=1), ["no", "yes"])
    assert results["macro_auc"] == pytest.approx(0.75)
    yes = results["per_class"]["yes"]
    assert [yes[name] for name in ("images", "sensitivity", "specificity", "auc")] == [2, 0.5, 1.0, pytest.approx(0.75)]
