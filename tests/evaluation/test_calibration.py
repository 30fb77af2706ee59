"""Calibration against scikit-learn and by hand; a temperature is found where it was hidden."""

import json
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from evaluation.made_up import classifier
from util.evaluation.calibration import apply_temperature, calibration_metrics, fit_temperature, logits_of
from util.evaluation.pictures import reliability_figure
from util.system.errors import InputError


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.55, 0.45]])
    found = calibration_metrics(np.array([0, 1, 1, 1]), probabilities, bins=10)
    # (0.8, 0.9] holds two, one of them right; (0.7, 0.8] one, right; (0.5, 0.6] one, wrong
    assert found["expected_calibration_error"] == pytest.approx((2 * abs(0.9 - 0.5) + abs(0.8 - 1) + 0.55) / 4)
    assert [row["images"] for row in found["reliability"]] == [1, 1, 2]
    assert found["brier_score"] == pytest.approx((0.1**2 + 0.9**2 + 0.2**2 + 0.55**2) / 4)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("classes", [2, 4])
def test_calibration_is_scikit_learns(classes):
    labels, probabilities = classifier(400, classes, sharpness=2)
    found = calibration_metrics(labels, probabilities, bins=12)
    right, confidence = probabilities.argmax(1) == labels, probabilities.max(1)
    accuracies, confidences = calibration_curve(right, confidence, n_bins=12)
    assert [row["accuracy"] for row in found["reliability"]] == pytest.approx(accuracies)
    assert [row["confidence"] for row in found["reliability"]] == pytest.approx(confidences)
    assert sum(row["images"] for row in found["reliability"]) == 400
    assert all(row["interval"][0] <= row["accuracy"] <= row["interval"][1] for row in found["reliability"])
    edges = np.linspace(0, 1, 13)
    inside = [(low < confidence) & (confidence <= high) for low, high in pairwise(edges)]
    gaps = [each.mean() * abs(confidence[each].mean() - right[each].mean()) for each in inside if each.any()]
    assert found["expected_calibration_error"] == pytest.approx(sum(gaps))
    assert found["brier_score"] == pytest.approx(brier_score_loss(labels, probabilities))


@pytest.mark.parametrize("hidden", [0.4, 1.0, 2.5])
def test_a_hidden_temperature_is_found_and_taken_back(hidden):
    labels, probabilities = classifier(5000, 3, sharpness=hidden)
    temperature = fit_temperature(labels, logits_of(probabilities))
    assert temperature == pytest.approx(hidden, rel=0.06)
    mended = apply_temperature(logits_of(probabilities), temperature)
    assert mended == pytest.approx(classifier(5000, 3)[1], abs=0.03)
    assert (mended.argmax(1) == probabilities.argmax(1)).all()
    if hidden != 1:
        before, after = calibration_metrics(labels, probabilities), calibration_metrics(labels, mended)
        assert after["expected_calibration_error"] < 0.35 * before["expected_calibration_error"]
        assert after["brier_score"] < before["brier_score"]
    for near in (0.97, 1.03):
        other = apply_temperature(logits_of(probabilities), near * temperature)
        assert log_loss(labels, mended) < log_loss(labels, other)


def test_temperature_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=300)
    features = rng.normal(size=(300, 3)) + np.eye(3)[labels]
    model = LogisticRegression().fit(features[:40], labels[:40])
    model.coef_ *= 4
    theirs = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(features, labels)
    logits = model.decision_function(features)
    ours = apply_temperature(logits, fit_temperature(labels, logits))
    assert ours == pytest.approx(theirs.predict_proba(features), abs=1e-5)


def test_logits_of_probabilities_and_of_those_that_vanished():
    probabilities = np.array([[1, 0, 0], [0.25, 0.5, 0.25]], dtype=np.float32)
    assert softmax(logits_of(probabilities), axis=1) == pytest.approx(probabilities)
    assert np.isfinite(apply_temperature(logits_of(probabilities), 0.05)).all()


def test_no_temperature_where_none_is_best():
    labels = np.array([0, 1, 0, 1])
    with pytest.raises(InputError, match="4 images that are all classified right"):
        fit_temperature(labels, np.eye(2)[labels])
    with pytest.raises(InputError, match="tell nothing"):
        fit_temperature(labels, -np.eye(2)[labels])


def test_diagram_shows_the_figures():
    labels, probabilities = classifier(300, sharpness=2)
    found = calibration_metrics(labels, probabilities)
    upper, lower = reliability_figure(found, "val").axes
    assert f"{100 * found['expected_calibration_error']:.2f} %" in upper.get_title()
    line = upper.containers[0].lines[0]
    assert line.get_ydata() == pytest.approx([row["accuracy"] for row in found["reliability"]])
    assert sum(bar.get_height() for bar in lower.patches) == 300
    everything_right = calibration_metrics(np.array([0, 1]), np.eye(2))
    assert everything_right["expected_calibration_error"] == 0
    reliability_figure(everything_right, "val")
