"""Two processes through torchrun agree with one."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY_FINETUNE, TINY_PRETRAIN, content_of, run_script


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_two_processes_equal_one(phase, phantoms, pretrained, tmp_path):
    if phase == "pretrain":
        script = f"main_pretrain.py {TINY_PRETRAIN} --epochs 2 --warmup_epochs 0 --sam_epoch 1"
    else:
        start = f"--finetune {pretrained / 'checkpoint-last.pth'}"
        script = f"main_finetune.py {TINY_FINETUNE} --epochs 2 --warmup_epochs 0 --drop_path 0 {start}"
    script += f" --amp fp32 --lr 1e-4 --data_path {phantoms}"
    run_script(f"{script} --output_dir {tmp_path / 'one'}", tmp_path)
    name, options = script.replace("--batch_size 8", "--batch_size 4").split(" ", 1)
    command = (
        f"-m torch.distributed.run --standalone --nproc_per_node 2 {ROOT / name} {options} --output_dir {tmp_path / 'two'}"
    )
    result = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    one, two = (content_of(tmp_path / n / "checkpoint-last.pth") for n in ("one", "two"))
    for weight in one["model"]:
        torch.testing.assert_close(one["model"][weight], two["model"][weight], atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(one["maps"], two["maps"], atol=5e-3, rtol=1e-3)
    logs = [[json.loads(x) for x in (tmp_path / n / "log.txt").read_text().splitlines()] for n in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) == 2
    for a, b in zip(*logs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3) and a["train_top1"] == pytest.approx(
            b["train_top1"], abs=0.05
        )
    assert result.stdout.count("epoch 1 of 2") == 1
