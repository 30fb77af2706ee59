"""The recipes run the paper's command lines: each script's options are the paper's, and it names the classes of its data."""

import os
import shlex
import subprocess

import pytest
from conftest import ROOT
from test_protocol import FINETUNING, PRETRAINING

import main_finetune
import main_pretrain

CLASSES = {"messidor2": 5, "btmd": 4, "ham10000": 7, "deeplesion": 8, "chestxray2017": 2, "busi": 3}


@pytest.mark.parametrize("name", CLASSES)
def test_a_recipe_is_the_papers_three_commands(name, tmp_path):
    """Python is replaced by a script that writes down how it is called."""
    recorder = tmp_path / "python"
    recorder.write_text(f'#!/bin/sh\nprintf "%s " "$@" >> {tmp_path}/calls\necho >> {tmp_path}/calls\n')
    recorder.chmod(0o755)
    recipe = ROOT / "recipes" / f"{name}.sh"
    subprocess.run(["bash", recipe], cwd=ROOT, env={**os.environ, "PYTHON": str(recorder)}, check=True)
    pretrain, finetune, evaluate = map(shlex.split, (tmp_path / "calls").read_text().splitlines())
    assert [call[0] for call in (pretrain, finetune, evaluate)] == [
        "main_pretrain.py",
        "main_finetune.py",
        "main_finetune.py",
    ]
    args = vars(main_pretrain.get_args(pretrain[1:], recorded={}))
    assert {key: args[key] for key in PRETRAINING} == PRETRAINING
    assert args["num_classes"] == CLASSES[name] and args["data_path"] == f"data/{name}"
    args = vars(main_finetune.get_args(finetune[1:], recorded={}))
    assert {key: args[key] for key in FINETUNING} == FINETUNING and args["num_classes"] == CLASSES[name]
    assert args["finetune"] == f"runs/{name}/pretrain/checkpoint-last.pth"
    args = vars(main_finetune.get_args(evaluate[1:], recorded={}))
    assert args["eval"] and args["resume"] == f"runs/{name}/finetune/checkpoint-last.pth"
