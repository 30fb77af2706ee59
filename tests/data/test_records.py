"""Folders and tables as one list of images; what is wrong with them is named in one line."""

import shutil
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from util.data.folders import open_splits
from util.data.records import read_records
from util.data.tables import write_table
from util.system.errors import InputError


def cells(folder, records):
    """The columns of a table that lies in a folder."""
    return {
        "path": [record.path.removeprefix(f"{folder}/") for record in records],
        "label": [record.label for record in records],
        "split": [record.split for record in records],
    }


def as_table(folder, records, **changes):
    """Write records as a table beside the images, with other cells where ``changes`` say so."""
    columns = cells(folder, records) | changes
    path = folder / "table.csv"
    write_table(path, list(columns), zip(*columns.values(), strict=True))
    return path


@pytest.fixture
def data(phantoms, tmp_path):
    return shutil.copytree(phantoms, tmp_path / "phantoms")


def test_folders_are_image_folders(data):
    shutil.copytree(data / "val", data / "test")
    shutil.rmtree(data / "test" / "ring")  # a test set may lack a class
    (data / "test" / "skull" / "deeper").mkdir()
    next((data / "test" / "skull").glob("*.png")).rename(data / "test" / "skull" / "deeper" / "a.png")
    records = read_records(data)
    for split in ("train", "val", "test"):
        folder = ImageFolder(str(data / split))
        expected = [(path, folder.classes[label]) for path, label in folder.samples]
        assert [(record.path, record.label) for record in records if record.split == split] == expected
    assert {record.patient for record in records} == {None}
    assert read_records(data, splits=("test",), needed=("test",)) == [each for each in records if each.split == "test"]


def test_a_table_in_the_folders_order_equals_the_folders(data, capsys):
    records = read_records(data)
    owners = [str(index) for index in range(len(records))]
    table = as_table(data, records, age=["40"] * len(records), patient=owners)
    found = read_records(table)
    assert [record._replace(patient=None) for record in found] == records
    assert [record.patient for record in found] == owners
    assert capsys.readouterr().out == f"note: {table}: these columns are not used: age\n"
    backwards = as_table(data, records[::-1])
    assert read_records(backwards) == [
        record for split in ("train", "val") for record in records[::-1] if record.split == split
    ]


def test_a_table_reached_by_a_link_keeps_its_paths(data, tmp_path):
    table = as_table(
        data, read_records(data), path=[f"../{r.path.removeprefix(str(tmp_path) + '/')}" for r in read_records(data)]
    )
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "far" / "away" / "link").symlink_to(table.parent)
    assert read_records(tmp_path / "far" / "away" / "link" / "table.csv") == read_records(data)


def test_patients_of_folders(data, tmp_path):
    records = read_records(data)
    owners = [f"{record.split}{index // 2}" for index, record in enumerate(records)]
    expected = [record._replace(patient=owner) for record, owner in zip(records, owners, strict=True)]
    file = tmp_path / "patients.csv"
    inside = [record.path.removeprefix(f"{data}/") for record in records]
    for paths in (inside, [f"phantoms/{path}" for path in inside], [record.path for record in records]):
        write_table(file, ["path", "patient"], [*zip(paths, owners, strict=True), ("other.png", "z")])
        assert read_records(data, patients=file) == expected
    for record in records:  # names that only one image has
        (data / record.path).rename((data / record.path).with_name(f"{record.split}-{record.path.split('/')[-1]}"))
    renamed = read_records(data)
    names = [record.path.split("/")[-1] for record in renamed]
    write_table(file, ["path", "patient"], zip(names, owners, strict=True))
    assert [record.patient for record in read_records(data, patients=file)] == owners


def error(*args, **named):
    with pytest.raises(InputError) as caught:
        read_records(*args, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_patients_in_two_splits_are_named(data, capsys):
    records = read_records(data)
    owners = [f"p{index % 26:02}" for index in range(len(records))]  # of 24 + 12 images: p00 to p09 are in both
    table = as_table(data, records, patient=owners)
    message = error(table)
    assert "10 patients are in more than one split: p00, p01, p02, p03, p04 and 5 more; split by patient" in message
    assert len(read_records(table, on_patient_leak="note")) == 36
    assert "note: " in capsys.readouterr().out
    owners = [f"{index}" for index in range(35)] + ["0"]
    assert "1 patient is in more than one split: 0;" in error(as_table(data, records, patient=owners))


def test_wrong_patients_files(data, tmp_path):
    records, file = read_records(data), tmp_path / "patients.csv"
    names = [record.path.removeprefix(f"{data}/") for record in records]
    rows = [(name, str(index)) for index, name in enumerate(names)]
    for table, words in (
        (rows[1:], f"no row for {names[0]}"),
        ([*rows, (names[3], "other")], f"line 38: {names[3]} belongs to patient 3 in an earlier line"),
        ([*rows, ("x.png", "")], "line 38: no patient"),
        ([*rows[1:], (names[0].split("/")[-1], "a")], "names 2 images; write their folders too"),
    ):
        write_table(file, ["path", "patient"], table)
        assert words in error(data, patients=file)
    write_table(file, ["image", "patient"], rows)
    assert "no column path (its columns: image, patient)" in error(data, patients=file)
    table = as_table(data, records, patient=[str(index) for index in range(36)])
    assert "has a column patient already" in error(table, patients=file)


@pytest.mark.parametrize(
    ("column", "row", "cell", "words"),
    [
        ("path", 5, "train/none/lost.png", "line 7: no file train/none/lost.png"),
        ("path", 5, "train/base/../base/00000.png", "train/base/../base/00000.png is in lines 2 and 7"),
        ("label", 5, "", "line 7: no label"),
        ("split", 5, "valid", "line 7: split 'valid'; a split is train, val or test"),
        ("label", 5, "rare", "only in train: rare"),
        ("label", 30, "rare", "only in val: rare"),
        ("patient", 5, "", "line 7: no patient"),
    ],
)
def test_wrong_rows(data, column, row, cell, words):
    records = read_records(data)
    changed = cells(data, records).get(column) or [str(index) for index in range(36)]
    changed[row] = cell
    assert words in error(as_table(data, records, **{column: changed}))


def test_wrong_sets(data, tmp_path):
    records = read_records(data)
    assert "no such folder or table" in error(tmp_path / "missing")
    assert "no image of split val" in error(as_table(data, records, split=["train"] * 36))
    assert "no image of split test" in error(as_table(data, records), needed=("test",))
    with pytest.raises(InputError, match="only one label, base; at least two are needed"):
        open_splits(str(as_table(data, records, label=["base"] * 36)), ("train", "val"))
    labels, splits = ([getattr(record, name) for record in records] for name in ("label", "split"))
    labels[23], splits[23] = "new", "test"
    assert "only in test: new; labels must be in train and val" in error(as_table(data, records, label=labels, split=splits))
    write_table(data / "table.csv", ["path", "label"], [(record.path, record.label) for record in records])
    assert "no column split" in error(data / "table.csv")
    assert "write column Patient as patient" in error(as_table(data, records, Patient=["1"] * 36))


def test_wrong_folders(data):
    assert "no test/ in it" in error(data, needed=("train", "val", "test"))
    (data / "test").mkdir()
    assert "no folder of a class in it" in error(data)
    (data / "test" / "ring").mkdir()
    assert "no image in ring/" in error(data)
    shutil.copytree(data / "val" / "base", data / "test" / "base")
    assert {record.label for record in read_records(data) if record.split == "test"} == {"base"}
    shutil.rmtree(data / "test")
    (data / "val" / "ring").rename(data / "val" / "rong")
    assert "only in train: ring; only in val: rong" in error(data)
    for path in (data / "val" / "rong").iterdir():
        path.unlink()
    assert "no image in rong/" in error(data)


def test_tables_as_other_programs_write_them(data):
    rows = "\n".join(f"{number};{path};{path.parent.name};{path.parts[-3]};;" for number, path in
                     enumerate(sorted(data.glob("*/*/*.png"))))  # fmt: skip
    (data / "t.csv").write_text(f"\n;path;label;split;;\n{rows}\n")
    assert len(read_records(data / "t.csv")) == len(rows.split("\n"))


def test_patients_of_linked_images(data, tmp_path):
    """The table names a link by where it lies."""
    linked = tmp_path / "linked"
    for record in read_records(data):
        link = linked / Path(record.path).relative_to(data)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(record.path).resolve())
    inside = [str(Path(record.path).relative_to(linked)) for record in read_records(linked)]
    owners = [f"p{path}" for path in inside]
    write_table(tmp_path / "patients.csv", ["path", "patient"], zip(inside, owners, strict=True))
    assert [record.patient for record in read_records(linked, patients=tmp_path / "patients.csv")] == owners
