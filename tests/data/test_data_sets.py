"""Data sets as the scripts take them: test sets, tables, patients, copies of training images."""

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_FINETUNE, TINY_PRETRAIN, content_of

from util.data.copies import copies_of
from util.data.folders import open_splits
from util.evaluation.predictions import Predictions
from util.evaluation.remarks import remarks
from util.phantom import write_phantoms
from util.weights import history

ONE_EPOCH = "--epochs 1 --warmup_epochs 0"


@pytest.fixture(scope="module")
def with_test_set(tmp_path_factory):
    """The phantoms with a test set, whose class "skull" is empty and one of whose images is a training image."""
    folder = tmp_path_factory.mktemp("sets") / "data"
    write_phantoms(folder, train=24, val=12, size=32, seed=0)
    write_phantoms(folder.parent / "more", train=12, val=12, size=32, seed=5)
    shutil.move(folder.parent / "more" / "val", folder / "test")
    shutil.rmtree(folder / "test" / "skull")
    copied = sorted((folder / "train" / "ring").iterdir())[0]
    shutil.copy(copied, folder / "test" / "ring" / "copy.png")
    return folder


def write_table(path, folder, patient=None, splits=("train", "val", "test")):
    """The folders as a table, rows in the folders' order."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split", *(["patient"] if patient else [])])
        for split in splits:
            for image in sorted((folder / split).glob("*/*")):
                name = [patient(split, image)] if patient else []
                rows.writerow([image.relative_to(path.parent), image.parent.name, split, *name])
    return path


def test_a_table_in_the_folders_order_gives_the_folders_weights(call, with_test_set, tmp_path):
    table = write_table(with_test_set.parent / "table.csv", with_test_set)
    for name, data in (("folders", with_test_set), ("table", table)):
        command = f"main_pretrain.py {TINY_PRETRAIN} {ONE_EPOCH} --sam_epoch 0 --data_path {data}"
        status, _, err = call(f"{command} --output_dir {tmp_path / name}")
        assert status == 0, err
    one, two = (content_of(tmp_path / name / "checkpoint-last.pth") for name in ("folders", "table"))
    assert all(torch.equal(one["model"][name], two["model"][name]) for name in one["model"])
    assert torch.equal(one["maps"], two["maps"])


def test_the_test_set_is_evaluated_and_never_trained_on(call, with_test_set, finetuned, tmp_path):
    start = f"main_finetune.py --eval --resume {finetuned / 'checkpoint-best.pth'} --device cpu --data_path {with_test_set}"
    status, out, err = call(f"{start} --ordered --output_dir {tmp_path / 'test'}")
    assert status == 0, err
    results = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert results["split"] == "test" and results["absent"] == ["skull"] and results["images"] == 10
    assert results["copies"] == 1 and results["without_copies"]["images"] == 9
    low, high = results["intervals"]["quadratic_kappa"]
    assert low <= results["quadratic_kappa"] <= high and f"quadratic kappa     {results['quadratic_kappa']:.4f} (" in out
    assert "quadratic_kappa" in results["without_copies"]
    assert "1 of these 10 images is a copy of a training image; without them top-1 is" in out
    assert not any("chosen on these images" in line for line in results["remarks"])
    status, out, err = call(f"{start} --split val --output_dir {tmp_path / 'val'}")
    assert status == 0 and "note: the epoch was chosen on these images" in out, err
    results = json.loads((tmp_path / "val" / "metrics.json").read_text())
    assert results["split"] == "val" and results["images"] == 12 and "copies" not in results


def test_patients_in_two_splits_are_named(call, with_test_set, tmp_path):
    table = with_test_set.parent / "leak.csv"
    write_table(table, with_test_set, lambda split, image: "p1" if image.name == "00000.png" else f"{split}-{image.stem}")
    command = f"main_pretrain.py {TINY_PRETRAIN} {ONE_EPOCH} --data_path {table} --output_dir {tmp_path / 'run'}"
    status, _, err = call(command)
    assert status == 2 and "1 patient is in more than one split: p1" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    status, out, err = call(f"{command} --on_patient_leak note")
    assert status == 0 and "note:" in out and "p1" in out, err


def test_intervals_resample_patients(call, with_test_set, finetuned, tmp_path):
    table = write_table(
        with_test_set.parent / "patients.csv", with_test_set, lambda split, image: f"{split}-{image.parent.name}"
    )
    results = {}
    for name, data in (("images", with_test_set), ("patients", table)):
        command = f"main_finetune.py --eval --resume {finetuned / 'checkpoint-last.pth'} --split val --device cpu"
        status, _, err = call(f"{command} --data_path {data} --output_dir {tmp_path / name}")
        assert status == 0, err
        results[name] = json.loads((tmp_path / name / "metrics.json").read_text())
    assert results["images"]["top1"] == results["patients"]["top1"]
    assert results["images"]["intervals"]["top1"] != results["patients"]["intervals"]["top1"]
    header = (tmp_path / "patients" / "predictions.csv").read_text().splitlines()[0]
    assert header.endswith(",patient") and "patient" not in (tmp_path / "images" / "predictions.csv").read_text()


@pytest.mark.parametrize("answer", ["note", "error", "drop"])
def test_copies_of_training_images_in_val(answer, call, phantoms, tmp_path):
    data = shutil.copytree(phantoms, tmp_path / "data")
    copied = sorted((data / "val" / "ring").iterdir())[0]
    shutil.copy(copied, data / "train" / "ring" / "copy-1.png")
    shutil.copy(copied, data / "train" / "ring" / "copy-2.png")
    command = f"main_finetune.py {TINY_FINETUNE} {ONE_EPOCH} --input_size 32 --patch_size 8 --data_path {data}"
    status, out, err = call(f"{command} --on_leak {answer} --output_dir {tmp_path / 'run'}")
    told = "1 of the 12 images of val is a copy of a training image"
    assert told in (err if answer == "error" else out)
    assert status == (2 if answer == "error" else 0)
    if answer != "error":
        assert f"{24 if answer == 'drop' else 26} training and 12 validation images" in out
        trained = tmp_path / "run" / "checkpoint-last.pth"
        evaluate = (
            f"main_finetune.py --eval --resume {trained} --device cpu --data_path {data} --output_dir {tmp_path / 'e'}"
        )
        status, out, err = call(evaluate)
        assert status == 0 and ("is a copy of a training image" in out) == (answer == "note"), err
        seen = history.seen(open_splits(str(data), ("val",))[0].paths, history.history(trained))
        assert len(seen) == (answer == "note")
        assert call(f"{evaluate} --on_leak drop")[0] == 2


def test_copies_are_found_by_content_and_not_by_name_or_size(tmp_path):
    for name, text in (("a", "same"), ("b", "same"), ("c", "othr"), ("d", "longer")):
        (tmp_path / name).write_text(text)
    a, b, c, d = (str(tmp_path / name) for name in "abcd")
    assert copies_of([a, c], [b, d]) == {a: b} and copies_of([c], [a, b, d]) == {}


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    reads, read = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: reads.append(file.name) or read(file, name))
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    for path in (a, b):
        Path(path).write_text("same")
    assert copies_of([a], [b]) == copies_of([a], [b]) == {a: b} and reads == [a, b]
    Path(b).write_text("othr")
    os.utime(b, (1, 1))
    assert copies_of([a], [b]) == {} and reads == [a, b, b]


def test_a_class_that_is_never_predicted_is_told():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    found = remarks(Predictions([], probabilities, ["a", "b", "c"], np.array([0, 1, 2])), [], chosen=[])
    assert found == {"remarks": ["no image is classified as b"]}


def test_one_pass_opens_what_is_asked_for(with_test_set):
    train, test = open_splits(str(with_test_set), ("train", "test"))
    assert (len(train), len(test)) == (24, 10) and train.classes == test.classes == ["base", "none", "ring", "skull"]
    assert set(test.labels) == {0, 1, 2} and train.patients is None
