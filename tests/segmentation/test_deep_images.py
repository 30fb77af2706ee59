"""Segmentation of images of more than 8 bits: one range, from the training images, kept in the checkpoint."""

import json

import numpy as np
import pytest
import torch
from conftest import content_of
from PIL import Image

from segmentation import train
from segmentation.data import apply, augmentation, open_for_training
from util.data.reading import Reading
from util.phantom import draw_phantom
from util.system.errors import run_script

TINY = "train.py --model vit_micro_patch8 --input_w 32 --input_h 32 --batch_size 4 --device cpu --num_workers 0"


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """8 + 4 phantoms of 12 bits as PNG; the validation images are half as bright, and a training image has a hot pixel."""
    root = tmp_path_factory.mktemp("pairs") / "seg"
    for number, (split, size) in enumerate((("train", 8), ("val", 4))):
        for name in ("images", "masks/0"):
            (root / split / name).mkdir(parents=True)
        for index in range(size):
            image, mask = draw_phantom("ring", (0, number, index), 36)
            levels = (image.astype(np.uint16) * 16 + index) // (1 + number)
            levels[0, 0] = 60000 if index == 2 else 0
            Image.fromarray(levels).save(root / split / "images" / f"{index}.png")
            Image.fromarray(mask.astype(np.uint16)).save(root / split / "masks" / "0" / f"{index}.png")
    return root


def test_pairs_share_the_range_of_training(deep):
    train_pairs, val_pairs = open_for_training(str(deep), ".png", ".png", None, "note", Reading())
    low, high = train_pairs.reading.intensity_range
    assert high < 5000 and val_pairs.reading == train_pairs.reading
    image, masks = val_pairs[1]
    levels = np.array(Image.open(deep / "val" / "images" / "1.png")).astype(np.float32)
    expected = torch.from_numpy(((levels - low) / (high - low)).clip(0, 1) * 255)
    torch.testing.assert_close(image[0], expected)
    assert masks.any() and masks.dtype == torch.bool
    augment = augmentation((32, 32), turn_probability=1, flips=True, crop_scale=(0.5, 1), color_jitter=0.3, antialias=True)
    image, masks = apply(augment, image, masks)
    assert image.dtype == torch.float32 and len(image.unique()) > 256 and image.min() >= 0 and 100 < image.max() <= 255
    assert set(masks.unique().tolist()) <= {0, 1}


def test_the_checkpoint_of_a_segmentation_keeps_the_range(deep, tmp_path, monkeypatch, capsys):
    def call(options):
        monkeypatch.setattr("sys.argv", f"{TINY} --root {deep} --output_dir {tmp_path}/{options}".split())
        run_script(train.main)
        return capsys.readouterr().out

    call("run --epochs 1")
    checkpoint = tmp_path / "run" / "checkpoint-last.pth"
    low, high = content_of(checkpoint)["args"]["intensity_range"]
    said = call(f"eval --evaluate {checkpoint}")
    assert f"val: intensity range {low:g} to {high:g} (as in training" in said
    assert json.loads((tmp_path / "eval" / "run.json").read_text())["options"]["intensity_range"] == [low, high]
    assert Image.open(tmp_path / "eval" / "masks" / "0" / "1.png").size == (36, 36)
    assert "val: intensity range 0 to 2000 " in call(f"typed --evaluate {checkpoint} --window 1000 2000")
    assert f"train: intensity range {low:g} to {high:g} " in call(f"run --epochs 2 --resume {checkpoint}")
