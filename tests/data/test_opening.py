"""What a run says of its data when it opens it, and where it changed since an earlier start."""

import shutil

import pytest
import torch
from conftest import FINETUNE_SCHEDULE, TINY_FINETUNE, TINY_PRETRAIN, content_of
from test_errors import expect_one_line

from util.data.folders import has_split
from util.data.opening import class_counts
from util.data.seen_files import SeenFiles, changes
from util.training import checkpoint


@pytest.fixture
def data(phantoms, tmp_path):
    return shutil.copytree(phantoms, tmp_path / "data")


def test_classes_are_counted_in_both_splits(call, phantoms, tmp_path):
    status, out, err = call(
        f"main_pretrain.py {TINY_PRETRAIN} --epochs 1 --data_path {phantoms} --output_dir {tmp_path / 'o'}"
    )
    assert status == 0, err
    assert "train: 24 images: base 6, none 6, ring 6, skull 6\n" in out
    assert "note: val has fewer than 20 images of base (3), none (3), ring (3), skull (3)\n" in out


def test_of_many_classes_the_smallest_and_largest_are_shown():
    labels = torch.arange(1, 31).repeat_interleave(torch.arange(1, 31)) - 1  # class cN has N + 1 images
    counts, few = class_counts("train", [f"c{number}" for number in range(30)], labels)
    assert counts == "train: 465 images: c0 1, c1 2, c2 3, ..., c27 28, c28 29, c29 30 (30 classes)"
    assert few == "note: train has fewer than 20 images of c0 (1), c1 (2), c2 (3), c3 (4), c4 (5) and 14 more"
    assert class_counts("val", ["a"], torch.zeros(20, dtype=torch.int64)) == ["val: 20 images: a 20"]


@pytest.mark.parametrize("script", ["main_pretrain.py", "main_finetune.py"])
def test_unreadable_images_of_all_splits_are_named_at_once(script, call, data, tmp_path):
    broken = [next((data / folder).iterdir()) for folder in ("train/ring", "train/base", "val/skull")]
    for path in broken:
        path.write_bytes(b"\x89PNG broken")
    tiny = TINY_PRETRAIN if "pre" in script else f"{TINY_FINETUNE} --input_size 32 --patch_size 8"
    result = call(f"{script} {tiny} --data_path {data} --output_dir {tmp_path / 'o'}")
    expect_one_line(result, ["3 images: ", "--on_bad_image skip", *map(str, broken)])


def test_one_file_under_two_labels_is_named(call, data, tmp_path):
    first, second = data / "train" / "base" / "one.png", data / "train" / "ring" / "two.png"
    shutil.copy(next((data / "train" / "skull").iterdir()), first)
    first.write_bytes(first.read_bytes() + b"more")
    shutil.copy(first, second)
    command = f"main_pretrain.py {TINY_PRETRAIN} --epochs 1 --data_path {data} --output_dir {tmp_path}"
    status, out, err = call(f"{command}/a")
    assert status == 0, err
    assert "note: 1 file has two labels: train/base/one.png (base) is train/ring/two.png (ring)\n" in out
    second.rename(data / "val" / "ring" / "two.png")
    shutil.copy(next((data / "val" / "skull").iterdir()), data / "train" / "none" / "three.png")
    status, out, err = call(f"{command}/b")
    assert (
        status == 0 and "note: 2 files have two labels: " in out and "val/ring/two.png (ring) is train/base/one.png" in out
    )
    assert "note: 2 of the 13 images of val are copies of a training image" in out


def test_dropping_copies_may_not_empty_a_class(call, data, tmp_path):
    for path in (data / "train" / "ring").iterdir():
        shutil.copy(path, data / "val" / "ring" / f"copy-{path.name}")
    result = call(f"main_pretrain.py {TINY_PRETRAIN} --data_path {data} --on_leak drop --output_dir {tmp_path / 'o'}")
    expect_one_line(result, ["--on_leak drop", "no training image of ring"])


def test_what_changed_is_told_in_words(tmp_path):
    names = ["a.png", "b.png", "c.png"]
    for name in names:
        (tmp_path / name).write_text(name)

    def hashes(*chosen, labels=(0, 0, 1)):
        return SeenFiles(tmp_path, {"train": ([str(tmp_path / name) for name in chosen], labels[: len(chosen)])}).hashes[
            "train"
        ]

    now = hashes(*names)
    assert changes(now, hashes(*names), names) is None
    assert changes(hashes("a.png", "b.png"), now, names) == "1 added (c.png)"
    assert changes(now, hashes("a.png"), names[:1]) == "2 removed"
    assert changes(hashes(*names, labels=(0, 1, 1)), now, names) == "1 with another label or size (b.png)"
    assert (
        changes(hashes("b.png", "a.png", labels=(0, 0)), hashes("a.png", "b.png"), names[:2]) == "they are in another order"
    )
    (tmp_path / "a.png").write_text("longer")
    assert changes(now, hashes(*names), names) == "1 with another label or size (a.png)"


def test_resuming_on_other_images_says_so_and_makes_maps_anew(call, data, pretrained, tmp_path):
    tiny = f"main_finetune.py {TINY_FINETUNE} {FINETUNE_SCHEDULE} --finetune {pretrained / 'checkpoint-last.pth'}"
    status, _, err = call(f"{tiny} --data_path {data} --output_dir {tmp_path / 'run'}")
    assert status == 0, err
    run = tmp_path / "run"
    for path in run.glob("checkpoint-*"):
        if path.name != "checkpoint-0.pth":
            path.unlink()
    resume = f"main_finetune.py --resume {run / 'checkpoint-0.pth'} --data_path"
    moved = shutil.copytree(data, tmp_path / "moved")  # the same images in another place are no others
    status, out, err = call(f"{resume} {moved} --output_dir {tmp_path / 'same'}")
    assert status == 0 and "not those of the resumed run" not in out, err
    before = content_of(run / "checkpoint-0.pth")
    assert not any(path.name.encode() in (run / "checkpoint-0.pth").read_bytes() for path in data.glob("*/*/*.png"))
    shutil.copy(next((data / "train" / "ring").iterdir()), data / "train" / "base" / "new.png")
    removed = sorted((data / "train" / "base").iterdir())[0]
    removed.unlink()
    sorted((data / "val" / "none").iterdir())[0].unlink()
    status, out, err = call(f"{resume} {data}")
    assert status == 0, err
    told = "note: the images of train are not those of the resumed run: 1 added (train/base/new.png), 1 removed\n"
    assert told in out and "note: the images of val are not those of the resumed run: 1 removed\n" in out
    after = content_of(run / "checkpoint-1.pth")
    assert after["maps_made_for"] == 1 and before["maps_made_for"] == 0


def test_a_run_within_an_epoch_goes_on_with_fewer_images(call, data, tmp_path):
    command = f"main_pretrain.py {TINY_PRETRAIN} --sam_epoch 9 --data_path {data} --output_dir {tmp_path / 'run'}"
    assert call(f"{command} --epochs 1")[0] == 0
    content = content_of(tmp_path / "run" / "checkpoint-last.pth")
    averages = {"names": ["loss"], "sums": torch.ones(1, dtype=torch.float64), "count": 3}
    checkpoint.save(tmp_path / "run" / "checkpoint-last.pth", **content | {"epoch": -1, "step": 3, "averages": averages})
    for folder in (data / "train").iterdir():
        for path in sorted(folder.iterdir())[4:]:
            path.unlink()
    status, out, err = call(f"{command} --epochs 1 --resume auto")
    assert status == 0 and "8 removed" in out, err


def test_a_table_is_asked_for_a_split(data, tmp_path):
    (tmp_path / "table.csv").write_text("path,label,split\nmissing.png,a,train\n")
    assert has_split(str(tmp_path / "table.csv"), "train") and not has_split(str(tmp_path / "table.csv"), "test")
    assert has_split(str(data), "val") and not has_split(str(data), "test") and not has_split("nowhere", "test")
