"""Checkpoints: whole or not at all, and never executed."""

import os
import pickle

import pytest
import torch

from util import checkpoint
from util.errors import InputError


def test_save_and_load(tmp_path):
    path = tmp_path / "checkpoint-last.pth"
    checkpoint.save(path, model={"w": torch.arange(3)}, epoch=4, args={"lr": 0.1}, classes=["a", "b"])
    content = checkpoint.load(path)
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
    assert checkpoint.load(path)["epoch"] == 1


@pytest.mark.parametrize("links", [True, False])
def test_duplicates_survive_the_next_save(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    last = tmp_path / "checkpoint-last.pth"
    for epoch in range(3):
        checkpoint.save(last, model={"w": torch.zeros(1)}, epoch=epoch)
        checkpoint.duplicate(last, f"checkpoint-{epoch}.pth")
    assert [checkpoint.load(tmp_path / f"checkpoint-{e}.pth")["epoch"] for e in range(3)] == [0, 1, 2]


def test_newest_skips_a_damaged_one_and_says_so(tmp_path, capsys):
    for epoch in (2, 10):
        checkpoint.save(tmp_path / f"checkpoint-{epoch}.pth", model={"w": torch.zeros(1)}, epoch=epoch)
    (tmp_path / "checkpoint-last.pth").write_bytes(b"half")
    path, content = checkpoint.newest(tmp_path)
    assert path.name == "checkpoint-10.pth" and content["epoch"] == 10
    assert "checkpoint-last.pth" in capsys.readouterr().out


def test_no_checkpoint_at_all(tmp_path):
    assert checkpoint.newest(tmp_path) is None


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    trace = tmp_path / "it-ran"
    for name, write in (("torch.pth", torch.save), ("plain.pth", lambda x, p: p.write_bytes(pickle.dumps(x)))):
        write({"model": {"w": torch.zeros(1)}, "args": Payload(trace)}, tmp_path / name)
        with pytest.raises(InputError, match=name):
            checkpoint.load(tmp_path / name)
    assert not trace.exists()
    torch.load(tmp_path / "torch.pth", weights_only=False)  # the payload is a real one
    assert trace.exists()


def test_what_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "text.pth").write_text("not a checkpoint")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"model": {}}, tmp_path / "empty.pth")
    for name in ("text.pth", "list.pth", "empty.pth", "absent.pth"):
        with pytest.raises(InputError, match=name):
            checkpoint.load(tmp_path / name)
