"""Progress: a bar with rate and time left on a terminal, plain lines elsewhere."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from types import SimpleNamespace

from conftest import ROOT, TINY_PRETRAIN

from util.system import console
from util.training.run import Training


def test_bar_on_a_terminal(phantoms, tmp_path):
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # rows and columns
    command = f"{ROOT / 'main_pretrain.py'} {TINY_PRETRAIN} --epochs 1 --data_path {phantoms} --output_dir {tmp_path / 'o'}"
    process = subprocess.Popen([sys.executable, *command.split()], stdout=subprocess.PIPE, stderr=child, cwd=tmp_path)
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(parent, 4096)
        except OSError:  # the terminal is closed
            break
        if not part:
            break
        shown += part
    lines = process.communicate()[0].decode()
    assert process.returncode == 0
    text = shown.decode()
    assert "epoch 0:" in text and "image/s" in text and "/24" in text and "<" in text
    assert "epoch 0 of 1:" in lines and "left)" in lines


def test_lines_elsewhere(capsys, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", -1)
    assert list(console.track(range(3), "reading", total=3, scale=10)) == [0, 1, 2]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0].startswith("reading: 10/30, ") and lines[-1].endswith("0:00:00 left")
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=iter((0, 20, 60)).__next__))
    assert list(console.track(range(2), "measuring", total=3, unit="sample")) == [0, 1]
    assert capsys.readouterr().out.splitlines()[-1] == "measuring: 2/3, 0.033 samples/s, 0:00:30 left"


def test_clock():
    assert console.clock(3725.4) == "1:02:05" and console.clock(59.6) == "0:01:00"
    assert console.time_left(10, 4, 16) == "0:00:30" and console.time_left(10, 0, 16) == "?"


def test_time_left_counts_only_what_this_start_trained(capsys, monkeypatch):
    """Resumed in the middle of epoch 2, half an epoch took 60 s when it ends; three of the six are left, 120 s each."""
    monkeypatch.setattr("util.training.run.time.monotonic", lambda: 1060.0)
    training = SimpleNamespace(
        plan=SimpleNamespace(epochs=6),
        _first_epoch=2,
        _first_step=5,
        _steps_per_epoch=10,
        _started=1000.0,
        _log=SimpleNamespace(epoch=lambda *_: None),
        _saver=SimpleNamespace(save_epoch=lambda *_: None),
        _make_epoch=lambda number: None,
        ends_after=lambda number: False,
        _is_stalled=lambda number: False,
    )
    Training.end_epoch(training, SimpleNamespace(number=2), {"loss": 1.0})
    assert capsys.readouterr().out == "epoch 2 of 6: loss 1  (0:06:00 left)\n"
