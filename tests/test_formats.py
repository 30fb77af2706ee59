"""docs/formats.md, followed as written in small: DICOM files, trained on and evaluated by the scripts; and other formats."""

import json
import re

import numpy as np
import pytest
from conftest import ROOT, TINY_FINETUNE, content_of, run_here

pydicom, nibabel = pytest.importorskip("pydicom"), pytest.importorskip("nibabel")

PAGE = (ROOT / "docs" / "formats.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```\n", PAGE, re.M | re.S)
COMMANDS = [command.replace("\\\n", " ") for command in re.findall(r"^    python ((?:.*\\\n)*.*)", PAGE, re.M)]
SMALLER = {
    "--train 400 --val 100": "--train 24 --val 8",
    "--epochs 20": "--epochs 2 --num_workers 0 --device cpu --figure_width 85",
    "--warmup_epochs 2": "--warmup_epochs 0",
    "--sam_epoch 10": "--sam_epoch 1",
    "--batch_size 32": "--batch_size 8",
}


def run(command, folder):
    """What a command of the page prints."""
    for long, short in SMALLER.items():
        command = command.replace(long, short)
    return run_here(command, folder).stdout


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder in which the page was followed, what its commands printed, and the names that its Python left."""
    folder, names = tmp_path_factory.mktemp("formats"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        printed = [run(COMMANDS[0], folder)]
        exec(SNIPPETS[0], names)
        for path in (folder / "formats" / "dicom").rglob("*"):
            if path.is_file():
                dataset = pydicom.dcmread(path)
                dataset.PatientName, dataset.PatientID = "Doe^Jane", "4711-0815"
                dataset.save_as(path)
        printed += [run(command, folder) for command in COMMANDS[1:]]
        exec(SNIPPETS[1], names)
    return folder / "formats", printed, names


def test_the_page_says_how_images_are_read(followed):
    _, printed, _ = followed
    assert "train: intensity range -1050 to 1450" in printed[1]
    for shown, told in zip(re.findall(r"^    (\w+: intensity .*)", PAGE, re.M), printed[2:], strict=True):
        assert shown in told


def test_dicom_files_are_trained_on_and_evaluated(followed):
    demo, _, names = followed
    assert [path for path in (demo / "dicom").rglob("*") if path.suffix] == []
    assert content_of(demo / "dicom-pretrain" / "checkpoint-last.pth")["args"]["window"] == [200, 2500]
    assert content_of(demo / "dicom-finetune" / "checkpoint-last.pth")["args"]["intensity_range"] == [-1024, 3071]
    results = json.loads((demo / "dicom-eval" / "metrics.json").read_text())
    assert 0 <= results["top1"] <= 1 and len((demo / "dicom-eval" / "predictions.csv").read_text().splitlines()) == 9
    assert names["model"].reading.intensity_range == (-1024, 3071)
    assert not np.allclose(names["weights"], names["narrow"])


def test_no_header_is_copied_into_an_output(followed):
    demo, printed, _ = followed
    written = [path for path in demo.rglob("*") if path.is_file() and "dicom-" in str(path)]
    assert len(written) > 10
    for content in [*(path.read_bytes() for path in written), *(each.encode() for each in printed)]:
        assert b"Jane" not in content and b"4711-0815" not in content


def test_a_medmnist_file_is_a_data_set(call, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 16), ("val", 8), ("test", 8)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 2
    np.savez(tmp_path / "tinymnist.npz", **arrays)
    common = f"--data_path {tmp_path / 'tinymnist.npz'} --device cpu --output_dir {tmp_path}"
    small = "--input_size 32 --epochs 1 --warmup_epochs 0"
    status, out, err = call(f"main_finetune.py {TINY_FINETUNE} {small} {common}/fine")
    assert status == 0 and "16 training and 8 validation images of 2 classes" in out, err
    status, out, err = call(f"main_finetune.py --eval --resume {tmp_path}/fine/checkpoint-last.pth {common}/eval")
    assert status == 0 and "evaluated: test" in out, err
    rows = (tmp_path / "eval" / "predictions.csv").read_text().splitlines()
    assert "tinymnist.npz/test/000000" in rows[1] and len(rows) == 9


def test_a_slice_is_chosen_once(call, tmp_path):
    """Without --slice, a line asks for it; the checkpoint keeps it."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for number in range(count):
            folder = tmp_path / "data" / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            volume = nibabel.Nifti1Image(rng.random((20, 24, 6), dtype=np.float32), np.eye(4))
            nibabel.save(volume, folder / f"{number}.nii.gz")
    train = f"main_finetune.py {TINY_FINETUNE} --input_size 32 --epochs 1 --warmup_epochs 0"
    common = f"--data_path {tmp_path / 'data'} --device cpu --output_dir {tmp_path}"
    status, _, err = call(f"{train} {common}/fine")
    assert status == 2 and len(err.splitlines()) == 1 and "12 images:" in err and "--slice AXIS INDEX" in err
    status, out, err = call(f"{train} {common}/fine --slice 2 middle")
    assert status == 0 and "intensity range" in out, err
    status, out, err = call(f"main_finetune.py --eval --resume {tmp_path}/fine/checkpoint-last.pth {common}/eval")
    assert status == 0, err
