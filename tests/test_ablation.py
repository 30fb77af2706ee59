"""The ablation as a user runs it, on few phantoms; its statistics; the probe for leaks."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from scipy.stats import ttest_rel

from benchmarks.ablation import thinned
from benchmarks.ablation_plot import maps_figure, rows_figure
from benchmarks.ablation_rows import FINETUNING, PRETRAINING, ROWS
from benchmarks.ablation_stages import training_minutes
from benchmarks.ablation_tables import interval, tables
from benchmarks.leak import probe_accuracy
from util.phantom import write_phantoms
from util.training import checkpoint


def test_rows_are_made_of_what_there_is():
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.pretraining for row in ROWS} == {*PRETRAINING, None}
    assert {row.finetuning for row in ROWS} == set(FINETUNING)


def ablation(root: Path, *rows: str, pretrain_epochs: int = 4, results: str = "results") -> subprocess.CompletedProcess:
    """Run the ablation on 48 phantoms: four epochs of pre-training, one of fine-tuning, one seed."""
    command = [sys.executable, "-m", "benchmarks.ablation", "--data_path", str(root / "data"), "--preset", "quick"]
    command += ["--pretrain_epochs", str(pretrain_epochs), "--finetune_epochs", "1", "--jobs", "2"]
    command += ["--work", str(root / "work"), "--results", str(root / results), "--seeds", "0", "--rows", *rows]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def two_rows(tmp_path_factory) -> Path:
    """The folder of an ablation that has run two rows."""
    root = tmp_path_factory.mktemp("ablation")
    write_phantoms(root / "data", train=48, val=12, size=64, seed=0)
    result = ablation(root, "MSMAE, pre-training only", "consensus map")
    assert result.returncode == 0 and "4 stages to run" in result.stdout, result.stdout + result.stderr
    return root


def test_a_shared_half_changes_nothing(two_rows, tmp_path):
    """A pre-training by another map begins where MSMAE's was before SAM, and ends with the weights of its own whole run."""
    shared = two_rows / "work" / "pretrain-consensus-0"
    assert "2 epochs done" in (shared / "output.txt").read_text()
    record = json.loads((two_rows / "results" / "data.json").read_text())["pretraining"]["consensus"]["0"]
    command = record["command"].replace("runs/", f"{tmp_path}/").replace(" data ", f" {two_rows / 'data'} ").split()[1:]
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, os.cpu_count() // 2))}
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, env=environment)
    one, two = (checkpoint.load(folder / "checkpoint-last.pth") for folder in (shared, tmp_path / shared.name))
    assert all(torch.equal(one["model"][name], two["model"][name]) for name in one["model"])
    assert torch.equal(one["maps"], two["maps"]) and one["map_source"] == "consensus"
    assert [look["epoch"] for look in record["looks"]] == [0, 1, 2, 3]


def test_an_ablation_goes_on_and_reports(two_rows):
    file = two_rows / "results" / "data.json"
    once = json.loads(file.read_text())
    second = ablation(two_rows, "MAE", "MSMAE, pre-training only")
    assert "2 stages to run" in second.stdout, second.stdout + second.stderr
    results = json.loads(file.read_text())
    name = "MSMAE, pre-training only"
    assert results["cells"][name] == once["cells"][name] and results["pretraining"]["MSMAE"] == once["pretraining"]["MSMAE"]
    assert "0 stages to run" in ablation(two_rows, name).stdout
    assert list(results["pretraining"]) == ["MAE", "MSMAE", "consensus"]

    cell, start = results["cells"][name]["0"], results["pretraining"]["MSMAE"]["0"]
    log = (two_rows / "work" / "finetune-MSMAE-pre-training_only-0" / "log.txt").read_text().splitlines()
    assert cell["top1"] == json.loads(log[-1])["val_top1"] and cell["petaflops"] > 0 and cell["minutes"] >= 0
    first, last = start["looks"][0], start["looks"][-1]
    assert last["map_source"] and last["map_gain"] is not None and first["localisation"]["images"] == 9
    assert first["map_source"] is None and first["map_gain"] is None, "before SAM it draws by nothing"
    assert 0 <= start["leak"]["label"] <= 1 and "as SAM draws" in start["leak"]
    assert str(two_rows) not in json.dumps(results) and "--masking none" in cell["command"]
    table = file.with_suffix(".md").read_text()
    difference = 100 * (cell["top1"] - results["cells"]["MAE"]["0"]["top1"])
    assert f"| {name} | 1 | {100 * cell['top1']:.2f} | {difference:+.2f} (one seed)" in table
    assert cell["ran_on"] == start["ran_on"] and f"PyTorch {version('torch')}" in cell["ran_on"] and cell["ran_on"] in table
    assert "What the positions" in table and "Where the maps look" in table


def test_other_options_never_meet_in_one_table_or_folder(two_rows):
    file = two_rows / "results" / "data.json"
    before = file.read_bytes()
    mixed = ablation(two_rows, "MSMAE", pretrain_epochs=6)
    told = "has figures of other options (--epochs 4 --sam_epoch 2; now --epochs 6 --sam_epoch 3)"
    assert mixed.returncode == 2 and f"{file} {told}" in mixed.stderr, mixed.stderr
    resumed = ablation(two_rows, "MSMAE", pretrain_epochs=6, results="others")
    assert resumed.returncode == 2 and "pretrain-MSMAE-0 holds a run of other options" in resumed.stderr, resumed.stderr
    assert file.read_bytes() == before and not (two_rows / "others").exists()


def test_a_stage_that_fails_is_named(tmp_path):
    write_phantoms(tmp_path / "data", train=16, val=12, size=64, seed=0)  # fewer than a batch
    command = f"-m benchmarks.ablation --data_path {tmp_path / 'data'} --preset quick --rows MAE --results {tmp_path}"
    result = subprocess.run(
        [sys.executable, *command.split(), "--work", str(tmp_path / "work")], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2 and "pretrain-MAE-0" in result.stderr and "--batch_size 32" in result.stderr


def test_every_third_training_image_and_all_of_val(tmp_path):
    write_phantoms(tmp_path / "data", train=48, val=12, size=64, seed=0)
    for _ in range(2):  # the second time finds the links
        part = thinned(tmp_path / "data", tmp_path / "work", every=3)
    for split, step in (("train", 3), ("val", 1)):
        for folder in (tmp_path / "data" / split).iterdir():
            names = sorted(path.name for path in folder.iterdir())[::step]
            found = sorted((part / split / folder.name).iterdir())
            assert [path.name for path in found] == names and all(path.read_bytes() for path in found)


def test_an_epoch_without_a_rate_counts_as_the_others():
    lines = [{"images_per_second": rate} for rate in (10.0, 0.0, 20.0)]
    assert training_minutes(lines, 1200) == pytest.approx((120 + 90 + 60) / 60)


def test_interval_is_that_of_the_paired_t_test():
    a, b = [0.81, 0.84, 0.80, 0.86], [0.79, 0.80, 0.81, 0.80]
    expected = ttest_rel(a, b).confidence_interval(0.95)
    centre, low, high = interval([x - y for x, y in zip(a, b, strict=True)])
    assert (low, high) == pytest.approx((expected.low, expected.high)) and centre == pytest.approx(0.0275)


COMMITTED = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_tables_are_those_of_the_committed_figures(path):
    made = tables(json.loads(path.read_text()), [row.name for row in ROWS])
    assert made == path.with_suffix(".md").read_text()
    assert path.stem != "busi" or "| 5 | +5.64 (+1.61 to +9.68) |" in made


def test_pictures_show_every_pretraining_and_row():
    results = json.loads((ROOT / "benchmarks" / "results" / "busi.json").read_text())
    panels = [axis for axis in maps_figure(results).axes if axis.has_data()]
    assert len(panels) == 2 * len(results["pretraining"])
    gain = next(axis for axis in panels if axis.get_title() == "split batch, consensus")
    line = next(line for line in gain.lines if line.get_label() == "consensus of all blocks")
    ends = [run["looks"][-1]["localisation"]["sources"]["consensus"] for run in results["pretraining"]["split"].values()]
    assert line.get_ydata()[-1] == pytest.approx(sum(end["gain"] for end in ends) / len(ends))
    names = [label.get_text() for label in rows_figure(results).axes[0].get_yticklabels()]
    assert names == [row.name for row in ROWS if row.name in results["cells"]]


def test_the_probe_sees_a_leak_and_only_a_leak():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    even = torch.ones(200, 36)
    telling = even.clone()
    telling[labels == 1, :9] = 50
    image_only = 1 + 20 * torch.rand(200, 36, generator=generator)  # maps that differ, but not by class
    assert probe_accuracy(telling, labels, 0.45, 0.3) > 0.9
    assert probe_accuracy(even, labels, 0.45, 0.3) < 0.65 and probe_accuracy(image_only, labels, 0.45, 0.3) < 0.65
