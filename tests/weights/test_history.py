"""Weights that saw the images that judge what begins from them: trainings and evaluations say so."""

import json
import shutil

import numpy as np
import pytest
from conftest import TINY_FINETUNE, run_here
from PIL import Image

from util.weights.history import leak_before


@pytest.fixture(scope="module")
def mixed(phantoms, tmp_path_factory):
    """8 training and 8 validation images; half of the latter are copies of images that ``pretrained`` trained on."""
    root = tmp_path_factory.mktemp("mixed") / "data"
    for kind in (phantoms / "train").iterdir():
        new, seen = sorted((phantoms / "val" / kind.name).iterdir()), sorted(kind.iterdir())
        for split, files in (("train", new[:2]), ("val", [new[2], seen[0]])):
            (root / split / kind.name).mkdir(parents=True)
            for number, file in enumerate(files):
                shutil.copy(file, root / split / kind.name / f"{number}.png")
    return root


def told(start, what):
    return f"LEAK: {start} was trained on 4 of the 8 {what}, with their labels: the figures look too good"


def test_fine_tuning_and_its_evaluation_tell(pretrained, mixed, call, tmp_path):
    start, run = pretrained / "checkpoint-last.pth", tmp_path / "run"
    train = f"main_finetune.py {TINY_FINETUNE} --epochs 1 --warmup_epochs 0 --finetune {start} --output_dir {run}"
    status, out, _ = call(f"{train} --data_path {mixed}")
    assert status == 0 and f"note: {told(start, 'validation images')}\n" in out
    evaluate = (
        f"main_finetune.py --eval --resume {run / 'checkpoint-last.pth'} --device cpu --output_dir {tmp_path / 'eval'}"
    )
    status, out, _ = call(f"{evaluate} --data_path {mixed}")
    assert status == 0 and f"note: {told(start, 'images of val')}\n" in out
    assert told(start, "images of val") in json.loads((tmp_path / "eval" / "metrics.json").read_text())["remarks"]


def test_segmentation_and_its_evaluation_tell(pretrained, mixed, tmp_path):
    start, root = pretrained / "checkpoint-last.pth", tmp_path / "pairs"
    for split in ("train", "val"):
        for name in ("images", "masks/0"):
            (root / split / name).mkdir(parents=True)
        for number, file in enumerate(sorted((mixed / split).glob("*/*"))):
            shutil.copy(file, root / split / "images" / f"{number}.png")
            half = np.repeat(np.uint8([0, 255]), 16)[None].repeat(32, 0)
            Image.fromarray(half).save(root / split / "masks" / "0" / f"{number}.png")
    train = f"segmentation/train.py --device cpu --root {root} --output_dir {tmp_path / 'run'} --input_w 32 --input_h 32"
    out = run_here(f"{train} --checkpoint {start} --epochs 1 --batch_size 4 --num_workers 0", tmp_path).stdout
    assert f"note: {told(start, 'validation images')}\n" in out
    evaluate = f"segmentation/train.py --evaluate {tmp_path / 'run' / 'checkpoint-last.pth'} --device cpu --root {root}"
    out = run_here(f"{evaluate} --output_dir {tmp_path / 'eval'}", tmp_path).stdout
    assert f"note: {told(start, 'images of val')}\n" in out
    assert told(start, "images of val") in json.loads((tmp_path / "eval" / "metrics.json").read_text())["remarks"]


def test_an_evaluation_tells_only_what_it_knows_and_nothing_twice(pretrained, evaluated, phantoms, mixed):
    """Copies of a training's own images are counted beside the metrics already."""
    assert not [line for line in json.loads((evaluated / "metrics.json").read_text())["remarks"] if "LEAK" in line]
    judged = [str(path) for path in sorted((mixed / "val").glob("*/*"))]
    training = [str(path) for path in sorted((phantoms / "train").glob("*/*"))]
    options = {"finetune": str(pretrained / "checkpoint-last.pth")}
    assert leak_before(options, judged, "images", training[:1]) == told(options["finetune"], "images")
    assert leak_before(options, judged, "images", training) == ""
    assert leak_before({}, judged, "images", []) == leak_before({"finetune": "gone.pth"}, judged, "images", []) == ""
