"""Cut-offs by trying all that there are; predictive values by counting in a population."""

import json

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from evaluation.made_up import classifier
from util.evaluation.cutoffs import Cutoff, choose_cutoff, cutoff_metrics, predictive_values
from util.evaluation.decision import Decision
from util.evaluation.intervals import clopper_pearson
from util.system.errors import InputError

NAMES = ["benign", "malignant", "normal"]


def every_choice(truth, scores):
    """All that cut-offs can do: (sensitivity, specificity)."""
    edges = [-1.0, *np.unique(scores)]
    return [(recall_score(truth, scores > edge), recall_score(~truth, scores <= edge)) for edge in edges]


@pytest.mark.parametrize("digits", [1, 9])
@pytest.mark.parametrize("seed", range(4))
def test_chosen_cutoff_is_the_best_of_all(seed, digits):
    labels, probabilities = classifier(60, 3, skill=0.8, seed=seed)
    probabilities = probabilities.round(digits).astype(np.float32)
    truth, scores = labels == 1, probabilities[:, 1]
    choices = every_choice(truth, scores)
    for wanted in (0.5, 0.9, 1.0, truth[truth].sum() / (truth.sum() + 1)):
        found = cutoff_metrics(
            choose_cutoff(labels, probabilities, NAMES, f"sensitivity={wanted}", "malignant"), labels, probabilities, NAMES
        )
        assert found["sensitivity"] >= wanted
        assert found["specificity"] == max(specific for sensitive, specific in choices if sensitive >= wanted)
        found = cutoff_metrics(
            choose_cutoff(labels, probabilities, NAMES, f"specificity={wanted}", "malignant"), labels, probabilities, NAMES
        )
        assert found["specificity"] >= wanted
        assert found["sensitivity"] == max(sensitive for sensitive, specific in choices if specific >= wanted)
    youden = choose_cutoff(labels, probabilities, NAMES, "youden", "malignant")
    found = cutoff_metrics(youden, labels, probabilities, NAMES)
    assert found["sensitivity"] + found["specificity"] == pytest.approx(max(map(sum, choices)))
    assert abs(scores - youden.value).min() > 1e-5  # midway between images: rounding cannot move one across


def test_applied_to_other_images_it_is_scikit_learns():
    labels, probabilities = classifier(200, 2, seed=1)
    cutoff = choose_cutoff(labels, probabilities, ["no", "yes"], "sensitivity=0.95")
    assert cutoff.positive == "yes"
    labels, probabilities = classifier(150, 2, seed=2)
    found = cutoff_metrics(cutoff, labels, probabilities, ["no", "yes"])
    called, truth = probabilities[:, 1] >= cutoff.value, labels == 1
    assert found["sensitivity"] == pytest.approx(recall_score(truth, called))
    assert found["specificity"] == pytest.approx(recall_score(~truth, ~called))
    assert found["positive_predictive_value"] == pytest.approx(precision_score(truth, called))
    assert found["negative_predictive_value"] == pytest.approx(precision_score(~truth, ~called))
    counts = found["counts"]
    assert sum(counts.values()) == 150 and counts["true_positives"] == (called & truth).sum()
    assert found["intervals"]["specificity"] == clopper_pearson(counts["true_negatives"], int((~truth).sum()))
    assert found["intervals"]["positive_predictive_value"] == clopper_pearson(counts["true_positives"], int(called.sum()))
    json.dumps(found, allow_nan=False)


def test_predictive_values_at_another_prevalence_are_those_of_such_a_population():
    """A population with as many images as to be 2 % positive: each positive image once, each other one many times."""
    labels, probabilities = classifier(200, 2, seed=1)
    cutoff = Cutoff("yes", 0.6, "youden")
    positive, others = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    population = np.concatenate([positive.repeat(len(others)), others.repeat(49 * len(positive))])
    found = cutoff_metrics(cutoff, labels, probabilities, ["no", "yes"], prevalence=0.02)
    there = cutoff_metrics(cutoff, labels[population], probabilities[population], ["no", "yes"])
    for name in ("positive_predictive_value", "negative_predictive_value", "sensitivity"):
        assert found[name] == pytest.approx(there[name])
        low, high = found["intervals"][name]
        assert low < found[name] < high
    same = cutoff_metrics(cutoff, labels, probabilities, ["no", "yes"], prevalence=float((labels == 1).mean()))
    plain = cutoff_metrics(cutoff, labels, probabilities, ["no", "yes"])
    assert same["positive_predictive_value"] == pytest.approx(plain["positive_predictive_value"])
    by_patient = cutoff_metrics(cutoff, labels, probabilities, ["no", "yes"], [str(i // 20) for i in range(200)], 0.02)
    assert by_patient["sensitivity"] == found["sensitivity"]
    assert by_patient["intervals"]["sensitivity"] != found["intervals"]["sensitivity"]
    assert predictive_values(1.0, 1.0, 0.1) == {"positive_predictive_value": 1.0, "negative_predictive_value": 1.0}


@pytest.mark.parametrize("score", np.float32([0.7, 0.3, 0.9]))
def test_neighbouring_32_bit_numbers_are_told_apart(score):
    """Their midpoint is no 32-bit number; rounded to one, it would fall on either side."""
    for lower in (score, np.nextafter(score, np.float32(1))):
        scores = np.array([lower, np.nextafter(lower, np.float32(1))])
        probabilities = np.stack([1 - scores, scores], axis=1)
        cutoff = choose_cutoff(np.array([0, 1]), probabilities, ["no", "yes"], "youden")
        found = cutoff_metrics(cutoff, np.array([0, 1]), probabilities, ["no", "yes"])
        assert (found["sensitivity"], found["specificity"]) == (1, 1)


def test_every_table_counts_the_same_images_above_a_cutoff():
    """Probabilities are float32, the cut-off lies between two neighbours of them."""
    sure = np.array([1 - 2**-23, 1 - 2**-24], dtype=np.float32)
    cutoff = Cutoff("yes", float(sure.astype(np.float64).mean()), "youden")
    probabilities = np.stack([1 - sure, sure], axis=1)
    called = Decision(None, cutoff).calls(probabilities, ["no", "yes"])["cutoff(yes)"]
    counts = cutoff_metrics(cutoff, np.array([0, 1]), probabilities, ["no", "yes"])["counts"]
    assert called == ["below", "above"] and (counts["true_positives"], counts["true_negatives"]) == (1, 1)


def test_a_cutoff_that_calls_none_positive():
    labels, probabilities = np.array([1, 1, 0]), np.array([[0.4, 0.6], [0.7, 0.3], [0.0, 1.0]])
    cutoff = choose_cutoff(labels, probabilities, ["no", "yes"], "specificity=1")
    found = cutoff_metrics(cutoff, labels, probabilities, ["no", "yes"], prevalence=0.5)
    assert (found["sensitivity"], found["specificity"], found["positive_predictive_value"]) == (0, 1, None)
    assert found["counts"]["false_negatives"] == 2
    assert found["intervals"]["positive_predictive_value"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("rule", "positive", "prevalence", "words"),
    [
        ("youden", None, None, "say which by --positive: benign, malignant, normal"),
        ("youden", "tumour", None, "no class tumour"),
        ("accuracy", "benign", None, "cut-off accuracy: write youden"),
        ("youden=1", "benign", None, "cut-off youden=1"),
        ("sensitivity", "benign", None, "cut-off sensitivity"),
        ("sensitivity=95", "benign", None, "up to 1"),
        ("specificity=nan", "benign", None, "up to 1"),
        ("specificity=high", "benign", None, "up to 1"),
        ("youden", "benign", 1.5, "prevalence 1.5"),
    ],
)
def test_what_cannot_be(rule, positive, prevalence, words):
    labels, probabilities = classifier(50, 3)
    with pytest.raises(InputError, match=words):
        cutoff_metrics(
            choose_cutoff(labels, probabilities, NAMES, rule, positive), labels, probabilities, NAMES, prevalence=prevalence
        )


def test_needs_images_of_both_kinds():
    with pytest.raises(InputError, match="here are 0 of 9"):
        choose_cutoff(np.zeros(9, dtype=int), np.full((9, 2), 0.5), ["no", "yes"], "youden")
    with pytest.raises(InputError, match="class yes"):
        cutoff_metrics(Cutoff("yes", 0.5, "youden"), np.zeros(2, dtype=int), np.full((2, 2), 0.5), ["no", "maybe"])
