"""The paper's data sets, prepared from miniatures of their official downloads."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from downloads import (
    MAKERS,
    as_published,
    done,
    few,
    let_miniatures_pass,
    make_btmd,
    make_busi,
    make_chestxray2017,
    make_deeplesion,
    make_messidor2,
    packed,
    picture,
    prepare,
    put,
    refused,
    snapshot,
    table,
)
from PIL import Image

from util.prepare import deeplesion
from util.prepare.data_sets import DATA_SETS


@pytest.mark.parametrize("name", ["messidor2", "busi"])
def test_whole_download(name, tmp_path):
    """A download of the published size is accepted as it is, and its validation set has the paper's number of images."""
    put(tmp_path / "download", as_published(name, MAKERS[name](int)))
    status, out, err = prepare(name, tmp_path / "download", tmp_path / "dest")
    assert status == 0, err
    files = {
        split: Counter(path.parent.name for path in (tmp_path / "dest" / split).glob("*/*")) for split in ("train", "val")
    }
    assert files["val"].total() == DATA_SETS[name].paper[1]
    for label in DATA_SETS[name].classes:
        images = DATA_SETS[name].published_count(label)
        assert (files["train"][label], files["val"][label]) == (images - 3 * images // 10, 3 * images // 10)
    assert f"{DATA_SETS[name].paper[0]} of {DATA_SETS[name].paper[1]} images" in (tmp_path / "dest/SOURCE.md").read_text()
    assert not any(word in out for word in ("missing", "damaged", "are published"))


@pytest.mark.parametrize("name", MAKERS)
def test_zips_and_folders_alike(name, tmp_path):
    files = MAKERS[name](few)
    loose, zipped = put(tmp_path / "loose", files), put(tmp_path / "zipped", as_published(name, files))
    nested = put(tmp_path / "nested", {"a b/c/all.zip": packed(as_published(name, files))} if name != "messidor2" else files)
    results = [snapshot(done(name, each, tmp_path / f"out-{each.name}")) for each in (loose, zipped, nested)]
    assert results[0] == results[1] == results[2]
    labels = {path.split("/")[1] for path in results[0] if path.startswith(("train/", "val/"))}
    assert labels == set(DATA_SETS[name].classes)
    links = [path.is_symlink() for path in (tmp_path / "out-loose/train").glob("*/*")]
    assert all(links) if name != "deeplesion" else not any(links)
    rows = table(tmp_path / "out-loose")
    assert {row["path"] for row in rows} == {path for path in results[0] if path.startswith(("train/", "val/"))}
    assert all(row["path"].startswith(f"{row['split']}/{row['label']}/") for row in rows)
    assert ("patient" in rows[0]) == bool(DATA_SETS[name].group)
    copied = done(name, loose, tmp_path / "copied", "--copy")
    assert not any(path.is_symlink() for path in copied.rglob("*"))


def test_torchvision_reads_it(tmp_path):
    from torchvision.datasets import ImageFolder

    dest = done("busi", put(tmp_path / "download", make_busi(few)), tmp_path / "dest")
    for split in ("train", "val"):
        folder = ImageFolder(str(dest / split))
        assert folder.classes == ["benign", "malignant", "normal"] and len(folder) == sum(
            row["split"] == split for row in table(dest)
        )


def test_twice_and_seed(tmp_path):
    download = put(tmp_path / "download", make_busi(few))
    before = snapshot(done("busi", download, tmp_path / "dest"))
    status, out, _ = prepare("busi", download, tmp_path / "dest", "--allow_incomplete")
    assert status == 0 and "nothing was changed" in out and snapshot(tmp_path / "dest") == before
    refused(prepare("busi", download, tmp_path / "dest", "--allow_incomplete", "--seed", 1), "prepared otherwise")
    assert snapshot(tmp_path / "dest") == before
    other = done("busi", download, tmp_path / "other", "--seed", 1)
    assert table(other) != table(tmp_path / "dest")
    next((tmp_path / "dest/val/benign").iterdir()).unlink()
    refused(prepare("busi", download, tmp_path / "dest", "--allow_incomplete"), "lacks", "val/benign/")


def test_busi_masks(tmp_path):
    dest = done("busi", put(tmp_path / "download", make_busi(few)), tmp_path / "dest", "--test_share", "0.2")
    for row in table(dest):
        stem, split = Path(row["path"]).stem, row["split"]
        places = [dest / f"masks/{split}/{row['label']}/{stem}.png", dest / f"segmentation/{split}/masks/0/{stem}.png"]
        image = dest / f"segmentation/{split}/images/{stem}.png"
        if row["label"] == "normal":
            assert not any(path.exists() for path in (*places, image))
            continue
        assert image.read_bytes() == (dest / row["path"]).read_bytes()
        wanted = np.zeros((8, 8), dtype=np.uint8)
        wanted[:2] = 255
        if stem.endswith("(2)"):  # two masks, merged
            wanted[4:6] = 255
        assert all(np.array_equal(np.asarray(Image.open(path)), wanted) for path in places)


def test_busi_names_what_is_missing(monkeypatch, tmp_path):
    let_miniatures_pass(monkeypatch)
    files = make_busi(few)
    for name in ("malignant (15)_mask.png", "malignant (4).png"):
        del files[f"Dataset_BUSI_with_GT/malignant/{name}"]
    said = [
        "malignant: 15 images where 16 are published",
        "missing: 2 images or files: malignant (4).png, malignant (15)_mask.png",
    ]
    refused(prepare("busi", put(tmp_path / "download", files), tmp_path / "dest"), *said)


def test_messidor2_leaves_out_what_is_not_gradable(tmp_path):
    files = make_messidor2(few)
    download = put(tmp_path / "download", files)
    dest = done("messidor2", download, tmp_path / "dest")
    assert len(table(dest)) == 80 and "Left out: 4 images that could not be graded" in (dest / "SOURCE.md").read_text()
    pairs = {frozenset(line.split(";")) for line in files["messidor-2.csv"].decode().splitlines()[1:]}
    groups = {}
    for row in table(dest):
        groups.setdefault(row["patient"], set()).add(Path(row["path"]).name)
    assert {frozenset(names) for names in groups.values()} <= pairs
    (download / "messidor-2.csv").unlink()
    words = ("--by", "patient", "--allow_incomplete")
    refused(prepare("messidor2", download, tmp_path / "no", *words), "--by patient", "messidor-2.csv")


def test_deeplesion_windows_and_crops(tmp_path):
    download = put(tmp_path / "download", make_deeplesion(few))
    whole = done("deeplesion", download, tmp_path / "whole", "--official")
    picture = np.asarray(Image.open(next((whole / "val").rglob("000303_01_01_009-1.png"))))
    # -1000 HU is black and 900 HU white in the table's window of -175 to 275; 50 and 9 HU lie between
    assert picture.dtype == np.uint8 and picture.shape == (8, 8)
    assert (picture[0, 0], picture[0, 1], picture[4, 4], picture[7, 7]) == (
        0,
        255,
        round(225 / 450 * 255),
        round(184 / 450 * 255),
    )
    names = {Path(row["path"]).name: row["label"] for row in table(whole) if "000303_01_01_009" in row["path"]}
    assert names == {"000303_01_01_009-1.png": "abdomen", "000303_01_01_009-2.png": "lung"}  # both lesions of one slice
    lung = done("deeplesion", download, tmp_path / "lung", "--official", "--window", "-1400", "200")
    picture = np.asarray(Image.open(next((lung / "val").rglob("000303_01_01_009-1.png"))))
    assert (picture[0, 0], picture[0, 1]) == (round(400 / 1600 * 255), 255)
    cropped = done("deeplesion", download, tmp_path / "crop", "--official", "--crop", "0.25")
    assert {Image.open(path).size for path in (cropped / "val").glob("*/*")} == {
        (6, 6)
    }  # 4.2 wide, a quarter more each side
    assert "Left out: 17 lesions" in (whole / "SOURCE.md").read_text()


def test_deeplesion_crop_stays_inside():
    pixels = np.arange(100, dtype=np.uint16).reshape(10, 10) + 32768
    image = Image.fromarray(pixels)
    for box, corner in (((0, 0, 2, 2), 0), ((8, 8, 10, 10), 66), ((4, 0, 6, 2), 3)):
        picture = np.asarray(deeplesion.draw(image, (0, 255), box, margin=0.5))
        assert picture.shape == (4, 4) and picture[0, 0] == corner
    assert deeplesion.draw(image, (0, 255), (0, 0, 9, 9), margin=5).size == (10, 10)
    with pytest.raises(ValueError, match="16-bit"):
        deeplesion.draw(Image.new("L", (8, 8)), (0, 1), (0, 0, 1, 1))


def test_chestxray_kaggle_copy_is_the_same(tmp_path):
    """Kaggle's copy moves training images to val/ and holds everything twice."""
    files = make_chestxray2017(few)
    moved = {name.replace("train", "val") if "IM-0003" in name or "person1_" in name else name: data
             for name, data in files.items()}  # fmt: skip
    moved |= {f"chest_xray/{name}": data for name, data in moved.items()}
    results = [snapshot(done("chestxray2017", put(tmp_path / name, each), tmp_path / f"out-{name}"))
               for name, each in (("mendeley", files), ("kaggle", moved))]  # fmt: skip
    assert results[0] == results[1]


def test_damaged_and_unexpected_are_on_record(tmp_path):
    files = make_busi(few)
    files["Dataset_BUSI_with_GT/benign/benign (7).png"] = b"broken"
    files["Dataset_BUSI_with_GT/benign/holiday.png"] = picture(".png", 0)
    dest = done("busi", put(tmp_path / "download", files), tmp_path / "dest")
    text = (dest / "SOURCE.md").read_text()
    assert (
        "damaged: Dataset_BUSI_with_GT/benign/benign (7).png" in text and "benign: 16 images where 437 are published" in text
    )
    assert "not used: Dataset_BUSI_with_GT/benign/holiday.png" in text
    assert len(table(dest)) == 47 and not list(dest.rglob("*(7)*benign*"))


def test_as_a_user_runs_it(tmp_path):
    """In a process of its own, from a single zip, with paths that hold blanks; PyTorch is not needed."""
    put(tmp_path / "my downloads", {"archive.zip": packed(make_btmd(few))})
    hidden = put(tmp_path / "hidden", {"torch.py": b"raise ImportError('torch is not needed here')"})
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "util.prepare",
            "btmd",
            tmp_path / "my downloads/archive.zip",
            "brain tumour",
            "--allow_incomplete",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{hidden}{os.pathsep}{ROOT}"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == "" and "written: brain tumour" in result.stdout
    assert len(list((tmp_path / "brain tumour").rglob("*.jpg"))) == 128


@pytest.mark.parametrize("name", ["btmd", "busi"])
def test_real_images(name, real_data, tmp_path):
    """The images at hand, laid out as the official download is."""
    download = tmp_path / "download"
    if name == "btmd":
        download.mkdir()
        (download / "Training").symlink_to(real_data / "btmd/train")
        (download / "Testing").symlink_to(real_data / "btmd/val")
    else:
        for file in (real_data / "busi").glob("*/*/*.png"):
            label, number = file.stem.split("_")
            (download / label).mkdir(parents=True, exist_ok=True)
            (download / label / f"{label} ({int(number)}).png").symlink_to(file)
    dest = done(name, download, tmp_path / "dest")
    copies = {
        "btmd": "Identical files: 426 surplus copies of 300 images",
        "busi": "Identical files: 1 surplus copy of 1 image",
    }
    assert copies[name] in (dest / "SOURCE.md").read_text()
    assert len(table(dest)) == {"btmd": 7019, "busi": 780}[name]
    assert sum(row["split"] == "val" for row in table(dest)) == {"btmd": 2104, "busi": 233}[name]  # BTMD lacks four images
