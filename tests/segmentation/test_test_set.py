"""The test set of a segmentation, copies of training images, and intervals, which a slow bootstrap gives too."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import log_of

from segmentation import train
from segmentation.intervals import intervals, weighted
from segmentation.metrics import count, summary
from util.evaluation.resampling import resample_counts
from util.phantom import write_phantoms
from util.system.errors import run_script

TRAIN = (
    "train.py --model vit_micro_patch8 --input_w 32 --input_h 32 --batch_size 4 --epochs 1 --lr 1e-3 --device cpu "
    "--num_workers 0 --protocol tuned"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """12 + 4 + 6 phantoms; one of test and one of val lie in train too, the latter twice."""
    folder = tmp_path_factory.mktemp("sets") / "seg"
    write_phantoms(folder, train=12, val=4, test=6, size=32, seed=0, segmentation=True)
    for split, name, copy in (("test", "00000", "a"), ("val", "00001", "b"), ("val", "00001", "c")):
        for kind in ("images", "masks/0"):
            shutil.copy(folder / split / kind / f"{name}.png", folder / "train" / kind / f"{copy}.png")
    return folder


def run(command, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", command.split())
    status = 0
    try:
        run_script(train.main)
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()


@pytest.mark.parametrize("answer", ["note", "error", "drop"])
def test_copies_of_training_images_in_val(answer, root, tmp_path, monkeypatch, capsys):
    """They are told of, and left out on request; test, which would be a thirteenth copy, is not looked at."""
    command = f"{TRAIN} --root {root} --on_leak {answer} --output_dir {tmp_path / 'run'}"
    status, out, err = run(command, monkeypatch, capsys)
    told = "1 of the 4 images of val is a copy of a training image (00001.png is b.png)"
    assert told in (err if answer == "error" else out) and status == (2 if answer == "error" else 0), err
    if answer != "error":
        assert f"{13 if answer == 'drop' else 15} training and 4 validation images" in out
        assert len(log_of(tmp_path / "run")) == 1
        evaluate = f"train.py --evaluate {tmp_path / 'run' / 'checkpoint-last.pth'} --root {root} --split val --device cpu"
        status, out, err = run(f"{evaluate} --output_dir {tmp_path / 'eval'}", monkeypatch, capsys)
        assert status == 0 and ("of a training image" in out) == (answer == "note"), err


def test_the_test_set_is_evaluated_and_never_trained_on(root, tmp_path, monkeypatch, capsys):
    data = shutil.copytree(root, tmp_path / "data")
    hidden = (data / "test").rename(tmp_path / "test")
    status, _, err = run(f"{TRAIN} --root {data} --output_dir {tmp_path / 'run'}", monkeypatch, capsys)
    assert status == 0, err
    evaluate = f"train.py --evaluate {tmp_path / 'run' / 'checkpoint-best.pth'} --root {data} --device cpu"
    results = {}
    for name, options in (("alone", ""), ("test", ""), ("val", "--split val")):
        if name == "test":
            hidden.rename(data / "test")
        status, out, err = run(f"{evaluate} {options} --output_dir {tmp_path / name}", monkeypatch, capsys)
        results[name] = json.loads((tmp_path / name / "metrics.json").read_text())
        assert status == 0 and f"evaluated: {'test' if name == 'test' else 'val'}" in out, err
        assert ("note: the epoch was chosen on these images" in out) == (name != "test")
        assert any("the epoch was chosen" in line for line in results[name]["remarks"]) == (name != "test")
    assert results["alone"] == results["val"] and results["val"]["split"] == "val"
    found = results["test"]
    assert found["split"] == "test" and found["images"] == 6 and found["copies"] == 1
    with open(tmp_path / "test" / "predictions.csv") as file:
        rows = [(row["file"], float(row["iou"])) for row in csv.DictReader(file)]
    assert [name for name, _ in rows] == sorted(str(path) for path in (data / "test" / "images").iterdir())
    unseen = np.mean([iou for name, iou in rows if not name.endswith("00000.png")])
    assert found["without_copies"]["images"] == 5
    assert found["without_copies"]["per_image"]["iou"] == pytest.approx(unseen, abs=1e-6)
    status, _, err = run(f"{evaluate} --split val --output_dir {tmp_path / 'test'}", monkeypatch, capsys)
    assert status == 2 and "holds an evaluation of" in err and "on test" in err
    (tmp_path / "test" / "masks" / "0" / "mine.png").touch()
    status, _, err = run(f"{evaluate} --split val --output_dir {tmp_path / 'test'} --overwrite", monkeypatch, capsys)
    left = {path.stem for path in (tmp_path / "test" / "masks" / "0").iterdir()}
    assert status == 0 and left == {"mine", *(path.stem for path in (data / "val" / "images").iterdir())}, err
    status, _, err = run(f"{evaluate} --output_dir {tmp_path / 'test'} --overwrite --figure_format pdf", monkeypatch, capsys)
    assert status == 0 and [path.name for path in (tmp_path / "test").glob("sheet.*")] == ["sheet.pdf"], err
    truth = (data / "test" / "masks" / "0" / "00000.png").read_bytes()
    for other in (data, shutil.copytree(data, tmp_path / "another")):
        status, _, err = run(f"{evaluate} --output_dir {other / 'test'} --overwrite", monkeypatch, capsys)
        assert status == 2 and "were not predicted by an evaluation" in err
    assert (data / "test" / "masks" / "0" / "00000.png").read_bytes() == truth
    status, _, err = run(f"{TRAIN} --root {data} --split test", monkeypatch, capsys)
    assert status == 2 and "--split is for --evaluate" in err


def made_up(images=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hardness = torch.rand(images, 1, 1, 1, generator=generator)
    true = torch.rand(images, 2, 8, 8, generator=generator) < 0.3
    return (torch.rand(images, 2, 8, 8, generator=generator) < hardness) ^ true, true


def test_each_resample_has_the_metrics_of_its_images():
    predicted, true = made_up(12)
    true[:6, 1] = False  # so that sensitivity is not defined for some images
    counts = count(predicted, true)
    for drawn in resample_counts(12, resamples=20, seed=1):
        found = weighted(counts, torch.from_numpy(drawn))
        for row, times in enumerate(torch.from_numpy(drawn).long()):
            chosen = torch.arange(12).repeat_interleave(times)
            expected = summary(count(predicted[chosen], true[chosen]), 12, ["a", "b"])["per_class"]
            for index, name in enumerate("ab"):
                for (kind, metric), values in found.items():
                    assert values[row, index] == pytest.approx(expected[name][kind][metric], abs=1e-12, nan_ok=True)


def test_intervals_lie_around_the_metrics_and_are_the_same_each_time():
    counts = count(*made_up())
    found, values = intervals(counts, ["a", "b"]), summary(counts, 8, ["a", "b"])
    assert found == intervals(counts, ["a", "b"]) != intervals(counts, ["a", "b"], seed=1)
    for kind in ("per_image", "whole_set"):
        for name, (low, high) in found[kind].items():
            assert low < values[kind][name] < high
            own_low, own_high = found["per_class"]["b"][kind][name]
            assert own_low < values["per_class"]["b"][kind][name] < own_high
    more = intervals(count(*made_up(300)), ["a", "b"])["per_image"]["iou"]
    low, high = found["per_image"]["iou"]
    assert 2 < (high - low) / (more[1] - more[0]) < 5  # ten times as many images: about a third of the width
    assert intervals(count(*made_up(1)), ["a", "b"])["per_image"]["iou"] is None
    json.dumps(found, allow_nan=False)


def test_the_interval_of_the_mean_holds_the_truth_as_often_as_it_says():
    everything, held = count(*made_up(20_000, seed=9)), []
    true = summary(everything, 8, ["a", "b"])["per_image"]["dice"]
    for start in range(0, 6000, 60):
        part = type(everything)(*(each[start : start + 60] for each in everything))
        low, high = intervals(part, ["a", "b"], resamples=200, seed=start)["per_image"]["dice"]
        held.append(low <= true <= high)
    assert 0.87 < np.mean(held) < 1
