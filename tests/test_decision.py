"""A temperature and a cut-off, chosen on val, kept, applied elsewhere: each figure again, from a model of our own."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import content_of, run_here
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, log_loss, precision_score, recall_score
from taught import CLASSES, RUN, images, probabilities_of, rows_of, seen
from test_errors import expect_one_line

from util.evaluation.decision import decision_in_words
from util.report.__main__ import evaluation_section


@pytest.fixture
def own(taught, tmp_path):
    """The checkpoint in a folder of the test's own, where other files can be written beside it."""
    return shutil.copy(taught, tmp_path / "checkpoint-last.pth")


def calibration_error(labels, probabilities, bins=15):
    """Literally: the gap between confidence and accuracy in each bin, by the images in it."""
    confidence, right, error = probabilities.max(1), probabilities.argmax(1) == labels, 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        error += abs(confidence[inside].sum() - right[inside].sum()) / len(labels)
    return error


@pytest.fixture(scope="module")
def decided(taught, three_sets, tmp_path_factory):
    """A folder with a checkpoint, the one that was calibrated and given a cut-off, and what the choice printed."""
    folder = tmp_path_factory.mktemp("decided")
    shutil.copy(taught, folder / "checkpoint-last.pth")
    options = "--eval --resume checkpoint-last.pth --calibrate --sensitivity 0.9 --positive ring --prevalence 0.02"
    told = run_here(f"{RUN} {options} --data_path {three_sets} --output_dir test", folder).stdout
    (folder / "told.txt").write_text(told)
    return folder


DECIDED = "checkpoint-last-calibrated-cutoff.pth"


def test_the_temperature_is_the_best_on_val_and_applied_to_test(decided, taught, three_sets):
    results, rows = (
        json.loads((decided / "test" / "metrics.json").read_text()),
        rows_of(decided / "test" / "predictions.csv"),
    )
    temperature, effect = results["temperature"], results["temperature_effect"]
    judged = {split: seen(taught, images(three_sets / split))[1:] for split in ("val", "test")}
    logits, labels = judged["val"]

    def loss(divisor):
        return -log_softmax(logits / divisor, axis=1)[np.arange(len(labels)), labels].mean()

    assert temperature > 1.2 and loss(temperature) < min(loss(temperature * 0.98), loss(temperature * 1.02), loss(1))
    for split, (logits, labels) in judged.items():
        for when, divisor in (("before", 1), ("after", temperature)):
            probabilities = softmax(logits / divisor, axis=1)
            squares = [brier_score_loss(labels == number, probabilities[:, number]) for number in range(4)]
            assert effect[split][when]["brier_score"] == pytest.approx(sum(squares), abs=1e-5)
            error = calibration_error(labels, probabilities)
            assert effect[split][when]["expected_calibration_error"] == pytest.approx(error, abs=1e-4)
            assert effect[split][when]["log_loss"] == pytest.approx(
                log_loss(labels, probabilities, labels=range(4)), abs=1e-5
            )
            told = effect[split][when]
            line = f"log loss {told['log_loss']:.4f}, expected calibration error "
            line += f"{100 * told['expected_calibration_error']:.2f} %, Brier score {told['brier_score']:.4f}"
            assert re.search(f"^  {split}, {when} +{line}$", (decided / "told.txt").read_text(), re.M)
    assert effect["val"]["after"]["log_loss"] < effect["val"]["before"]["log_loss"]
    logits, labels = judged["test"]
    assert [row["file"] for row in rows] == images(three_sets / "test")
    assert probabilities_of(rows) == pytest.approx(softmax(logits / temperature, axis=1), abs=1e-5)
    assert [row["prediction"] for row in rows] == [CLASSES[number] for number in logits.argmax(1)]
    assert results["loss"] == pytest.approx(log_loss(labels, probabilities_of(rows), labels=range(4)), rel=1e-5)
    for name in ("expected_calibration_error", "brier_score"):
        assert results["calibration"][name] == effect["test"]["after"][name]


def test_the_cutoff_is_the_highest_on_val_and_applied_to_test(decided, taught, three_sets):
    results, rows = (
        json.loads((decided / "test" / "metrics.json").read_text()),
        rows_of(decided / "test" / "predictions.csv"),
    )
    cutoff = results["cutoff"]
    _, logits, labels = seen(taught, images(three_sets / "val"))
    scores = softmax(logits / results["temperature"], axis=1)[labels == 2, 2]
    assert (scores >= cutoff["cutoff"]).mean() >= 0.9
    assert (scores >= scores[scores >= cutoff["cutoff"]].min() + 1e-6).mean() < 0.9
    truth = np.array([row["label"] == "ring" for row in rows])
    called = np.array([float(row["p(ring)"]) >= cutoff["cutoff"] for row in rows])
    assert [row["cutoff(ring)"] for row in rows] == ["above" if each else "below" for each in called]
    assert cutoff["sensitivity"] == pytest.approx(recall_score(truth, called))
    assert cutoff["specificity"] == pytest.approx(recall_score(~truth, ~called))
    assert cutoff["positive_predictive_value"] == pytest.approx(precision_score(truth, called))
    assert cutoff["negative_predictive_value"] == pytest.approx(precision_score(~truth, ~called))
    at = results["cutoff_at_prevalence"]
    ill, called_ill = 0.02 * cutoff["sensitivity"], 0.98 * (1 - cutoff["specificity"])
    assert at["positive_predictive_value"] == pytest.approx(ill / (ill + called_ill))
    low, high = at["intervals"]["positive_predictive_value"]
    assert low < at["positive_predictive_value"] < high
    told = (decided / "told.txt").read_text()
    assert all(line in told for line in decision_in_words(results))
    assert set(decision_in_words(results)) < set(evaluation_section(decided / "test")["notes"])  # of the report
    assert f"sensitivity       {100 * cutoff['sensitivity']:.2f} % (" in told and "at a prevalence of 2 %" in told
    assert (
        f"pos. pred. value  {100 * at['positive_predictive_value']:.2f} % (" in told
        and "a sensitivity of at least 90 %" in told
    )


def test_the_checkpoint_keeps_the_decision_and_the_old_one_stays(decided, taught):
    assert (decided / "checkpoint-last.pth").read_bytes() == taught.read_bytes()
    assert {path.name for path in decided.glob("*.pth")} == {"checkpoint-last.pth", DECIDED} and not list(decided.glob(".*"))
    old, new = content_of(decided / "checkpoint-last.pth"), content_of(decided / DECIDED)
    results = json.loads((decided / "test" / "metrics.json").read_text())
    assert new["decision"]["temperature"] == results["temperature"]
    assert new["decision"]["cutoff"]["value"] == results["cutoff"]["cutoff"]
    assert all(torch.equal(value, new["model"][name]) for name, value in old["model"].items())
    assert new["args"] == old["args"] and new["classes"] == CLASSES and old["maps"] is not None
    assert not {"optimizer", "scaler", "maps"} & new.keys()


def test_later_evaluations_and_predictions_decide_alike(call, decided, three_sets, tmp_path):
    status, out, err = call(
        f"{RUN} --eval --resume {decided / DECIDED} --data_path {three_sets} --output_dir {tmp_path / 'e'} --prevalence 0.02"
    )
    assert status == 0, err
    first, again = (json.loads((folder / "metrics.json").read_text()) for folder in (decided / "test", tmp_path / "e"))
    assert "chosen on val" in out and first.pop("checkpoint") in again.pop("checkpoint")
    del first["temperature_effect"]["val"]
    assert again == first
    rows = rows_of(tmp_path / "e" / "predictions.csv")
    assert rows == rows_of(decided / "test" / "predictions.csv")
    status, out, err = call(
        f"{RUN} --predict {three_sets / 'test'} --resume {decided / DECIDED} --output_dir {tmp_path / 'p'}"
    )
    assert (status, err) == (0, "")
    assert rows_of(tmp_path / "p" / "predictions.csv") == [
        {name: value for name, value in row.items() if name != "label"} for row in rows
    ]
    above = sum(row["cutoff(ring)"] == "above" for row in rows)
    assert f"cutoff(ring): {above} above, {40 - above} below" in out and "fitted on val" in out


def test_choosing_on_val_and_reporting_on_val_is_remarked_upon(call, own, three_sets, tmp_path):
    command = f"{RUN} --eval --split val --resume {own} --data_path {three_sets} --output_dir {tmp_path / 'val'}"
    status, out, err = call(f"{command} --calibrate --youden --positive skull")
    assert status == 0, err
    results = json.loads((tmp_path / "val" / "metrics.json").read_text())
    assert list(results["temperature_effect"]) == ["val"]
    for words in ("the temperature was fitted on these images", "the cut-off was chosen on these images"):
        assert any(words in line for line in results["remarks"]) and f"note: {words}" in out
    gain = results["cutoff"]["sensitivity"] + results["cutoff"]["specificity"]
    _, logits, labels = seen(own, images(three_sets / "val"))
    scores = softmax(logits / results["temperature"], axis=1)[:, 3]
    sums = [(scores[labels == 3] >= edge).mean() + (scores[labels != 3] < edge).mean() for edge in scores]
    assert gain == pytest.approx(max(sums))


def test_a_decision_after_another(call, own, three_sets, tmp_path):
    """A temperature, then a cut-off; nothing is replaced unprompted; training goes on from the first checkpoint."""
    where = f"--data_path {three_sets} --device cpu --amp fp32"
    calibrated, both = own.with_name("checkpoint-last-calibrated.pth"), own.with_name(DECIDED)
    assert call(f"{RUN} --eval --resume {own} {where} --calibrate --output_dir {tmp_path / 'a'}")[0] == 0
    expect_one_line(
        call(f"{RUN} --eval --resume {own} {where} --calibrate --output_dir {tmp_path / 'new'}"),
        [calibrated.name, "there already", "--overwrite"],
    )
    expect_one_line(
        call(f"{RUN} --eval --resume {calibrated} {where} --youden --positive base --output_dir {tmp_path / 'a'}"),
        ["holds an evaluation of", "--overwrite"],
    )
    assert not (tmp_path / "new").exists() and not both.exists()
    status, _, err = call(
        f"{RUN} --eval --resume {calibrated} {where} --specificity 0.8 --positive base --output_dir {tmp_path / 'b'}"
    )
    assert status == 0, err
    kept = [content_of(path)["decision"] for path in (calibrated, both)]
    assert kept[0]["temperature"] == kept[1]["temperature"] and kept[0]["cutoff"] is None
    assert kept[1]["cutoff"]["rule"] == "specificity=0.8"
    expect_one_line(
        call(f"{RUN} --eval --resume {both} {where} --calibrate --output_dir {tmp_path / 'c'}"), ["cut-off", "anew"]
    )
    expect_one_line(call(f"{RUN} --resume {both} --data_path {three_sets}"), [both.name, "go on from checkpoint-last.pth"])
    content = torch.load(both)
    for wrong in ({"temperature": "warm", "cutoff": None}, {"temperature": 1.0, "cutoff": {"positive": "rung"}}, [1]):
        torch.save({**content, "decision": wrong}, tmp_path / "wrong.pth")
        command = f"{RUN} --predict {three_sets} --resume {tmp_path / 'wrong.pth'} --output_dir {tmp_path / 'c'}"
        expect_one_line(call(command), ["wrong.pth", "damaged"])
    assert not (tmp_path / "c").exists()
