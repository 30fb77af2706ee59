"""Each resample's metrics equal scikit-learn's on its images; intervals are neither too narrow, nor slow, nor by class."""

import json
import time

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import beta

from evaluation.coverage import PATIENTS_COVERED, coverage, coverage_of_patients, coverage_of_shares
from evaluation.made_up import classifier
from util.evaluation.intervals import bootstrap_interval, clopper_pearson, intervals, share_interval
from util.evaluation.metrics import classification_metrics
from util.evaluation.resampling import metrics_of_resamples, resample_counts

ALL = ("top1", "balanced_accuracy", "macro_f1", "macro_auc", "average_precision", "quadratic_kappa")
OF_A_CLASS = (
    "sensitivity",
    "specificity",
    "positive_predictive_value",
    "negative_predictive_value",
    "auc",
    "average_precision",
)


@pytest.mark.parametrize("patients", [False, True])
@pytest.mark.parametrize(("images", "classes", "digits"), [(60, 3, 1), (12, 4, 3), (40, 2, 1)])
def test_each_resample_has_the_metrics_of_its_images(images, classes, digits, patients):
    """Few images, so that resamples lack classes; rounded probabilities, so that there are ties."""
    labels, probabilities = classifier(images, classes)
    probabilities = probabilities.round(digits)
    owners = [f"patient {index // 3}" for index in range(images)] if patients else None
    names, lacking = [str(index) for index in range(classes)], 0
    for counts in resample_counts(images, owners, resamples=40, seed=1):
        found = metrics_of_resamples(counts, labels, probabilities, ordered=True)
        for row, count in enumerate(counts):
            drawn = np.repeat(np.arange(images), count.astype(int))
            assert len(drawn) == images or patients
            expected = classification_metrics(labels[drawn], probabilities[drawn], names, ordered=True)
            lacking += bool(expected["absent"])
            for name in ALL:
                value = np.nan if expected[name] is None else expected[name]
                assert found[name][row] == pytest.approx(value, abs=1e-12, nan_ok=True), name
            for name in OF_A_CLASS:
                value = [np.nan if one[name] is None else one[name] for one in expected["per_class"].values()]
                assert found[f"class_{name}"][row] == pytest.approx(value, abs=1e-12, nan_ok=True), name
    assert lacking or images > 12


def test_resamples_are_of_patients_and_the_same_each_time():
    owners = np.array(["a", "b", "b", "c", "c", "c"])
    counts = np.concatenate(list(resample_counts(6, owners, resamples=5000, seed=3)))
    assert all((counts[:, owners == name] == counts[:, owners == name][:, :1]).all() for name in "abc")
    per_patient = counts[:, [0, 1, 3]]
    assert (per_patient.sum(1) == 3).all() and per_patient.mean(0) == pytest.approx(1, abs=0.05)
    again = np.concatenate(list(resample_counts(6, owners, resamples=5000, seed=3)))
    other = np.concatenate(list(resample_counts(6, owners, resamples=5000, seed=4)))
    assert (counts == again).all() and (counts != other).any()


def test_a_model_that_calls_everything_one_class_has_an_uncertain_top1():
    """Drawn class by class it would be certain: each resample would have the same number of right answers."""
    labels = np.repeat([0, 1, 2], [61, 50, 44])
    found = intervals(labels, np.tile([0.6, 0.3, 0.1], (155, 1)), ["a", "b", "c"])
    low, high = found["top1"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(61 / 155 * 94 / 155 / 155), rel=0.15)
    assert found["macro_auc"] == [0.5, 0.5]


def test_shares_have_the_exact_interval_or_that_of_patients():
    low, high = clopper_pearson(7, 10)
    assert (low, high) == (pytest.approx(beta.ppf(0.025, 7, 4)), pytest.approx(beta.ppf(0.975, 8, 3)))
    labels, probabilities = classifier(200)
    found = intervals(labels, probabilities, ["a", "b", "c"])
    sensitivity = classification_metrics(labels, probabilities, ["a", "b", "c"])["per_class"]["b"]["sensitivity"]
    total = int((labels == 1).sum())
    assert found["per_class"]["b"]["sensitivity"] == clopper_pearson(round(sensitivity * total), total)
    # ten images of each patient that are alike tell no more than one would
    labels, probabilities = classifier(40)
    owners = [str(index) for index in range(40) for _ in range(10)]
    one = intervals(labels, probabilities, ["a", "b", "c"], patients=owners[::10], resamples=4000)
    ten = intervals(labels.repeat(10), probabilities.repeat(10, axis=0), ["a", "b", "c"], patients=owners, resamples=4000)
    blind = intervals(labels.repeat(10), probabilities.repeat(10, axis=0), ["a", "b", "c"], resamples=4000)
    for name in ("top1", "macro_auc"):
        assert ten[name] == pytest.approx(one[name], abs=1e-12)
        assert blind[name][1] - blind[name][0] < 0.5 * (ten[name][1] - ten[name][0])
    assert ten["per_class"]["a"]["sensitivity"] == pytest.approx(one["per_class"]["a"]["sensitivity"], abs=1e-12)


def test_interval_of_the_log_odds():
    """Of a share of independent images its width is known: 1.96 / sqrt(n p (1 - p)) each way."""
    labels, probabilities = classifier(400, skill=2.5)
    right = (probabilities.argmax(1) == labels).mean()
    reach = 1.96 / np.sqrt(400 * right * (1 - right))
    low, high = intervals(labels, probabilities, ["a", "b", "c"], resamples=4000)["top1"]
    assert logit([low, high]) == pytest.approx([logit(right) - reach, logit(right) + reach], rel=0.02)
    spread = np.array([-0.02, 0.02, np.nan])
    # of kappa, which begins at -1, that of (kappa + 1) / 2
    for narrower in (0.95, 0.5):
        low, high = bootstrap_interval(0.6, 0.6 + spread, narrower, lowest=-1)
        half = bootstrap_interval(0.8, 0.8 + spread / 2, narrower)
        assert [low, high] == pytest.approx([2 * edge - 1 for edge in half])
    assert high - low == pytest.approx(2 * 0.6745 * 0.02, rel=0.01)
    assert bootstrap_interval(np.nan, spread) is None and bootstrap_interval(0.5, spread[2:]) is None
    assert bootstrap_interval(1.0, np.ones(9)) == [1, 1]


def test_one_patient_tells_nothing_of_others():
    labels, probabilities = classifier(60, skill=1)
    found = intervals(labels, probabilities, ["a", "b", "c"], ["p"] * 60, ordered=True)
    per_class = found.pop("per_class")
    assert set(found.values()) == {None} and per_class["a"]["sensitivity"] is per_class["a"]["auc"] is None


def test_all_right_is_not_certain():
    labels = np.repeat([0, 1], 20)
    found = intervals(labels, np.eye(2)[labels], ["no", "yes"])
    assert found["top1"] == clopper_pearson(40, 40) and found["per_class"]["yes"]["sensitivity"] == clopper_pearson(20, 20)
    owners = [str(index // 5) for index in range(40)]
    found = intervals(labels, np.eye(2)[labels], ["no", "yes"], owners)
    assert found["top1"] == clopper_pearson(8, 8) and found["per_class"]["yes"]["sensitivity"] == clopper_pearson(4, 4)
    assert share_interval(labels == 1, labels == 0, owners) == clopper_pearson(0, 4)
    assert share_interval(labels == 1, labels == 2) is None


def test_a_thousand_images_take_less_than_five_seconds():
    labels, probabilities = classifier(1000, 8)
    start = time.process_time()
    found = intervals(labels, probabilities, list("abcdefgh"), ordered=True)
    assert time.process_time() - start < 5
    assert set(found) == {*ALL, "per_class"}
    json.dumps(found, allow_nan=False)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """A short form of ``python -m evaluation.coverage``; 100 sets, so wide limits: 3.5 standard deviations below 95 %."""
    found = coverage(images=200, sets=100, resamples=200, population=300_000)
    assert all(share > 0.874 for share in found.values()), found
    assert found["top1"] < 1 and found["macro_auc"] < 1


def test_the_exact_interval_of_a_share_never_holds_the_truth_less_often_than_it_says():
    for total in (1, 7, 40, 200):
        held = coverage_of_shares(total)
        assert held.shape == (999,) and held.min() >= 0.95 - 1e-9 and held.max() <= 1 + 1e-9
    assert held.min() < 0.96  # nor is it needlessly wide


def test_patients_intervals_hold_the_truth_where_images_intervals_do_not():
    by_patient, by_image = coverage_of_patients(patients=50, images_each=6, sets=60, resamples=200, population=50_000)
    for name in PATIENTS_COVERED:
        assert by_patient[name] > 0.85 and by_image[name] < 0.8, (by_patient, by_image)
