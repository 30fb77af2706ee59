"""Which image of a prepared data set is where: the paper's rule, patients, copies, official splits and tables."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from downloads import (
    MAKERS,
    done,
    few,
    let_miniatures_pass,
    make_btmd,
    make_busi,
    make_chestxray2017,
    make_ham10000,
    picture,
    prepare,
    put,
    refused,
    table,
)

from util.data.folders import open_splits
from util.prepare import chestxray2017, options, splitting
from util.prepare.data_sets import DATA_SETS

PAPER = {"messidor2": 522, "btmd": 2106, "ham10000": 3001, "chestxray2017": 1755, "busi": 233}


@pytest.mark.parametrize("name", PAPER)
def test_paper_counts_from_true_sizes(name):
    sizes = {label: DATA_SETS[name].published_count(label) for label in DATA_SETS[name].classes}
    keys = [(label, str(number)) for label, size in sizes.items() for number in range(size)]
    splits = splitting.split(keys, list(range(len(keys))), seed=3)
    assert splits.count("val") == PAPER[name] == DATA_SETS[name].paper[1]
    val = Counter(label for (label, _), split in zip(keys, splits, strict=True) if split == "val")
    assert val == {label: 3 * size // 10 for label, size in sizes.items()}


@pytest.mark.parametrize("name", [name for name in MAKERS if DATA_SETS[name].group])
def test_by_patient(name, tmp_path):
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
def test_official(name, tmp_path):
    dest = done(name, put(tmp_path / "download", MAKERS[name](few)), tmp_path / "dest", "--official")
    test_part = {"btmd": "Te-", "chestxray2017": "test-", "deeplesion": "0003"}[name]
    for row in table(dest):
        # ChestXRay's two parts share names here, which are told apart by the part
        assert Path(row["path"]).name.startswith(test_part) == (row["split"] == "val")
    assert "official split" in (dest / "SOURCE.md").read_text()


def test_test_share_leaves_val_as_it_is(tmp_path):
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


def test_identical_files(tmp_path):
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


def test_split_table_read_back(tmp_path):
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


def test_split_table_must_fit_a_whole_download(monkeypatch, tmp_path):
    let_miniatures_pass(monkeypatch)
    download = put(tmp_path / "download", make_busi(few))
    assert prepare("busi", download, tmp_path / "dest")[0] == 0
    text = (tmp_path / "dest/split.csv").read_text()
    (tmp_path / "more.csv").write_text(text + "val/benign/other.png,benign,val\n")
    refused(
        prepare("busi", download, tmp_path / "no", "--split", tmp_path / "more.csv"), "no benign/other", "another data set"
    )


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


def test_a_share_is_recorded_exactly(monkeypatch):
    for given, recorded in (("0.1", "0.1"), ("1/10", "0.1"), ("1/3", "1/3")):
        monkeypatch.setattr("sys.argv", ["prepare", "btmd", "DOWNLOAD", "DEST", "--test_share", given])
        assert f"--test_share {recorded}" in options.command(options.get_args())


def test_groups_join_through_others():
    groups = splitting.join([["a"], ["b"], ["b", "c"], ["c", "a"], ["d"], []])
    assert len({*groups[:4]}) == 1 and len({*groups}) == 3 and groups[4:] == [4, 5]


def test_an_image_of_an_unknown_patient_has_a_row_as_others_have(tmp_path):
    files = make_chestxray2017(few)
    files["chest_xray/train/PNEUMONIA/odd name.jpeg"] = picture("odd name.jpeg", 999)
    dest = done("chestxray2017", put(tmp_path / "download", files), tmp_path / "dest", "--by", "patient")
    owners = Counter(row["patient"] for row in table(dest))
    (odd,) = (row["patient"] for row in table(dest) if "odd name" in row["path"])
    assert owners[odd] == 1 and "odd name.jpeg" in odd
    open_splits(str(dest / "split.csv"), ("train", "val"))


@pytest.mark.parametrize("name", ["busi", "ham10000"])
def test_the_table_stands_for_the_folders_in_the_scripts(name, tmp_path):
    """``--data_path DEST/split.csv`` opens the images, classes and splits of ``--data_path DEST``."""
    dest = done(name, put(tmp_path / "download", MAKERS[name](lambda count: min(count, 20))), tmp_path / "dest", "--unique")
    from_folders, from_table = (
        open_splits(str(path), ("train", "val"), on_patient_leak="note") for path in (dest, dest / "split.csv")
    )
    for one, two in zip(from_folders, from_table, strict=True):
        assert one.classes == two.classes
        assert sorted(map(Path.resolve, map(Path, one.paths))) == sorted(map(Path.resolve, map(Path, two.paths)))
    assert (from_table[0].patients is not None) == (name == "ham10000")
