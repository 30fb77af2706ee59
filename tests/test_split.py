"""``python -m util.split``: every image once, classes and patients alike, the same each time; what cannot be is named."""

import csv
import errno
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from util.data.records import read_records
from util.data.tables import write_table
from util.split import cross_validation, divide, main, take
from util.system import errors

SPLITS = ("train", "val", "test")


@pytest.fixture
def images(tmp_path) -> Path:
    """120 + 60 + 30 files that are called images, in three classes; splitting does not open them."""
    for name, count in (("benign", 120), ("malignant", 60), ("normal", 30)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(count):
            (tmp_path / "data" / name / f"{name}{index:03}.png").touch()
    return tmp_path / "data"


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    def run(*options):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["split", *map(str, options)])
        status = 0
        try:
            errors.run_script(main)
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def patients_file(images, path, of=4):
    """Patients with up to ``of`` images each, of one class or two."""
    files = sorted(images.glob("*/*"))
    rng, owners = np.random.default_rng(0), []
    while len(owners) < len(files):
        owners += [f"p{len(owners):03}"] * rng.integers(1, of + 1)
    write_table(path, ["path", "patient"], [(file.name, owner) for file, owner in zip(files, owners, strict=False)])
    return path


def test_by_image(images, command, tmp_path):
    status, out, _ = command("data", "--shares", 0.7, 0.1, 0.2, "--output", "split.csv")
    assert status == 0 and "split by image" in out
    found = rows("split.csv")
    assert sorted(row["path"] for row in found) == sorted(
        f"data/{path.parent.name}/{path.name}" for path in images.glob("*/*")
    )
    count = Counter((row["label"], row["split"]) for row in found)
    for label, total in (("benign", 120), ("malignant", 60), ("normal", 30)):
        assert [count[label, split] for split in SPLITS] == [0.7 * total, 0.1 * total, 0.2 * total]
        assert f"{label:<24}{count[label, 'train']:>9}{count[label, 'val']:>9}{count[label, 'test']:>9}" in out
    records = read_records(Path("split.csv"), needed=SPLITS)
    assert len(records) == 210 and all(record.patient is None for record in records)
    first = Path("split.csv").read_text()
    for seed, same in ((0, True), (1, False)):
        Path("split.csv").unlink()
        assert command("data", "--output", "split.csv", "--seed", seed)[0] == 0  # 0.7 0.1 0.2 unless said otherwise
        assert (Path("split.csv").read_text() == first) == same


def test_two_shares_as_in_the_paper(images, command):
    command("data", "--shares", 0.7, 0.3, "--output", "split.csv")
    count = Counter((row["label"], row["split"]) for row in rows("split.csv"))
    assert count == {(name, split): n for name, a, b in (("benign", 84, 36), ("malignant", 42, 18), ("normal", 21, 9))
                     for split, n in (("train", a), ("val", b))}  # fmt: skip


def test_by_patient(images, command, tmp_path):
    patients_file(images, tmp_path / "patients.csv")
    status, out, _ = command("data", "--patients", "patients.csv", "--output", "split.csv")
    assert status == 0 and "split by patient" in out
    found = rows("split.csv")
    assert len(found) == 210 and list(found[0]) == ["path", "label", "split", "patient"]
    splits_of = {}
    for row in found:
        splits_of.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in splits_of.values()) and len(splits_of) > 70
    for label, total in (("benign", 120), ("malignant", 60), ("normal", 30)):
        count = Counter(row["split"] for row in found if row["label"] == label)
        for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
            assert abs(count[split] - share * total) <= 4, (label, count)
    assert len(read_records(Path("split.csv"), needed=SPLITS)) == 210  # no patient in two splits: no error


def test_folds(images, command, tmp_path):
    patients_file(images, tmp_path / "patients.csv")
    for options in ((), ("--patients", "patients.csv")):
        name = f"folds{len(options)}"
        status, out, _ = command("data", "--folds", 5, "--output", f"{name}.csv", *options)
        assert status == 0 and sorted(path.name for path in tmp_path.glob(f"{name}*")) == [
            f"{name}-fold{k}.csv" for k in range(1, 6)
        ]
        tested = Counter()
        for number in range(1, 6):
            records = read_records(tmp_path / f"{name}-fold{number}.csv", needed=SPLITS)
            assert len(records) == 210
            tested.update(record.path for record in records if record.split == "test")
            shares = [np.mean([record.split == split for record in records]) for split in SPLITS]
            assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.025), out
        assert set(tested.values()) == {1} and len(tested) == 210


def test_few_patients_of_any_size_are_chosen_about_as_well_as_the_best_one_alone():
    generator = np.random.default_rng(0)
    for trial in range(100):
        sizes = generator.integers(1, 60, generator.integers(3, 9))
        patients, labels = np.repeat(np.arange(len(sizes)), sizes), generator.choice(["yes", "no"], sizes.sum())

        def far(chosen, labels=labels):
            return sum(abs((labels[chosen] == name).sum() - 0.2 * (labels == name).sum()) for name in ("yes", "no"))

        chosen = take(labels, patients, 0.2, seed=trial)
        assert 0 < len(chosen) < len(labels)
        best = min(far(np.flatnonzero(patients == patient)) for patient in set(patients))
        assert far(chosen) <= best + 0.05 * len(labels)


@pytest.mark.parametrize(
    ("shares", "largest"), [((0.96, 0.02, 0.02), 2), ((0.98, 0.02), 2), ((0.7, 0.1, 0.2), 40), ((0.7, 0.1, 0.2), 120)]
)
def test_patients_of_any_size_come_near_the_shares(shares, largest):
    """Small shares, and one patient with many of the images."""
    sizes = [largest, *([2] * 200)]
    patients = np.repeat(np.arange(201), sizes)
    labels = np.array(["yes", "no"] * (len(patients) // 2))
    for seed in range(3):
        splits = divide(labels, patients, shares, seed)
        assert all(len(set(splits[patients == patient])) == 1 for patient in range(201))
        for split, share in zip(SPLITS, shares, strict=False):
            assert (splits == split).mean() == pytest.approx(share, abs=0.03)
            assert (labels[splits == split] == "yes").mean() == pytest.approx(0.5)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_of_few_patients_neither_none_nor_all_are_taken(share):
    labels, patients = np.array(["yes", "no"] * 6), np.repeat([0, 1, 2], 4)
    for seed in range(5):
        assert len({*patients[take(labels, patients, share, seed)]}) in (1, 2)


def test_a_table_or_split_folders_can_be_split_anew(images, command, tmp_path):
    patients_file(images, tmp_path / "patients.csv")
    command("data", "--patients", "patients.csv", "--output", "first.csv")
    (tmp_path / "deep").mkdir()
    status, out, _ = command("first.csv", "--shares", 0.5, 0.5, "--output", "deep/second.csv")
    assert status == 0 and "split by patient" in out
    second = rows("deep/second.csv")
    assert {row["path"].split("/")[0] for row in second} == {".."}
    assert {row["patient"] for row in second} == {row["patient"] for row in rows("first.csv")}
    assert len(read_records(Path("deep/second.csv"))) == 210
    for split in ("train", "val"):
        (tmp_path / "parts" / split).mkdir(parents=True)
    for name in ("benign", "malignant"):
        (images / name).rename(tmp_path / "parts" / "train" / name)
        (tmp_path / "parts" / "val" / name).mkdir()
        (tmp_path / "parts" / "val" / name / "one more.png").touch()
    assert command("parts", "--output", "third.csv")[0] == 0
    assert len(rows("third.csv")) == 182


def test_few_patients_of_very_different_sizes():
    rng = np.random.default_rng(0)
    for seed in range(20):
        owners = np.repeat(np.arange(12), rng.integers(1, 40, size=12))
        labels = np.where(owners % 2 == 0, "a", "b")
        splits = divide(labels, owners, (0.6, 0.2, 0.2), seed)
        assert {split: {*owners[splits == split]} for split in SPLITS}.keys() == set(splits)
        assert sum(len({*owners[splits == split]}) for split in SPLITS) == 12
    labels, owners = np.repeat(["a", "b"], 500), np.arange(1000) // 2
    for splits in cross_validation(labels, owners, 4, 0.1, 0):
        assert [(splits == split).sum() for split in SPLITS] == pytest.approx([675, 75, 250], abs=8)


@pytest.mark.filterwarnings("error")
def test_shares_of_patients_are_met_where_classes_are_small():
    labels = np.repeat(list("abcd"), 12)
    owners = np.array([f"{label}{index // 2}" for index, label in enumerate(labels)])
    for share in (0.2, 0.25, 1 / 3, 0.4, 0.5, 0.6):
        assert len(take(labels, owners, share, seed=0)) == pytest.approx(48 * share, abs=1.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("missing", ["missing", "no such folder or table"]),
        ("data --shares 0.7 0.1 0.1", ["--shares", "0.9, not to 1"]),
        ("data --shares 0.8 0 0.2", ["--shares 0.8 0.0 0.2", "above 0"]),
        ("data --shares 1", ["--shares", "two or three"]),
        ("data --shares nan 0.5", ["--shares", "nan is outside"]),
        ("data --folds 1", ["--folds 1", "2 or more"]),
        ("data --folds 5 --shares 0.6 0.1 0.3", ["--folds 5", "0.2 of the images, not 0.3"]),
        ("data --folds 40", ["class normal has 30 images", "40 parts"]),
        ("data --seed -1", ["--seed", "-1 is outside"]),
        ("data --shares 0.995 0.005", ["each part needs one of each class"]),
        ("data --shares 0.97 0.03", ["no image of normal", "into val"]),
        ("data --patients patients.csv", ["patients.csv", "cannot be read"]),
        ("data/benign", ["data/benign", "no folder of a class"]),
        ("one", ["at least two classes"]),
        ("hollow", ["no image in b/"]),
    ],
)
def test_what_cannot_be(options, words, images, command, tmp_path):
    (tmp_path / "one" / "a").mkdir(parents=True)
    (tmp_path / "one" / "a" / "x.png").touch()
    for name in "ab":
        (tmp_path / "hollow" / name).mkdir(parents=True)
    (tmp_path / "hollow" / "a" / "x.png").touch()
    if "0.03" in options:  # a class so rare that its share is no image
        for index in range(4, 30):
            (images / "normal" / f"normal{index:03}.png").unlink()
    status, out, err = command(*options.split(), "--output", "split.csv")
    assert status == 2 and len(err.splitlines()) == 1 and err.startswith("error: ") and not out, err
    assert all(word in err for word in words), err
    assert not list(tmp_path.glob("split*"))


def test_nothing_is_overwritten_or_left_half_written(images, command, tmp_path, monkeypatch):
    (tmp_path / "split-fold3.csv").write_text("mine")
    status, _, err = command("data", "--folds", 5, "--output", "split.csv")
    assert status == 2 and "split-fold3.csv exists" in err and len(list(tmp_path.glob("split*"))) == 1
    (tmp_path / "split-fold3.csv").unlink()
    for folds in ((), ("--folds", 5)):
        status, _, err = command("data", *folds, "--output", ".")
        assert status == 2 and "--output . is a folder" in err
    status, _, err = command("data", "--output", "nowhere/split.csv")
    assert status == 2 and "cannot be written" in err

    def full(path, columns, rows):
        if "fold3" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_table(path, columns, rows)

    monkeypatch.setattr("util.split.write_table", full)
    assert command("data", "--folds", 5, "--output", "split.csv")[0] == 1
    assert not list(tmp_path.glob("split*"))


def test_as_a_user_runs_it(images, tmp_path):
    command = f"{sys.executable} -m util.split {images} --shares 0.7 0.3 --output {tmp_path / 'split.csv'}"
    result = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0 and result.stdout.startswith(f"{tmp_path / 'split.csv'}\n"), result.stderr
    assert len(read_records(tmp_path / "split.csv")) == 210
