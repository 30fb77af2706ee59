"""Checkpoints: whole or not at all, and never executed."""

import os

import pytest
import torch
from conftest import TINY_FINETUNE, content_of
from safetensors.torch import save_file
from stress import hostile_checkpoints

from util.system.errors import InputError
from util.training import checkpoint


def test_save_and_load(tmp_path):
    path = tmp_path / "checkpoint-last.pth"
    checkpoint.save(path, model={"w": torch.arange(3)}, epoch=4, args={"lr": 0.1}, classes=["a", "b"])
    content = content_of(path)
    assert content["epoch"] == 4 and torch.equal(content["model"]["w"], torch.arange(3))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-last.pth"]


def test_a_save_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint-last.pth"
    checkpoint.save(path, model={"w": torch.zeros(1)}, epoch=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        checkpoint.save(path, model={"w": torch.ones(1)}, epoch=2)
    assert content_of(path)["epoch"] == 1


@pytest.mark.parametrize("links", [True, False])
def test_duplicates_survive_the_next_save(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    last = tmp_path / "checkpoint-last.pth"
    for epoch in range(3):
        checkpoint.save(last, model={"w": torch.zeros(1)}, epoch=epoch)
        checkpoint.duplicate(last, f"checkpoint-{epoch}.pth")
    assert [content_of(tmp_path / f"checkpoint-{e}.pth")["epoch"] for e in range(3)] == [0, 1, 2]


def test_newest_skips_a_damaged_one_and_says_so(tmp_path, capsys):
    for epoch in (2, 10):
        checkpoint.save(tmp_path / f"checkpoint-{epoch}.pth", model={"w": torch.zeros(1)}, epoch=epoch)
    (tmp_path / "checkpoint-last.pth").write_bytes(b"half")
    newest = checkpoint.newest(tmp_path)
    assert newest.path.name == "checkpoint-10.pth" and newest.content["epoch"] == 10
    assert "checkpoint-last.pth" in capsys.readouterr().out


def test_no_checkpoint_at_all(tmp_path):
    assert checkpoint.newest(tmp_path) is None


def test_pickles_that_would_run_code_are_refused(tmp_path):
    trace = tmp_path / "it-ran"
    for path in hostile_checkpoints(tmp_path, trace):
        with pytest.raises(InputError, match=path.name):
            content_of(path)
    assert not trace.exists()
    torch.load(tmp_path / "in-args.pth", weights_only=False)  # the payload is a real one
    assert trace.exists()


def test_a_hostile_checkpoint_is_refused_by_the_scripts(call, phantoms, tmp_path):
    trace = tmp_path / "it-ran"
    hostile = hostile_checkpoints(tmp_path, trace)[0]
    for option in ("--finetune", "--eval --resume", "--resume"):
        command = f"main_finetune.py {TINY_FINETUNE} --data_path {phantoms} --output_dir {tmp_path / 'out'}"
        status, _, err = call(f"{command} {option} {hostile}")
        assert status == 2 and hostile.name in err and len(err.splitlines()) == 1
    assert not trace.exists()


def test_safetensors_load(call, phantoms, pretrained, tmp_path):
    parameters = content_of(pretrained / "checkpoint-last.pth")["model"]
    save_file(parameters, tmp_path / "encoder.safetensors")
    loaded = content_of(tmp_path / "encoder.safetensors")["model"]
    assert all(torch.equal(loaded[name], parameters[name]) for name in parameters)
    command = f"main_finetune.py {TINY_FINETUNE} --input_size 32 --epochs 1 --data_path {phantoms}"
    status, out, err = call(f"{command} --output_dir {tmp_path / 'out'} --finetune {tmp_path / 'encoder.safetensors'}")
    assert status == 0 and "tensors loaded" in out, err
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"broken\.safetensors"):
        content_of(tmp_path / "broken.safetensors")


def test_what_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "text.pth").write_text("not a checkpoint")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"model": {}}, tmp_path / "empty.pth")
    for name in ("text.pth", "list.pth", "empty.pth", "absent.pth"):
        with pytest.raises(InputError, match=name):
            content_of(tmp_path / name)
