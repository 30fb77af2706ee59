"""What a user can do wrong when preparing a data set: one clear line, and nothing is left behind."""

from pathlib import Path

import numpy as np
import pytest
from downloads import (
    encode,
    few,
    let_miniatures_pass,
    make_btmd,
    make_busi,
    make_deeplesion,
    make_ham10000,
    make_messidor2,
    packed,
    prepare,
    put,
    refused,
    snapshot,
)
from PIL import Image


def wrong_downloads() -> dict[str, tuple[str, dict[str, bytes], list[str]]]:
    btmd, ham, busi_files, lesions = make_btmd(few), make_ham10000(few), make_busi(few), make_deeplesion(few)
    messidor, busi_name = make_messidor2(few), "Dataset_BUSI_with_GT/benign/benign (7).png"
    first, meta = next(iter(ham)), ham["HAM10000_metadata"]
    return {
        "empty": ("btmd", {}, ["not btmd", "it is empty"]),
        "another": ("btmd", busi_files, ["not btmd", "Training/", "looks like busi"]),
        "prepared": ("btmd", {"SOURCE.md": b"", "split.csv": b""}, ["prepared already", "--data_path"]),
        "laid out": ("btmd", {"train/glioma/a.jpg": b"", "val/glioma/b.jpg": b""}, ["it holds train, val"]),
        "rar": ("busi", {"Dataset_BUSI.rar": b"Rar!"}, ["Dataset_BUSI.rar", "unpack"]),
        "fewer": ("btmd", dict([*btmd.items()][1:]), ["training/glioma: 15 images where 16 are", "--allow"]),
        "cut zip": ("btmd", {"archive.zip": packed(btmd)[:5000]}, ["archive.zip", "damaged"]),
        "no zip": ("btmd", {"archive.zip": b"<html>"}, ["archive.zip", "damaged"]),
        "volume": ("messidor2", {"I.zip.001": b"x", "I.zip.003": b"x"}, ["I.zip.003", "missing"]),
        "no table": ("ham10000", {first: b""}, ["no table HAM10000_metadata"]),
        "column": ("ham10000", ham | {"HAM10000_metadata": meta.replace(b"lesion_id", b"lesion")}, ["no column lesion_id"]),
        "class": ("ham10000", ham | {"HAM10000_metadata": meta.replace(b",df,", b",dg,")}, ["dx 'dg'"]),
        "short row": ("ham10000", ham | {"HAM10000_metadata": meta + b"\r\nHAM_1,ISIC"}, ["line ", "2 values"]),
        "binary": ("ham10000", ham | {"HAM10000_metadata": b"\xff\xfe\x00"}, ["not a text file"]),
        "missing": ("ham10000", {k: v for k, v in ham.items() if k != first}, ["missing: ISIC_0000001.jpg"]),
        "tables": ("ham10000", ham | {"b/HAM10000_metadata.csv": meta.replace(b",df,", b",nv,", 1)}, ["differ; remove"]),
        "image": ("busi", busi_files | {busi_name: b"\x89PNG broken"}, ["damaged: ", busi_name, "cannot be read"]),
        "cut image": ("busi", busi_files | {busi_name: busi_files[busi_name][:-30]}, ["damaged: ", busi_name]),
        "mask size": (
            "busi",
            busi_files | {busi_name.replace(".png", "_mask.png"): encode(np.zeros((4, 5), dtype=np.uint8))},
            ["benign (7)_mask.png: 5 x 4 pixels, its image has 8 x 8"],
        ),
        "two of one": ("busi", busi_files | {f"copy/{busi_name}": encode(np.ones((8, 8)) > 0)}, ["two different files"]),
        "grade": (
            "messidor2",
            messidor | {"messidor_data.csv": messidor["messidor_data.csv"].replace(b",4,0,1", b",7,0,1")},
            ["grade '7'"],
        ),
        "window": (
            "deeplesion",
            lesions | {"DL_info.csv": lesions["DL_info.csv"].replace(b'"-175, 275"', b"soft")},
            ["DICOM_windows 'soft'"],
        ),
        "8 bits": (
            "deeplesion",
            {name: encode(np.zeros((8, 8), dtype=np.uint8)) if "png" in name else data for name, data in lesions.items()},
            [],
        ),
    }  # fmt: skip


WRONG = wrong_downloads()


@pytest.mark.parametrize("case", WRONG)
def test_wrong_downloads(case, monkeypatch, tmp_path):
    let_miniatures_pass(monkeypatch)
    name, files, words = WRONG[case]
    (tmp_path / "down load").mkdir()
    put(tmp_path / "down load", files)
    if case == "8 bits":
        result = prepare(name, tmp_path / "down load", tmp_path / "dest", "--allow_incomplete")
        refused(result, "no image of deeplesion")
    else:
        refused(prepare(name, tmp_path / "down load", tmp_path / "dest"), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["down load"]


OPTIONS = [
    ("btmd --by patient", ["--by patient", "--unique"]),
    ("ham10000 --official", ["--official", "ham10000 has no official split"]),
    ("btmd --official --seed 0", ["--official and --seed"]),
    ("btmd --official --unique", ["--official and --unique"]),
    ("btmd --official --split a.csv", ["--official and --split"]),
    ("chestxray2017 --split a.csv --by patient", ["--split and --by"]),
    ("btmd --split nowhere.csv", ["--split nowhere.csv", "No such file"]),
    ("btmd --test_share 0.7", ["--test_share", "below 0.7"]),
    ("btmd --test_share nan", ["--test_share", "nan"]),
    ("btmd --window 0 1", ["--window", "deeplesion"]),
    ("deeplesion --window 100 0", ["--window 100 0", "lower"]),
    ("deeplesion --crop -1", ["--crop -1", "margin"]),
    ("deeplesion --crop nan", ["--crop nan", "margin"]),
    ("imagenet", ["imagenet", "chestxray2017"]),
]


@pytest.mark.parametrize(("words", "said"), OPTIONS)
def test_wrong_options(words, said, tmp_path):
    download = put(tmp_path / "download", make_btmd(few))
    name, *options = words.split()
    refused(prepare(name, download, tmp_path / "dest", "--allow_incomplete", *options), *said)
    assert not (tmp_path / "dest").exists()


def test_wrong_places(tmp_path, monkeypatch):
    download = put(tmp_path / "download", make_btmd(few))
    refused(prepare("btmd", tmp_path / "nowhere", tmp_path / "dest"), "nowhere", "no such folder")
    refused(prepare("btmd", download, download / "dest"), "lies in DOWNLOAD")
    refused(prepare("btmd", download, download), "lies in DOWNLOAD")
    refused(prepare("btmd", download, tmp_path), "not empty")
    (tmp_path / "file").write_text("mine")
    refused(prepare("btmd", download, tmp_path / "file"), "is a file")
    (tmp_path / "link").symlink_to(download)
    refused(prepare("btmd", tmp_path / "link", download / "dest"), "lies in DOWNLOAD")
    assert len(snapshot(download)) == 128 and (tmp_path / "file").read_text() == "mine"
    (tmp_path / "new").mkdir()  # an empty folder is as good as none
    monkeypatch.chdir(tmp_path / "new")
    refused(prepare("btmd", download, Path("."), "--allow_incomplete"), "the folder that you are in", "such as data")
    monkeypatch.undo()
    assert prepare("btmd", download, tmp_path / "new", "--allow_incomplete")[0] == 0


def test_too_few_images_for_a_split(tmp_path):
    download = put(tmp_path / "download", make_busi(lambda count: 3))
    refused(prepare("busi", download, tmp_path / "dest", "--allow_incomplete"), "class benign", "val")


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    download = put(tmp_path / "download", make_busi(few))
    written = []

    def full(image, target, *_):
        written.append(target)
        if len(written) > 5:
            raise OSError(28, "No space left on device")
        return save(image, target)

    save = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", full)
    status, _, err = prepare("busi", download, tmp_path / "dest", "--allow_incomplete")
    assert status == 1 and "No space left on device" in err and len(err.strip().splitlines()) == 1
    assert len(written) == 6 and [path.name for path in tmp_path.iterdir()] == ["download"]
