"""The paper's data sets from miniatures of their official downloads, with their names, folders, tables and zips."""

import csv
import io
import os
import signal
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from util.errors import run_script
from util.prepare import busi, chestxray2017, deeplesion, splitting
from util.prepare.__main__ import run
from util.prepare.data_sets import DATA_SETS

PAPER = {"messidor2": 522, "btmd": 2106, "ham10000": 3001, "chestxray2017": 1755, "busi": 233}
DL_INFO = (
    "File_name,Patient_index,Study_index,Series_ID,Key_slice_index,Measurement_coordinates,Bounding_boxes,"
    "Lesion_diameters_Pixel_,Normalized_lesion_location,Coarse_lesion_type,Possibly_noisy,Slice_range,Spacing_mm_px_,"
    "Image_size,DICOM_windows,Patient_gender,Patient_age,Train_Val_Test"
)


def picture(name: str, number: int) -> bytes:
    """A small image whose pixels depend on the number, in the format that its name says."""
    return noise("PNG" if name.endswith(".png") else "JPEG", number)


@cache
def noise(kind: str, number: int) -> bytes:
    return encode(np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8), kind)


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()


def make_btmd(size) -> dict[str, bytes]:
    names = [f"{part.title()}/{label}/T{part[1]}-{label[:2]}_{number:04}.jpg"
             for (part, label), count in DATA_SETS["btmd"].published.items() for number in range(size(count))]  # fmt: skip
    return {name: picture(name, index) for index, name in enumerate(names)}


def make_chestxray2017(size) -> dict[str, bytes]:
    names = ["__MACOSX/chest_xray/._train", "chest_xray/.DS_Store"]
    for (part, label), count in DATA_SETS["chestxray2017"].published.items():
        for number in range(size(count)):
            kind = "bacteria" if number % 3 else "virus"
            name = f"person{number // 2}_{kind}_{number}" if label == "PNEUMONIA" else f"IM-{number:04}-0001"
            names.append(f"chest_xray/{part}/{label}/{name}.jpeg")
    return {name: picture(name, index) for index, name in enumerate(names)}


def make_busi(size) -> dict[str, bytes]:
    files = {}
    for (_, label), count in DATA_SETS["busi"].published.items():
        for number in range(1, size(count) + 1):
            stem = f"Dataset_BUSI_with_GT/{label}/{label} ({number})"
            files[f"{stem}.png"] = picture(".png", len(files))
            for suffix, row in (("_mask", 0), ("_mask_1", 4))[: 2 if number == 2 else 1]:
                mask = np.zeros((8, 8), dtype=bool)
                mask[row : row + 2] = label != "normal"
                files[f"{stem}{suffix}.png"] = encode(mask if number % 2 else mask.astype(np.uint8) * 255)
    return files


def make_ham10000(size) -> dict[str, bytes]:
    rows, files = ["lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"], {}
    for (_, label), count in DATA_SETS["ham10000"].published.items():
        for number in range(size(count)):
            lesion = f"HAM_{label}{number - (number % 3 == 1)}"  # two images of every second lesion
            rows.append(f"{lesion},ISIC_{len(rows):07},{label},histo,50.0,male,back,vidir_modern")
            files[f"HAM10000_images_part_{1 + number % 2}/ISIC_{len(rows) - 1:07}.jpg"] = picture(".jpg", len(rows))
    return {**files, "HAM10000_metadata": "\r\n".join(rows).encode("utf-8-sig")}


def make_messidor2(size) -> dict[str, bytes]:
    names, rows, files = [], ["image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable"], {}
    grades = [label for (_, label), count in DATA_SETS["messidor2"].published.items() for _ in range(size(count))]
    for number, grade in enumerate([*grades, "", "", "", ""]):
        names.append(f"2005{number:04}_4{number:04}_0100_PP.png" if number % 2 else f"IM{number:06}.JPG")
        rows.append(f"{names[-1].replace('JPG', 'jpg')},{grade},{'0' if grade else ''},{int(grade != '')}")
        files[f"IMAGES/{names[-1]}"] = picture(names[-1], number)
    pairs = ["left;right", *[";".join(names[number : number + 2]) for number in range(0, len(names), 2)]]
    return {**files, "messidor_data.csv": "\n".join(rows).encode(), "messidor-2.csv": "\n".join(pairs).encode()}


def make_deeplesion(size) -> dict[str, bytes]:
    rows, files = [DL_INFO], {}
    for part in (1, 2, 3):
        for number in range(size(4900)):
            patient = 100 * part + number // 3
            row = f'"{number}, 1, 5, 5, 3, 2, 3, 6","2.2, 1.4, 6.4, 4.6","4.1, 2.2","0.5, 0.5, 0.5"'
            kind = -1 if part == 1 else number % 8 + 1
            for lesion in range(2 if number == 9 else 1):  # one slice has two lesions
                rows.append(f'{patient:06}_01_01_{number:03}.png,{patient},1,1,{number},{row},{kind if not lesion else 5},0,'
                            f'"1, 9","0.8, 0.8, 5","8, 8","-175, 275",F,60,{part}')  # fmt: skip
            pixels = np.full((8, 8), 32768 + 50, dtype=np.uint16)
            pixels[0, 0], pixels[0, 1], pixels[7, 7] = 32768 - 1000, 32768 + 900, 32768 + number
            files[f"Images_png/{patient:06}_01_01/{number:03}.png"] = encode(pixels)
    return {**files, "DL_info.csv": "\n".join(rows).encode()}


MAKERS = {name.removeprefix("make_"): each for name, each in list(globals().items()) if name.startswith("make_")}


def few(_: int) -> int:
    return 16


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def packed(files: dict[str, bytes], under: str = "") -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            if name.startswith(under):
                archive.writestr(name, content)
    return data.getvalue()


def as_published(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files that the source offers for download."""
    loose = {path: data for path, data in files.items() if "/" not in path}
    if name == "ham10000":
        return loose | {f"{part}.zip": packed(files, part) for part in ("HAM10000_images_part_1", "HAM10000_images_part_2")}
    if name == "messidor2":
        data = packed(files, "IMAGES/")
        cuts = [0, 1000, 9000, len(data)]
        return loose | {f"IMAGES.zip.{number:03}": data[cuts[number - 1] : cuts[number]] for number in (1, 2, 3)}
    if name == "deeplesion":
        return loose | {f"Images_png/Images_png_0{part}.zip": packed(files, f"Images_png/000{part}") for part in (1, 2, 3)}
    return {f"{name}.zip": packed(files)}


@pytest.fixture
def prepare(monkeypatch, capsys):
    """Call the command in this process; return exit status, standard output and standard error."""

    def call(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["util.prepare", *map(str, words)])
        handler, status = signal.getsignal(signal.SIGTERM), 0
        try:
            run_script(run)
        except SystemExit as stop:
            status = stop.code
        finally:
            signal.signal(signal.SIGTERM, handler)
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def done(prepare):
    """Call the command on a miniature, which must succeed; return DEST."""

    def call(name: str, download: Path, dest: Path, *words) -> Path:
        status, _, err = prepare(name, download, dest, "--allow_incomplete", *words)
        assert status == 0, err
        return dest

    return call


@pytest.fixture
def miniature(monkeypatch):
    """Let a miniature of 16 images of each class (and part) pass for the whole data set."""
    for name, data_set in list(DATA_SETS.items()):
        published = {key: 17 if name == "deeplesion" else 16 for key in data_set.published}
        monkeypatch.setitem(DATA_SETS, name, replace(data_set, published=published))
    monkeypatch.setattr(busi, "SIZES", dict.fromkeys(busi.SIZES, 16))


def refused(result, *words) -> None:
    status, _, err = result
    assert status == 2 and len(err.strip().splitlines()) == 1 and err.startswith("error: "), err
    assert all(word in err for word in words), err


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def table(dest: Path) -> list[dict[str, str]]:
    with (dest / "split.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", PAPER)
def test_paper_counts_from_true_sizes(name):
    sizes = {label: DATA_SETS[name].published_count(label) for label in DATA_SETS[name].classes}
    keys = [(label, str(number)) for label, size in sizes.items() for number in range(size)]
    splits = splitting.split(keys, list(range(len(keys))), seed=3)
    assert splits.count("val") == PAPER[name] == DATA_SETS[name].paper[1]
    val = Counter(label for (label, _), split in zip(keys, splits, strict=True) if split == "val")
    assert val == {label: 3 * size // 10 for label, size in sizes.items()}


@pytest.mark.parametrize("name", ["messidor2", "busi"])
def test_whole_download(name, prepare, tmp_path):
    """A download of the published size is accepted as it is, and its validation set has the paper's number of images."""
    put(tmp_path / "download", as_published(name, MAKERS[name](int)))
    status, out, err = prepare(name, tmp_path / "download", tmp_path / "dest")
    assert status == 0, err
    files = {
        split: Counter(path.parent.name for path in (tmp_path / "dest" / split).glob("*/*")) for split in ("train", "val")
    }
    assert files["val"].total() == PAPER[name]
    for label in DATA_SETS[name].classes:
        images = DATA_SETS[name].published_count(label)
        assert (files["train"][label], files["val"][label]) == (images - 3 * images // 10, 3 * images // 10)
    assert f"{DATA_SETS[name].paper[0]} of {PAPER[name]} images" in (tmp_path / "dest/SOURCE.md").read_text()
    assert not any(word in out for word in ("missing", "damaged", "are published"))


@pytest.mark.parametrize("name", MAKERS)
def test_zips_and_folders_alike(name, done, tmp_path):
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


def test_torchvision_reads_it(done, tmp_path):
    from torchvision.datasets import ImageFolder

    dest = done("busi", put(tmp_path / "download", make_busi(few)), tmp_path / "dest")
    for split in ("train", "val"):
        folder = ImageFolder(str(dest / split))
        assert folder.classes == ["benign", "malignant", "normal"] and len(folder) == sum(
            row["split"] == split for row in table(dest)
        )


@pytest.mark.parametrize("name", [name for name in MAKERS if DATA_SETS[name].group])
def test_by_patient(name, done, tmp_path):
    download = put(tmp_path / "download", MAKERS[name](lambda count: min(count, 96)))
    by_image, by_patient = (table(done(name, download, tmp_path / by, "--by", by)) for by in ("image", "patient"))
    assert torn(by_patient) == 0 < torn(by_image)
    sizes, val = (
        Counter(row["label"] for row in by_patient if row["split"] in splits) for splits in (("train", "val"), ("val",))
    )
    assert all(0 < val[label] <= 3 * sizes[label] // 10 for label in sizes)
    assert "kept on one side" in (tmp_path / "patient/SOURCE.md").read_text()


def torn(rows) -> int:
    sides = {}
    for row in rows:
        sides.setdefault(row["patient"], set()).add(row["split"])
    return sum(len(each) > 1 for each in sides.values())


@pytest.mark.parametrize("name", [name for name in MAKERS if DATA_SETS[name].official])
def test_official(name, done, tmp_path):
    dest = done(name, put(tmp_path / "download", MAKERS[name](few)), tmp_path / "dest", "--official")
    test_part = {"btmd": "Te-", "chestxray2017": "test-", "deeplesion": "0003"}[name]
    for row in table(dest):
        # ChestXRay's two parts share names here, which are told apart by the part
        assert Path(row["path"]).name.startswith(test_part) == (row["split"] == "val")
    assert "official split" in (dest / "SOURCE.md").read_text()


def test_test_share_leaves_val_as_it_is(done, tmp_path):
    download = put(tmp_path / "download", make_btmd(lambda count: 20))  # 40 images of each class
    two, three = (
        table(done("btmd", download, tmp_path / f"d{len(words)}", *words)) for words in ((), ("--test_share", "0.2"))
    )
    assert Counter((row["label"], row["split"]) for row in three) == {
        (label, split): count
        for label in DATA_SETS["btmd"].classes
        for split, count in (("train", 20), ("val", 12), ("test", 8))
    }
    vals = [{Path(row["path"]).name for row in rows if row["split"] == "val"} for rows in (two, three)]
    assert vals[0] == vals[1]


def test_identical_files(done, prepare, tmp_path):
    files = make_btmd(few)
    names = list(files)
    for name in names[1:16:2]:  # eight pairs in one class, and one across two
        files[name] = files[names[names.index(name) - 1]]
    files[names[40]] = files[names[0]]
    download = put(tmp_path / "download", files)
    _, out, _ = prepare("btmd", download, tmp_path / "plain", "--allow_incomplete")
    assert "Identical files: 9 surplus copies of 8 images" in out and "in several classes: 1" in out
    assert "several splits: 0" not in out
    assert "several splits: 0" in (done("btmd", download, tmp_path / "one", "--unique") / "SOURCE.md").read_text()


def test_twice_and_seed(done, prepare, tmp_path):
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


def test_split_table_read_back(done, prepare, tmp_path):
    download = put(tmp_path / "download", make_ham10000(few))
    first = done("ham10000", download, tmp_path / "first", "--seed", 7, "--by", "patient", "--test_share", "0.1")
    again = done("ham10000", download, tmp_path / "again", "--split", first / "split.csv")
    assert table(again) == table(first)
    text = (first / "split.csv").read_text()
    first_row = table(first)[0]
    elsewhere = tmp_path / "elsewhere.csv"  # other folders, CRLF, BOM, semicolons
    elsewhere.write_bytes(text.replace("train/", "/data/x/").replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig"))
    assert table(done("ham10000", download, tmp_path / "third", "--split", elsewhere)) == table(first)
    for wrong, words in (
        (text.replace("label", "class", 1), ["no column label", "it has path, class"]),
        (text.replace(",val,", ",valid,", 1), ["'valid'", "line "]),
        ("\n".join(text.splitlines()[:-1]), ["names no split for", "vasc/"]),
        (text + "val/nv/ISIC_9999999.jpg,nv,val,x\n", ["the download has no nv/isic_9999999"]),
        (
            f"{text}{first_row['path']},{first_row['label']},{'val' if first_row['split'] != 'val' else 'train'},x\n",
            ["is also in"],
        ),
    ):
        elsewhere.write_text(wrong)
        result = prepare(
            "ham10000", put(tmp_path / "download", {}), tmp_path / "no", "--split", elsewhere, "--allow_incomplete"
        )
        if "the download has no" in words[0]:
            assert result[0] == 0  # a part of a download may be split by the table of the whole
        else:
            refused(result, "--split", *words)


def test_split_table_must_fit_a_whole_download(prepare, miniature, tmp_path):
    download = put(tmp_path / "download", make_busi(few))
    assert prepare("busi", download, tmp_path / "dest")[0] == 0
    text = (tmp_path / "dest/split.csv").read_text()
    (tmp_path / "more.csv").write_text(text + "val/benign/other.png,benign,val\n")
    refused(
        prepare("busi", download, tmp_path / "no", "--split", tmp_path / "more.csv"), "no benign/other", "another data set"
    )


def test_busi_masks(done, tmp_path):
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


def test_busi_names_what_is_missing(prepare, miniature, tmp_path):
    files = make_busi(few)
    for name in ("malignant (15)_mask.png", "malignant (4).png"):
        del files[f"Dataset_BUSI_with_GT/malignant/{name}"]
    said = [
        "malignant: 15 images where 16 are published",
        "missing: 2 images or files: malignant (4).png, malignant (15)_mask.png",
    ]
    refused(prepare("busi", put(tmp_path / "download", files), tmp_path / "dest"), *said)


def test_messidor2_leaves_out_what_is_not_gradable(done, prepare, tmp_path):
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


def test_deeplesion_windows_and_crops(done, tmp_path):
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


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person1946_bacteria_4874.jpeg", "person1946"),
        ("person1_virus_6.jpeg", "person1"),
        ("NORMAL2-IM-0927-0001.jpeg", "im-0927"),
        ("IM-0656-0001-0002.jpeg", "im-0656"),
        ("VIRUS-30629-0001.jpeg", "30629"),
        ("NORMAL-28501-0003.jpeg", "28501"),
        ("scan.jpeg", ""),
    ],
)
def test_chestxray_patients(name, patient):
    assert chestxray2017.patient(name) == patient


def test_chestxray_kaggle_copy_is_the_same(done, tmp_path):
    """Kaggle's copy moves training images to val/ and holds everything twice."""
    files = make_chestxray2017(few)
    moved = {name.replace("train", "val") if "IM-0003" in name or "person1_" in name else name: data
             for name, data in files.items()}  # fmt: skip
    moved |= {f"chest_xray/{name}": data for name, data in moved.items()}
    results = [snapshot(done("chestxray2017", put(tmp_path / name, each), tmp_path / f"out-{name}"))
               for name, each in (("mendeley", files), ("kaggle", moved))]  # fmt: skip
    assert results[0] == results[1]


def test_split_is_of_names_alone():
    """The order of images does not matter, and an image more moves few others."""
    keys = [("a", f"{number}") for number in range(100)]
    first = dict(zip(keys, splitting.split(keys, list(range(100)), 0), strict=True))
    assert Counter(first.values()) == {"train": 70, "val": 30}
    assert dict(zip(keys[::-1], splitting.split(keys[::-1], list(range(100)), 0), strict=True)) == first
    more = dict(zip([*keys, ("a", "x")], splitting.split([*keys, ("a", "x")], list(range(101)), 0), strict=True))
    assert sum(more[key] != first[key] for key in keys) <= 1
    third = splitting.split(keys, list(range(100)), 0, Fraction("0.29"))
    assert Counter(third)["test"] == 29  # int(0.29 * 100) would be 28


def test_groups_join_through_others():
    assert splitting.join([["a"], ["b"], ["b", "c"], ["c", "a"], ["d"], []]) == [0, 0, 0, 0, 4, 5]


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
def test_wrong_downloads(case, prepare, miniature, tmp_path):
    name, files, words = WRONG[case]
    (tmp_path / "down load").mkdir()
    put(tmp_path / "down load", files)
    if case == "8 bits":
        result = prepare(name, tmp_path / "down load", tmp_path / "dest", "--allow_incomplete")
        refused(result, "no image of deeplesion")
    else:
        refused(prepare(name, tmp_path / "down load", tmp_path / "dest"), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["down load"]


def test_damaged_and_unexpected_are_on_record(done, tmp_path):
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
def test_wrong_options(words, said, prepare, tmp_path):
    download = put(tmp_path / "download", make_btmd(few))
    name, *options = words.split()
    refused(prepare(name, download, tmp_path / "dest", "--allow_incomplete", *options), *said)
    assert not (tmp_path / "dest").exists()


def test_wrong_places(prepare, tmp_path):
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
    assert prepare("btmd", download, tmp_path / "new", "--allow_incomplete")[0] == 0


def test_too_few_images_for_a_split(prepare, tmp_path):
    download = put(tmp_path / "download", make_busi(lambda count: 3))
    refused(prepare("busi", download, tmp_path / "dest", "--allow_incomplete"), "class benign", "val")


def test_nothing_is_left_when_writing_fails(prepare, tmp_path, monkeypatch):
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
def test_real_images(name, real_data, done, tmp_path):
    """The images at hand, laid out as the official download is."""
    files = {}
    for file in sorted((real_data / name).glob("*/*/*")):
        part, label = {"train": "Training", "val": "Testing"}[file.parent.parent.name], file.parent.name
        busi_name = f"{label} ({int(file.stem.rpartition('_')[2])}).png" if name == "busi" else ""
        files[f"{label}/{busi_name}" if busi_name else f"{part}/{label}/{file.name}"] = file
    download = tmp_path / "download"
    for path, file in files.items():
        (download / path).parent.mkdir(parents=True, exist_ok=True)
        (download / path).symlink_to(file)
    dest = done(name, download, tmp_path / "dest")
    copies = {
        "btmd": "Identical files: 426 surplus copies of 300 images",
        "busi": "Identical files: 1 surplus copies of 1 images",
    }
    assert copies[name] in (dest / "SOURCE.md").read_text()
    assert len(table(dest)) == {"btmd": 7019, "busi": 780}[name]
    assert sum(row["split"] == "val" for row in table(dest)) == {"btmd": 2104, "busi": 233}[name]  # BTMD lacks four images
