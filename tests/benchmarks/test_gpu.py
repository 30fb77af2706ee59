"""What one types first on a machine with a GPU: its commands are ones that the scripts take, and a failure is told."""

import argparse
import sys

import pytest
import torch

from benchmarks import gpu
from benchmarks.speed.__main__ import get_options
from util.options import finetuning, pretraining
from util.system.errors import InputError

OPTIONS = argparse.Namespace(
    data_path=None, device="cpu", model="vit_micro_patch8", input_size=32, batch_sizes=[8, 16], output_dir="gpu"
)


def test_every_command_is_one_that_its_script_takes(tmp_path, monkeypatch):
    parsers = {"main_pretrain.py": pretraining.get_args, "main_finetune.py": finetuning.get_args}
    commands = [step.command for step in gpu.steps(OPTIONS, tmp_path)]
    assert [command[0] for command in commands if command[0] in parsers] == list(parsers)
    for command in commands:
        if command[0] in parsers:
            assert parsers[command[0]](command[1:]).data_path == str(tmp_path / "gpu-phantoms")
        elif command[1] == "benchmarks.speed":
            monkeypatch.setattr(sys, "argv", command[1:])
            assert get_options().batch_size in OPTIONS.batch_sizes


@pytest.mark.parametrize("device, tested", [("cuda:1", True), ("cpu", False)])
def test_the_gpu_tests_run_where_there_is_a_gpu(tmp_path, device, tested):
    """A trial on the CPU would skip them all and call that passed."""
    steps = gpu.steps(argparse.Namespace(**{**vars(OPTIONS), "device": device}), tmp_path)
    assert ("tests/test_cuda.py" in steps[0].command) is tested
    assert not any("tests/test_cuda.py" in step.command for step in steps[1:])


@pytest.mark.parametrize(
    "code, limit, ended",
    [
        ("print('fine')", 60, "passed"),
        ("raise SystemExit(3)", 60, "FAILED with exit status 3"),
        ("print('fine'); import time; time.sleep(60)", 2, "stopped"),
    ],
)
def test_how_a_step_ended_is_told_and_what_it_printed_is_kept(tmp_path, monkeypatch, capsys, code, limit, ended):
    outcome = gpu.run(gpu.Step("trial", ["-c", code], limit), tmp_path / "gpu.txt")
    assert outcome.ended.startswith(ended)
    printed = (tmp_path / "gpu.txt").read_text().splitlines()[2:]  # after the title, which has the code too
    assert printed == (["fine"] if "fine" in code else [])
    assert ("fine" in capsys.readouterr().out.splitlines()) == bool(printed)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(InputError, match="finds no GPU"):
        gpu.main()
