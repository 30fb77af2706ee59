"""Folders as people have them: hidden files of other programs, and symbolic links."""

import shutil

import pytest
from conftest import TINY_PRETRAIN
from test_errors import expect_one_line

from util.data.records import read_records
from util.split import read_unsplit
from util.system.errors import InputError


@pytest.fixture
def data(phantoms, tmp_path):
    return shutil.copytree(phantoms, tmp_path / "data")


def test_hidden_folders_are_no_classes_and_hidden_files_no_images(data, call, tmp_path):
    expected, unsplit = read_records(data), read_unsplit(data)
    image = next((data / "train" / "ring").iterdir())
    for folder in ("train/.ipynb_checkpoints", "train/ring/.ipynb_checkpoints", "val/__MACOSX/ring", "__MACOSX/train"):
        (data / folder).mkdir(parents=True)
        shutil.copy(image, data / folder / "a.png")
    for name in ("train/ring/._x.png", "train/ring/.DS_Store", "val/.DS_Store", "train/ring/.hidden.jpg"):
        (data / name).write_text("of another program")
    assert read_records(data) == expected and read_unsplit(data) == unsplit
    status, out, err = call(f"main_pretrain.py {TINY_PRETRAIN} --epochs 1 --data_path {data} --output_dir {tmp_path / 'o'}")
    assert status == 0 and "are not used" not in out, err


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("train/ring/again", "../ring"),
        ("train/ring/up", "../../.."),
        ("train/loop", "loop"),
        ("train/ring/x.png", "x.png"),
        ("test", "."),
        ("train/all", "."),
    ],
)
def test_links_in_a_circle_are_refused_by_name(link, target, data, call, tmp_path):
    (data / link).symlink_to(target)
    result = call(f"main_pretrain.py {TINY_PRETRAIN} --data_path {data} --output_dir {tmp_path / 'o'}")
    expect_one_line(result, [str(data / link), "leads in a circle"])
    assert not (tmp_path / "o").exists()


def test_two_links_that_lead_to_each_other(data):
    shutil.copytree(data / "val" / "ring", data / "aside")
    (data / "aside" / "back").symlink_to(data / "train" / "ring")
    (data / "train" / "ring" / "there").symlink_to(data / "aside")
    with pytest.raises(InputError, match="there/back is a symbolic link that leads in a circle"):
        read_records(data)


@pytest.mark.parametrize(
    ("link", "target", "named"),
    [("val", "train", "train/ and val/"), ("test", "val", "val/ and test/"), ("val/ring", "../train/ring", "val/ring/")],
)
def test_a_split_that_is_another_one_is_refused(link, target, named, data, call, tmp_path):
    shutil.rmtree(data / link, ignore_errors=True)
    (data / link).symlink_to(target)
    result = call(f"main_pretrain.py {TINY_PRETRAIN} --data_path {data} --output_dir {tmp_path / 'o'}")
    expect_one_line(result, [named, "one folder, by a symbolic link"])


def test_links_elsewhere_are_followed(data, tmp_path):
    expected = [(record.label, record.split) for record in read_records(data)]
    shutil.move(data / "val" / "ring", tmp_path / "elsewhere")
    (data / "val" / "ring").symlink_to(tmp_path / "elsewhere")
    image = next((data / "train" / "base").iterdir())
    shutil.move(image, tmp_path / "one.png")
    image.symlink_to(tmp_path / "one.png")
    assert [(record.label, record.split) for record in read_records(data)] == expected
