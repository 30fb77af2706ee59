"""The ablation as a user runs it, on few phantoms; its statistics; the probe for leaks; the log of trials."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_here
from scipy.stats import ttest_rel

import main_finetune
import main_pretrain
from benchmarks.ablation.__main__ import every_nth
from benchmarks.ablation.leak import probe_accuracy
from benchmarks.ablation.plot import rows_figure
from benchmarks.ablation.rows import PRESETS, PRETRAININGS, ROWS, finetuning_settings, pretraining_settings
from benchmarks.ablation.stages import Stage, training_minutes
from benchmarks.ablation.tables import MEASURES, difference, interval, tables
from util.masking import SAM
from util.phantom import write_phantoms

RESULTS = {name: ROOT / "benchmarks" / "results" / f"{name}.json" for name in ("btmd-every5", "busi")}


def ablation(root: Path, *rows: str, options: str = "") -> list[str]:
    """The ablation's command line on 48 phantoms: four epochs of pre-training, one of fine-tuning, one seed."""
    command = (
        f"-m benchmarks.ablation --data_path {root}/data --preset quick --pretrain_epochs 4 --finetune_epochs 1 --jobs 2"
    )
    command += f" --work {root}/work --results {root}/results --seeds 0 {options} --rows"
    return [*command.split(), *rows]


@pytest.fixture(scope="module")
def two_rows(tmp_path_factory) -> Path:
    """The folder of an ablation that has run two rows."""
    root = tmp_path_factory.mktemp("ablation")
    write_phantoms(root / "data", train=48, val=12, size=64, seed=0)
    command = [sys.executable, *ablation(root, "supervision alone", "MSMAE, pre-training only")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and "4 stages to run" in result.stdout, result.stdout + result.stderr
    return root


def test_rows_are_made_of_what_there_is():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names) and {row.against for row in ROWS} <= {*names, None}
    starts = {row.start or row.name for row in ROWS}
    assert {*PRETRAININGS} == {name for name in starts if not name.startswith("no pre-training")}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_row_is_a_command_that_its_script_takes(preset, tmp_path):
    pretraining, finetuning = ({**settings, "seed": 0, "data_path": "x"} for settings in PRESETS[preset])
    for row in ROWS:
        script, *words = Stage("cells", row.name, tmp_path, finetuning_settings(finetuning, row)).command()
        args = main_finetune.get_args(words)
        assert script == "main_finetune.py" and args.protocol == "paper"
        assert args.masking == row.finetuning["masking"] and args.unmasked_epochs < args.epochs
    starts = {}
    for name in PRETRAININGS:
        script, *words = Stage("pretraining", name, tmp_path, pretraining_settings(pretraining, name)).command()
        assert script == "main_pretrain.py"
        starts[name] = main_pretrain.get_args(words)
    paper = starts["MSMAE"]
    assert (paper.masking, paper.map, paper.map_temperature, paper.random_share) == ("attention", "last", 1, 0)
    assert starts["split batch, SAM sooner"].sam_epoch == paper.sam_epoch // 2


def test_an_ablation_goes_on_and_reports(two_rows):
    file, name = two_rows / "results" / "data.json", "MSMAE, pre-training only"
    results = json.loads(file.read_text())
    assert "0 stages to run" in run_here(ablation(two_rows, name, "supervision alone"), ROOT).stdout
    assert json.loads(file.read_text()) == results
    cell, start = results["cells"][name]["0"], results["pretraining"]["MSMAE"]["0"]
    log = (two_rows / "work" / "quick-4-1" / "finetune-MSMAE-pre-training_only-0" / "log.txt").read_text().splitlines()
    assert cell["top1"] == json.loads(log[-1])["val_top1"] and cell["minutes"] >= 0
    assert start["looks"][-1]["map_gain"] is not None and start["looks"][0]["localisation"]["images"] == 9
    assert start["looks"][0]["map_source"] is None, "before SAM nothing is drawn by a map"
    assert 0 <= start["leak"]["consensus"] <= 1 and "as SAM draws" in start["leak"]
    assert str(two_rows) not in json.dumps(results) and "--masking none" in cell["command"]
    table = file.with_suffix(".md").read_text()
    gap = 100 * (cell["top1"] - results["cells"]["supervision alone"]["0"]["top1"])
    assert f"| {name} | supervision alone | " in table and f"| {gap:+.2f} (one seed) |" in table
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    for told in (f"| {100 * cell['top1']:.2f} |", cell["ran_on"], "validation bilinear", commit):
        assert told in table


def test_other_settings_never_meet_in_one_file(two_rows):
    file = two_rows / "results" / "data.json"
    before = file.read_text()
    refused = run_here(ablation(two_rows, "MSMAE", options="--pretrain_epochs 6"), ROOT, check=False)
    assert refused.returncode == 2 and f"{file} was made with pretrain_epochs 4, now 6" in refused.stderr, refused.stderr
    (two_rows / "others").mkdir()
    (two_rows / "others" / "data.json").write_text(before.replace('"bilinear"', '"bicubic"'))
    refused = run_here(ablation(two_rows, "MSMAE", options=f"--results {two_rows}/others"), ROOT, check=False)
    told = "was made with validation bicubic, now bilinear: give another --name or --results"
    assert refused.returncode == 2 and told in refused.stderr and len(refused.stderr.splitlines()) == 1, refused.stderr
    assert file.read_text() == before


def test_a_stage_that_fails_is_named(tmp_path):
    write_phantoms(tmp_path / "data", train=16, val=12, size=64, seed=0)  # fewer than a batch
    result = run_here(ablation(tmp_path, "MAE"), ROOT, check=False)
    assert result.returncode == 2 and "pretrain-MAE-0" in result.stderr and "--batch_size 32" in result.stderr


def test_every_third_training_image_and_all_of_val(tmp_path):
    write_phantoms(tmp_path / "data", train=48, val=12, size=64, seed=0)
    for _ in range(2):  # the second time finds the links
        part = every_nth(tmp_path / "data", tmp_path / "part", every=3)
    for split, step in (("train", 3), ("val", 1)):
        for folder in (tmp_path / "data" / split).iterdir():
            names = sorted(path.name for path in folder.iterdir())[::step]
            linked = sorted((part / split / folder.name).iterdir())
            assert [path.name for path in linked] == names and all(path.read_bytes() for path in linked)


def test_a_part_has_its_masks_and_no_hidden_files(phantoms, tmp_path):
    data = shutil.copytree(phantoms, tmp_path / "data")
    for hidden in (data / "train" / ".DS_Store", data / "train" / "ring" / "._00000.png"):
        hidden.write_bytes(b"")
    part = every_nth(data, tmp_path / "part", 2)
    assert (part / "masks" / "val").is_dir() and len(list((part / "train" / "ring").iterdir())) == 3


def test_an_epoch_without_a_rate_counts_as_the_others():
    log = [{"images_per_second": rate} for rate in (10.0, 0.0, 20.0)]
    assert training_minutes(log, 1200) == pytest.approx((120 + 90 + 60) / 60, abs=0.01)


def test_interval_is_that_of_the_paired_t_test():
    a, b = [0.81, 0.84, 0.80, 0.86], [0.79, 0.80, 0.81, 0.80]
    expected = ttest_rel(a, b).confidence_interval(0.95)
    centre, low, high = interval([x - y for x, y in zip(a, b, strict=True)])
    assert (low, high) == pytest.approx((expected.low, expected.high)) and centre == pytest.approx(0.0275)


@pytest.mark.parametrize("name", RESULTS)
def test_committed_tables_are_those_of_the_committed_figures(name):
    results, told = json.loads(RESULTS[name].read_text()), RESULTS[name].with_suffix(".md").read_text()
    assert tables(results) == told and "validation bicubic" in told
    assert all(told.count(f"| {row} | ") >= 1 for row in results["cells"])
    assert name != "busi" or "| +5.64 (+1.61 to +9.68) |" in told


def test_the_picture_shows_every_row():
    results = json.loads(RESULTS["busi"].read_text())
    labels = [label.get_text() for label in rows_figure(results).axes[0].get_yticklabels()]
    assert (
        sorted(labels) == sorted(results["cells"]) and labels[0] == "MAE" and labels[-1] == "split batch, map of the label"
    )


TRIALS = re.findall(r"^### \S+ `([^`\n]*)`\n\n(.+?)(?=^### |\Z)", (ROOT / "docs" / "trials.md").read_text(), re.M | re.S)


@pytest.mark.parametrize(("row", "entry"), TRIALS, ids=[row for row, _ in TRIALS])
def test_the_log_of_trials_tells_measured_figures(row, entry):
    """Of each row: what it gains after fine-tuning on both data sets, and no difference that was not measured."""
    other = {row.name: row.against for row in ROWS}.get(row, "split batch")
    both = [json.loads(path.read_text()) for path in RESULTS.values()]
    measured = {measure: {difference(results, row, other, measure) for results in both} for measure in MEASURES}
    told = set(re.findall(r"[+-]\d+\.\d+ \([+-]\S+ to [+-][\d.]+\)", " ".join(entry.split())))
    assert measured["top-1 (%)"] <= told <= set().union(*measured.values())


def test_the_probe_sees_a_leak_and_only_a_leak():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    even = torch.ones(200, 36)
    telling = even.clone()
    telling[labels == 1, :9] = 50
    image_only = 1 + 20 * torch.rand(200, 36, generator=generator)  # maps that differ, but not by class
    assert probe_accuracy(telling, labels, SAM()) > 0.9
    assert probe_accuracy(even, labels, SAM()) < 0.65 and probe_accuracy(image_only, labels, SAM()) < 0.65
