"""Two processes through torchrun agree with one."""

import json
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY_FINETUNE, TINY_PRETRAIN, content_of, log_of, run_here

from util.evaluation.predictions import read_predictions
from util.phantom import write_phantoms
from util.system import distributed

ONE_NODE = ["--standalone --nproc_per_node 2"]


def two_nodes() -> list[str]:
    """The options of two agents that meet at a free port, each with a process of its own, as on two nodes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [f"--nnodes 2 --nproc_per_node 1 --rdzv_backend c10d --rdzv_id trial --rdzv_endpoint localhost:{port}"] * 2


@pytest.mark.parametrize("phase, nodes", [("pretrain", 2), ("finetune", 1)])
def test_two_processes_equal_one(phase, nodes, phantoms, pretrained, tmp_path):
    if phase == "pretrain":
        script = f"main_pretrain.py {TINY_PRETRAIN} --epochs 2 --warmup_epochs 0 --sam_epoch 1"
    else:
        start = f"--finetune {pretrained / 'checkpoint-last.pth'}"
        script = f"main_finetune.py {TINY_FINETUNE} --epochs 2 --warmup_epochs 0 --drop_path 0 {start}"
    script += f" --amp fp32 --lr 1e-4 --data_path {phantoms}"
    run_here(f"{script} --output_dir {tmp_path / 'one'}", tmp_path)
    name, options = script.replace("--batch_size 8", "--batch_size 4").split(" ", 1)
    output = ["--output_dir", tmp_path / "two"]
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *agent.split(), ROOT / name, *options.split(), *output],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for agent in (ONE_NODE if nodes == 1 else two_nodes())
    ]
    printed = [agent.communicate(timeout=300) for agent in agents]
    assert all(agent.returncode == 0 for agent in agents), printed
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
    assert sum(out.count("epoch 1 of 2") for out, _ in printed) == 1


def test_two_processes_predict_as_one(phantoms, finetuned, tmp_path):
    """The image that one of them cannot read is named once, and the pictures of both are there."""
    shutil.copytree(phantoms / "val", tmp_path / "new")
    (tmp_path / "new" / "broken.png").write_text("no image")
    options = f"--predict new --resume {finetuned / 'checkpoint-last.pth'} --device cpu --amp fp32 --batch_size 4 --overlays"
    assert run_here(f"main_finetune.py {options} --output_dir one", tmp_path, check=False).returncode == 1
    command = [sys.executable, "-m", "torch.distributed.run", *ONE_NODE[0].split(), ROOT / "main_finetune.py"]
    subprocess.run([*command, *options.split(), "--output_dir", "two"], cwd=tmp_path, capture_output=True, timeout=300)
    one, two = (read_predictions(tmp_path / name, labelled=False) for name in ("one", "two"))
    assert (
        one.files == two.files and len(one.files) == 12 and two.probabilities == pytest.approx(one.probabilities, abs=1e-5)
    )
    assert len((tmp_path / "two" / "unreadable.txt").read_text().splitlines()) == 1
    assert len(list((tmp_path / "two" / "overlays").iterdir())) == 12


def test_a_process_without_an_image_brings_none(monkeypatch):
    """As where a sheet of six images is made by eight processes."""
    shards = [torch.tensor([[0.0]]), torch.tensor([[1.0]]), None]

    def gather(into, mine):
        into[:] = shards

    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.dist, "all_gather_object", gather)
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    assert distributed.gather_rows(None, 2).tolist() == [[0.0], [1.0]]


def test_two_processes_predict_one_image_and_evaluate_the_segmentation_that_they_save(phantoms, finetuned, tmp_path):
    image = sorted((phantoms / "val").glob("*/*.png"))[0]
    write_phantoms(tmp_path / "data", train=8, val=3, size=32, seed=0, segmentation=True)
    together = [sys.executable, "-m", "torch.distributed.run", *ONE_NODE[0].split()]
    small = "--root data --arch setr --model vit_micro_patch8 --patch_size 8 --input_w 32 --input_h 32 --batch_size 4"
    small += " --device cpu --amp fp32 --num_workers 0"
    for command in (
        f"main_finetune.py --predict {image} --resume {finetuned / 'checkpoint-last.pth'} --device cpu --output_dir one",
        f"segmentation/train.py {small} --epochs 1 --output_dir setr",
    ):
        script, *options = command.split()
        ended = subprocess.run(
            [*together, ROOT / script, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(read_predictions(tmp_path / "one", labelled=False).files) == 1
    run_here(f"segmentation/train.py --evaluate setr/checkpoint-last.pth {small} --output_dir evaluated", tmp_path)
    logged = log_of(tmp_path / "setr")[-1]["val_loss"]
    assert json.loads((tmp_path / "evaluated" / "metrics.json").read_text())["loss"] == pytest.approx(logged, rel=1e-5)
