"""``python -m util.compare A B``: differences and test against other ways to compute them; sets that differ are refused."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, run_here
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from evaluation.made_up import CLASSES, two_models
from util.compare import conclusion, main
from util.evaluation.comparison import align, compare
from util.evaluation.predictions import Predictions, read_predictions, write_predictions
from util.evaluation.resampling import resample_counts
from util.system.errors import run_script


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    def run(a, b, *options):
        for name, predictions in (("a", a), ("b", b)):
            (tmp_path / name).mkdir(exist_ok=True)
            write_predictions(tmp_path / name / "predictions.csv", predictions)
        monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path / "a"), str(tmp_path / "b" / "predictions.csv"), *options])
        status = 0
        try:
            run_script(main)
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def test_differences_interval_and_test():
    a, b = two_models()
    found = compare(a, b, ordered=True, resamples=100)
    right_a, right_b = (each.probabilities.argmax(1) == each.labels for each in (a, b))
    only_a, only_b = (right_a & ~right_b).sum(), (right_b & ~right_a).sum()
    assert (found["only_a"], found["only_b"]) == (only_a, only_b) and only_a > 0
    tail = binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)
    assert found["p"] == pytest.approx(min(1, 2 * tail))
    auc = found["metrics"]["macro_auc"]
    expected = [roc_auc_score(a.labels, each.probabilities, multi_class="ovr") for each in (a, b)]
    assert (auc["a"], auc["b"]) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    differences = []
    for count in np.concatenate(list(resample_counts(len(a.files), resamples=100))).astype(int):
        drawn = np.repeat(np.arange(len(count)), count)
        one, other = (roc_auc_score(a.labels[drawn], each.probabilities[drawn], multi_class="ovr") for each in (a, b))
        differences.append(other - one)
    assert auc["interval"] == pytest.approx(np.quantile(differences, [0.025, 0.975]))
    assert auc["difference"] == pytest.approx(expected[1] - expected[0])
    assert set(found["metrics"]) == {
        "top1",
        "balanced_accuracy",
        "macro_f1",
        "macro_auc",
        "average_precision",
        "quadratic_kappa",
    }


def test_told_in_a_table_and_a_sentence(command):
    a, b = two_models(better=1.5)
    status, out, _ = command(a, b, "--ordered")
    found = compare(a, b)
    row = found["metrics"]["top1"]
    assert status == 0
    assert f"{100 * row['a']:.2f} %" in out and f"{100 * row['difference']:+.2f}" in out and "quadratic kappa" in out
    last = out.strip().splitlines()[-1]
    assert last.startswith(f"B's top-1 is {100 * row['difference']:.2f} points higher than A's (95 % interval ")
    assert f"only B classifies {found['only_b']} images right, only A {found['only_a']}; McNemar's exact test p = " in last
    assert last.endswith("chance alone seldom gives so much.")
    out = command(b, a)[1]
    assert "points lower than A's" in out
    out = command(a, a)[1]
    assert "A and B have the same top-1 (95 % interval +0.00 to +0.00" in out and "p = 1): this may be chance" in out


def test_other_order_of_images_and_classes_changes_nothing(command):
    a, b = two_models()
    status, plain, _ = command(a, b)
    order, columns = np.random.default_rng(0).permutation(len(b.files)), [2, 0, 1]
    moved = Predictions(
        [f"/elsewhere/{b.files[index]}" for index in order],
        b.probabilities[order][:, columns],
        [CLASSES[index] for index in columns],
        np.argsort(columns)[b.labels[order]],
    )
    same = align(a, moved)
    assert (same.probabilities == b.probabilities).all() and (same.labels == b.labels).all()
    assert command(a, moved) == (status, plain, "")


def test_patients_are_resampled_where_they_are_known(command):
    a, b = two_models()
    owners = [f"p{index // 10}" for index in range(len(a.files))]
    out = command(a, b._replace(patients=owners))[1]
    assert "120 images of 12 patients, who are resampled" in out and "takes images for independent" in out
    assert out != command(a._replace(patients=owners), b._replace(patients=owners), "--seed", "1")[1]
    other = ["p7", *owners[1:]]
    status, _, err = command(a._replace(patients=other), b._replace(patients=owners))
    assert status == 2 and f"{a.files[0].removeprefix('data/')} is of patient p7 in A and of p0 in B" in err.replace(
        "data/", ""
    )


def test_one_image_has_differences_without_intervals():
    a, b = (
        Predictions(["data/x.png"], np.array([row]), ["no", "yes"], np.array([1]), None) for row in ([0.9, 0.1], [0.2, 0.8])
    )
    assert compare(a, b)["metrics"]["top1"] == {"a": 0, "b": 1, "difference": 1, "interval": None}


def test_with_patients_the_interval_decides_and_without_the_test():
    """Where ten images of a patient are wrong together, a small p means little."""
    top1 = {"a": 0.8, "b": 0.9, "difference": 0.1, "interval": [-0.01, 0.2]}
    result = {"metrics": {"top1": top1}, "only_a": 1, "only_b": 13, "p": 0.002, "patients": 9}
    assert conclusion(result).endswith("this may be chance.")
    assert conclusion(result | {"patients": None}).endswith("chance alone seldom gives so much.")


@pytest.mark.parametrize("patients", [1, 3])
def test_a_handful_of_patients_gives_no_verdict(patients, command):
    a, b = two_models()
    owners = [f"p{index % patients}" for index in range(len(a.files))]
    _, out, _ = command(a._replace(patients=owners), b._replace(patients=owners))
    assert f"{patients} patient{'s are' if patients > 1 else ' is'} too few to tell whether this is chance." in out
    assert ("95 % interval +" in out or "95 % interval -" in out) == (patients > 1)


def test_sets_that_differ_are_refused_by_name(command):
    a, b = two_models()
    shorter = b._replace(files=b.files[:-1], probabilities=b.probabilities[:-1], labels=b.labels[:-1])
    other = b._replace(files=[name.replace("/val/", "/test/") for name in b.files])
    relabelled = b._replace(labels=np.append((b.labels[0] + 1) % 3, b.labels[1:]))
    first, last = a.files[0].removeprefix("data/"), a.files[-1].removeprefix("data/")
    for one, two, words in (
        (a, shorter, f"{last} is in A and not in B"),
        (shorter, a, f"{last} is in B and not in A"),
        (a, other, f"{first} is in A and not in B"),
        (a, relabelled, f"{first} is labelled {CLASSES[a.labels[0]]} in A and {CLASSES[relabelled.labels[0]]} in B"),
        (a, b._replace(classes=["benign", "malignant", "none"]), "differ in their classes"),
    ):
        status, out, err = command(one, two)
        assert (status, out) == (2, "") and words in err and len(err.splitlines()) == 1, err
    assert command(a, b, "--resamples", "5")[0] == 2
    assert command(a, b, "--seed", "-1")[0] == 2


def test_a_relative_path_is_the_same_image():
    a, b = two_models()
    moved = b._replace(files=[os.path.join("..", "..", name) for name in b.files])
    assert (align(a, moved).labels == a.labels).all()


def test_as_a_user_runs_it(tmp_path):
    for name, predictions in zip("ab", two_models(), strict=True):
        (tmp_path / name).mkdir()
        write_predictions(tmp_path / name / "predictions.csv", predictions)
    command = [sys.executable, "-m", "util.compare", tmp_path / "a"]
    found = subprocess.run([*command, tmp_path / "b"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0 and "B's top-1 is" in found.stdout, found.stderr
    found = run_here(f"-m util.compare {tmp_path / 'a'} {tmp_path / 'c'}", ROOT, check=False)
    assert found.returncode == 2 and found.stderr == f"error: {tmp_path / 'c'} cannot be read: No such file or directory\n"


@pytest.mark.parametrize("classes", [["x ", "y"], ["a; b; c; d", "e; f; g; h"], ["a\tb\tc\td\te", "f"]])
def test_odd_names_of_classes_are_read_back(classes, tmp_path):
    written = Predictions(["1.png", "2.png"], np.array([[0.75, 0.25], [0.5, 0.5]]), classes, np.array([0, 1]))
    write_predictions(tmp_path / "predictions.csv", written)
    read = read_predictions(tmp_path)
    assert read.classes == [name.strip() for name in classes] and read.labels.tolist() == [0, 1]
    assert (read.probabilities == written.probabilities).all()
