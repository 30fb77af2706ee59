"""The paper's experiment on a CPU: its commands, what is gathered of a run, and the tables, text and recipe made from it."""

import json
import re
import shutil
import subprocess

import pytest
import torch
from conftest import ROOT, log_of

import main_finetune
import main_pretrain
from benchmarks.experiments import __main__ as experiments
from benchmarks.experiments.cells import LONG, ROWS, RUNS, Run
from benchmarks.experiments.gather import answers, gather
from benchmarks.experiments.tables import NOT_RUN, long_table, split_table, tables
from util.data.folders import open_splits
from util.data.images import Images
from util.data.inference import Inference
from util.system.device import Precision
from util.system.errors import InputError
from util.variant import MAE

RESULTS = json.loads(experiments.RESULTS.read_text())
SECTION = re.search(r"^## The paper's experiment on a CPU.*?(?=^## )", (ROOT / "RESULTS.md").read_text(), re.M | re.S)[0]


def test_every_run_is_a_command_that_its_script_takes():
    for run in RUNS.values():
        script = main_pretrain if run.pretrains else main_finetune
        args = script.get_args(run.command().split()[2:], recorded={})
        assert args.output_dir == f"runs/{run.name}" and (not run.start or args.finetune.split("/")[1] in RUNS)
    names = {name for rows in (*ROWS.values(), *LONG.values()) for runs in rows.values() for name in runs}
    assert names == {name for name, run in RUNS.items() if not run.pretrains}


@pytest.fixture
def ended(finetuned, tmp_path):
    """A finished fine-tuning of which it is known what it cost, in two starts."""
    folder = shutil.copytree(finetuned, tmp_path / "runs" / "mine")
    (folder / "cpu.json").write_text('{"cpu_seconds": 30.0, "commit": "a"}\n' * 2)
    (folder / "ended").touch()
    return folder


def test_what_is_gathered_is_of_the_last_epoch_and_counts_copies(ended, phantoms, tmp_path):
    data = shutil.copytree(phantoms, tmp_path / "phantoms")
    label = sorted(path.name for path in (data / "val").iterdir())[0]
    copied = sorted((data / "val" / label).iterdir())[0]
    shutil.copy(copied, data / "train" / label / "copy.png")
    found, last = gather(ended, data, pretrains=False), log_of(ended)[-1]
    assert (found["all"]["right"], found["all"]["of"]) == (round(12 * last["val_top1"]), 12)
    assert found["without_copies"]["of"] == 11 and found["cpu_minutes"] == 1 and len(found["curve"]) == 3
    assert found["map_pointing"] == last["map_pointing"] and found["random_deleted"]["of"] == 12
    with open(ended / "log.txt", "a") as log:  # as if the run had seen other images
        log.write(json.dumps({**last, "val_top1": (last["val_top1"] + 0.5) % 1}) + "\n")
    with pytest.raises(InputError, match="is not now"):
        gather(ended, data, pretrains=False)


def test_the_most_attended_tenth_is_deleted(phantoms):
    """By a model whose map rises with the patch's number: of 16 patches the last one goes; or one at random."""
    seen = []

    class Model(torch.nn.Module):
        variant = MAE

        def attention_maps(self, pixels):
            return torch.arange(16.0).view(1, 1, 4, 4).expand(len(pixels), -1, -1, -1)

        def forward(self, pixels, visible):
            seen.append(visible)
            return torch.zeros(len(pixels), 4)

    images = Images(open_splits(str(phantoms), ("val",))[0])
    right = answers(Model(), images, Inference(32, 12, Precision(torch.device("cpu"), "fp32")))
    whole, attended, random = seen
    assert whole is None and attended.tolist() == [list(range(15))] * 12
    assert random.shape == (12, 15) and len({tuple(row) for row in random.tolist()}) > 4
    assert all(torch.equal(each, images.labels == 0) for each in right.values())


def test_a_run_that_ended_joins_the_results(ended, phantoms, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "ROOT", tmp_path)
    monkeypatch.setattr(experiments, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(experiments, "RUNS", {"mine": Run("mine", "--epochs 3", "."), "other": Run("other", "", ".")})
    monkeypatch.setattr("sys.argv", ["experiments", "--run", "mine"])  # it has ended: nothing is done again
    (tmp_path / "data").symlink_to(phantoms)
    experiments.main()
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == ["mine"] and results["mine"]["command"].startswith("python main_finetune.py --epochs 3 --seed 0")
    assert (tmp_path / "results.md").read_text() == tables(results) and NOT_RUN in capsys.readouterr().out


def test_the_committed_tables_are_those_of_the_figures():
    assert experiments.RESULTS.with_suffix(".md").read_text() == tables(RESULTS)
    assert all(found["command"] == RUNS[name].command() for name, found in RESULTS.items())


def test_results_tells_these_figures_and_no_others():
    """Each line of a table is one of the committed tables; each percentage of the text stands in them."""
    lines = {re.sub(" +", " ", line) for line in (split_table(RESULTS) + "\n" + long_table(RESULTS)).splitlines()}
    told = [line for line in SECTION.splitlines() if line.startswith("| ")]
    assert len(told) > 12 and {re.sub(r"\*|(?<= ) +", "", line) for line in told} <= lines
    figures = {*re.findall(r"\d+\.\d+", "".join(lines)), *re.findall(r"\d+(?:,\d+)? of \d+(?:,\d+)?", "".join(lines))}
    prose = " ".join(line for line in SECTION.splitlines() if not line.startswith(("|", "    ")))
    assert {*re.findall(r"(\d+\.\d+) %", prose)} <= figures


def test_the_recipe_is_the_preset(tmp_path):
    recorder = tmp_path / "python"
    recorder.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    recorder.chmod(0o755)
    recipe = ROOT / "recipes" / "cpu" / "btmd.sh"
    subprocess.run(["bash", recipe], cwd=tmp_path, env={"PYTHON": str(recorder), "PATH": "/usr/bin:/bin"}, check=True)
    *calls, evaluation = (tmp_path / "calls").read_text().splitlines()
    names = ("btmd-tuned-pretrain-0", "btmd-preset")
    assert [f"python {call}" for call in calls] == [f"{RUNS[name].command()} --resume auto" for name in names]
    assert main_finetune.get_args(evaluation.split()[1:], recorded={}).resume == "runs/btmd-preset/checkpoint-last.pth"
