"""Segmentation's folders as people have them: hidden files, links, unreadable files, data that changed between starts."""

import shutil
import sys

import pytest
from conftest import content_of
from PIL import Image
from test_errors import expect_one_line

from segmentation import train
from segmentation.data import Pairs, open_for_training
from util.data.reading import AS_IT_IS
from util.phantom import write_phantoms
from util.system.errors import run_script as run_main

TINY = "--model vit_micro_patch8 --input_w 32 --input_h 32 --batch_size 4 --device cpu --num_workers 0 --epochs 2"


@pytest.fixture
def root(tmp_path):
    write_phantoms(tmp_path / "data", train=8, val=4, size=32, seed=0, segmentation=True)
    return tmp_path / "data"


@pytest.fixture
def call(monkeypatch, capsys, root):
    def run(options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", f"segmentation/train.py {TINY} --root {root} {options}".split())
        status = 0
        try:
            run_main(train.main)
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_hidden_files_are_no_images_and_hidden_folders_no_classes(root):
    expected = [pairs.paths for pairs in open_for_training(str(root), ".png", ".png", 1, "note", AS_IT_IS)]
    (root / "train" / "images" / "._00001.png").write_text("of another program")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (root / "val" / "masks" / name).mkdir()
    assert [pairs.paths for pairs in open_for_training(str(root), ".png", ".png", 1, "note", AS_IT_IS)] == expected


def test_files_of_both_splits_that_cannot_be_used_are_named_at_once(root, call, tmp_path):
    broken = [root / "train" / "images" / "00001.png", root / "val" / "masks" / "0" / "00002.png"]
    for path in broken:
        path.write_bytes(b"\x89PNG")
    expect_one_line(call(f"--output_dir {tmp_path / 'o'}"), ["2 images: ", *map(str, broken), "repair or remove"])


def test_images_of_another_extension_are_noted(root, capsys):
    shutil.copy(root / "train" / "images" / "00000.png", root / "train" / "images" / "one.PNG")
    Pairs(str(root), "train", ".png", ".png")
    assert "note: 1 image is not *.png (--img_ext)" in capsys.readouterr().out


def test_masks_that_hold_their_shape_in_their_transparency_are_noted(root, capsys):
    def noted() -> bool:
        open_for_training(str(root), ".png", ".png", 1, "note", AS_IT_IS)
        return "all masks of train cover their images whole" in capsys.readouterr().out

    assert not noted()
    for path in (root / "train" / "masks" / "0").iterdir():
        shape = Image.open(path).convert("L")
        white = Image.new("L", shape.size, 255)
        Image.merge("RGBA", (white, white, white, shape)).save(path)
    assert noted()


def test_a_split_of_empty_masks_is_noted(root, capsys):
    for path in (root / "train" / "masks" / "0").iterdir():
        Image.new("L", Image.open(path).size).save(path)
    open_for_training(str(root), ".png", ".png", 1, "note", AS_IT_IS)
    assert "note: all masks of train are empty" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("link", "target", "words"),
    [("val", "train", "train/ and val/ are one folder"), ("val/masks/1", ".", "val/masks/1 is a symbolic link that leads")],
)
def test_links_that_mislead_are_refused(link, target, words, root, call, tmp_path):
    shutil.rmtree(root / link, ignore_errors=True)
    (root / link).symlink_to(target)
    expect_one_line(call(f"--output_dir {tmp_path / 'o'}"), [words])


def test_resuming_says_what_changed_and_early_stopping_ends_it(root, call, tmp_path):
    run = f"--output_dir {tmp_path / 'run'}"
    status, _, err = call(run)
    assert status == 0, err
    status, out, err = call(f"{run} --resume auto --epochs 3")
    assert status == 0 and "resumed run: " not in out, err
    for part in ("images", "masks/0"):
        (root / "train" / part / "00003.png").unlink()
    shutil.copy(root / "val" / "masks" / "0" / "00001.png", root / "val" / "masks" / "0" / "00000.png")
    status, out, err = call(f"{run} --resume auto --epochs 9 --lr 0 --min_lr 0 --early_stopping 3")
    assert status == 0, err
    assert "note: the images of train are not those of the resumed run: 1 removed\n" in out
    assert "images of val are not those of the resumed run: 1 with another label or size (val/images/00000.png)\n" in out
    last = content_of(tmp_path / "run" / "checkpoint-last.pth")
    assert last["epoch"] < 8 and "early stopping: no better val_iou_batches for 3 epochs" in out
    status, out, err = call(f"{run} --resume auto --epochs 9")
    assert status == 0 and "nothing to do: no better val_iou_batches for 3 epochs" in out, err


def test_dropping_all_training_images_is_refused(root, call, tmp_path):
    for part in ("images", "masks/0"):
        shutil.rmtree(root / "train" / part)
        shutil.copytree(root / "val" / part, root / "train" / part)
    expect_one_line(call(f"--on_leak drop --output_dir {tmp_path / 'o'}"), ["--on_leak drop leaves no training image"])
