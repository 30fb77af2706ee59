"""Image files of all sorts: read correctly or named, skipped on request, checked once."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_FINETUNE, TINY_PRETRAIN
from PIL import Image
from stress import READABLE, UNREADABLE

from util.data.augment import Augment
from util.data.folders import open_splits
from util.data.images import Images, note_skipped, read_image, read_pixels
from util.data.loading import resize_whole
from util.system.errors import InputError


@pytest.mark.parametrize("name", READABLE)
def test_odd_images_are_read_and_augmented(name, tmp_path):
    READABLE[name](tmp_path / name)
    image = read_image(str(tmp_path / name))
    with Image.open(tmp_path / name) as file:
        deep = file.mode == "F" or file.mode.startswith("I")
        assert image.dtype == (torch.float32 if deep else torch.uint8) and image.shape == (3, file.height, file.width)
        if file.mode in ("L", "1", "P", "RGBA", "RGB", "CMYK", "LA"):
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(file.convert("RGB")))
    augmented, weights = Augment(32, 8)(image, torch.rand(4, 4))
    assert augmented.shape == resize_whole(image, 32).shape == (3, 32, 32) and weights.shape == (16,)


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_files_are_named(name, tmp_path):
    UNREADABLE[name](tmp_path / name)
    with pytest.raises(InputError, match=name):
        read_image(str(tmp_path / name))


@pytest.fixture
def spoilt(phantoms, tmp_path):
    """A copy of the phantoms with three unreadable images in train/ and one in val/, and a file that is no image."""
    folder = shutil.copytree(phantoms, tmp_path / "spoilt")
    for name in ("truncated.jpg", "empty.png", "text.jpg"):
        UNREADABLE[name](folder / "train" / "ring" / name)
    UNREADABLE["zeros.png"](folder / "val" / "none" / "zeros.png")
    (folder / "train" / "ring" / "scan.dcm").write_bytes(b"DICM")
    return folder


@pytest.mark.parametrize("cache", ["ram", "off"])
def test_all_unreadable_images_are_named_at_once(spoilt, cache):
    with pytest.raises(InputError) as error:
        Images(open_splits(str(spoilt), ("train",))[0], cache)
    message = str(error.value)
    assert all(name in message for name in ("3 images", "truncated.jpg", "empty.png", "text.jpg", "--on_bad_image skip"))


@pytest.mark.parametrize("script", ["main_pretrain.py", "main_finetune.py"])
def test_unreadable_images_can_be_skipped(script, call, spoilt, phantoms, tmp_path):
    options = TINY_PRETRAIN if "pre" in script else f"{TINY_FINETUNE} --input_size 32 --patch_size 8 --masking none"
    command = f"{script} {options} --epochs 1 --warmup_epochs 0"
    (tmp_path / "out").mkdir()
    command = f"{command} --data_path {spoilt} --output_dir {tmp_path / 'out'} --on_bad_image skip"
    status, out, err = call(f"{command} --overwrite")  # it clears an earlier run's list, not its own
    assert status == 0, err
    assert "24 training and 12 validation images" in out and "4 images that cannot be read are skipped" in out
    assert "not used: 1 .dcm" in out
    listed = (tmp_path / "out" / "skipped.txt").read_text()
    assert len(listed.splitlines()) == 4 and "empty.png" in listed and "zeros.png" in listed


def test_a_list_of_skipped_images_goes_when_all_can_be_read(spoilt, phantoms, tmp_path):
    written = tmp_path / "skipped.txt"
    note_skipped(written, Images(open_splits(str(spoilt), ("train",))[0], on_bad="skip"))
    assert "empty.png" in written.read_text()
    note_skipped(written, Images(open_splits(str(phantoms), ("train",))[0], on_bad="skip"))
    assert not written.exists()


def test_a_class_without_a_readable_image_is_named(phantoms, tmp_path):
    folder = shutil.copytree(phantoms, tmp_path / "data")
    for path in (folder / "train" / "ring").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no image of ring in train can be read"):
        Images(open_splits(str(folder), ("train",))[0], "ram", on_bad="skip")


def test_the_check_costs_once_and_sees_changes(phantoms, tmp_path, monkeypatch):
    data = shutil.copytree(phantoms, tmp_path / "data")
    folder = open_splits(str(data), ("train",))[0]
    read = []
    monkeypatch.setattr("util.data.images.read_pixels", lambda path, how: read.append(path) or read_pixels(path, how))
    Images(folder, "off")
    assert len(read) == 24
    Images(folder, "off")
    assert len(read) == 24
    victim = folder.paths[3]
    UNREADABLE["empty.png"](Path(victim))
    with pytest.raises(InputError, match="cannot read"):
        Images(folder, "off")
    assert len(read) == 25 and read[-1] == victim


def test_nothing_is_remembered_where_nothing_can_be_written(phantoms, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(Images(open_splits(str(phantoms), ("train",))[0], "off")) == 24
