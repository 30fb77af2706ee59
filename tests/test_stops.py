"""Nothing is lost: kills, stops by signals, full disks, losses that are not finite, dying processes."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import PRETRAIN_SCHEDULE, ROOT, TINY_PRETRAIN, content_of, run_here, run_script
from stress import FINETUNE, PRETRAIN, interrupt, same_state

from util.system import interruption
from util.training import checkpoint
from util.training.save_every import SaveEvery
from util.training.saver import Saver, most_at_once


@pytest.fixture(scope="module")
def whole(phantoms, pretrained, tmp_path_factory):
    """Command, folder and seconds of an uninterrupted run of each phase."""
    root = tmp_path_factory.mktemp("whole")
    runs = {}
    for phase, command in (("pretrain", PRETRAIN), ("finetune", f"{FINETUNE} --finetune {pretrained}/checkpoint-last.pth")):
        command += f" --data_path {phantoms}"
        began = time.monotonic()
        run_here(f"{command} --output_dir {root / phase}".replace("--num_workers 0", "--num_workers 2"), root)
        runs[phase] = command, root / phase, time.monotonic() - began
    return runs


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("pretrain", signal.SIGKILL),
        ("finetune", signal.SIGKILL),
        ("pretrain", signal.SIGTERM),
        ("finetune", signal.SIGINT),
    ],
)
def test_a_run_that_is_interrupted_and_resumed_ends_with_the_same_weights(phase, number, whole, tmp_path):
    command, folder, seconds = whole[phase]
    times = 3 if number == signal.SIGKILL else 1
    statuses = interrupt(command, tmp_path / "run", times, number, seconds, random.Random(number + len(phase)))
    assert set(statuses) == {-9 if number == signal.SIGKILL else 128 + number}
    assert same_state(tmp_path / "run" / "checkpoint-last.pth", folder / "checkpoint-last.pth")
    if number != signal.SIGKILL:
        output = (tmp_path / "output.txt").read_text()
        assert f"stopped by {number.name}" in output and "Traceback" not in output
    lines = [[json.loads(line) for line in (f / "log.txt").read_text().splitlines()] for f in (tmp_path / "run", folder)]
    for ours, theirs in zip(*lines, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["epoch"] == theirs["epoch"] and ours["loss"] == pytest.approx(theirs["loss"], rel=1e-12)


def test_a_second_ctrl_c_stops_at_once(capfd):
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in a shell's background
    with interruption.watch():
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal_received() == signal.SIGINT and "again stops at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)  # a signal is answered between two steps of the interpreter
    assert signal.getsignal(signal.SIGINT) is before


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(phantoms, tmp_path):
    """Files may not grow to the size of a checkpoint; then they may again."""
    command = f"main_pretrain.py {TINY_PRETRAIN} --data_path {phantoms} --output_dir {tmp_path / 'run'}"
    run_here(f"{command} --epochs 1", tmp_path)
    before = (tmp_path / "run" / "checkpoint-last.pth").read_bytes()

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails as it does on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, len(before) // 2))

    options = f"{command} --epochs 3 --resume auto".split()[1:]
    result = subprocess.run(
        [sys.executable, str(ROOT / "main_pretrain.py"), *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "checkpoint-last.pth could not be written" in result.stderr and "intact" in result.stderr
    assert (tmp_path / "run" / "checkpoint-last.pth").read_bytes() == before
    assert not list((tmp_path / "run").glob(".checkpoint*"))
    run_here(f"{command} --epochs 3 --resume auto", tmp_path)


def test_a_disk_without_room_is_found_before_training(call, phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40, 2**20))
    status, out, err = call(f"main_pretrain.py {TINY_PRETRAIN} --data_path {phantoms} --output_dir {tmp_path / 'run'}")
    assert status == 2 and "free" in err and len(err.splitlines()) == 1 and "epoch 0" not in out


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize(
    ("every", "keep", "epochs"), [("1", None, 6), ("1", 2, 6), ("3", None, 8), ("3", 1, 8), ("9steps", 1, 3)]
)
def test_room_is_asked_for_all_checkpoints_that_stay(every, keep, epochs, best, tmp_path, monkeypatch):
    """Counted while a run's checkpoints come and go: files of their own, hard links once, with the one being written."""
    every, most = SaveEvery.parse(every), 0

    def save(path, **_):
        nonlocal most
        most = max(most, len({other.stat().st_ino for other in tmp_path.glob("checkpoint-*")}) + 1)
        path.with_name("new").write_text("weights")
        path.with_name("new").replace(path)

    monkeypatch.setattr(checkpoint, "save", save)
    saver = Saver(tmp_path, every, keep, lambda _: {})
    for epoch in range(epochs):
        saver.save(epoch - 1, 1)  # stopped within the epoch
        saver.save(epoch)
        saver.name(epoch, is_best=best and epoch == 1, is_last=epoch + 1 == epochs)
    shared = every.due(1) and keep is None and best  # the best epoch's has a number too
    assert most_at_once(every, keep, epochs, best) == most + shared


def test_room_for_two_checkpoints_does_not_do_for_five(call, phantoms, pretrained, tmp_path, monkeypatch):
    size = (pretrained / "checkpoint-last.pth").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40, 3 * size))
    command = f"main_pretrain.py {TINY_PRETRAIN} --epochs 6 --data_path {phantoms} --output_dir {tmp_path / 'run'}"
    status, out, err = call(f"{command} --save_every 2")
    assert status == 2 and "5 checkpoints of" in err and len(err.splitlines()) == 1 and "epoch 0" not in out
    assert call(f"{command} --save_every 9 --epochs 1")[0] == 0


def test_a_stop_before_the_first_checkpoint_promises_none(call, phantoms, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    command = f"main_pretrain.py {TINY_PRETRAIN} --epochs 2 --data_path {phantoms} --output_dir {tmp_path / 'run'}"
    with monkeypatch.context() as patch:
        patch.setattr("main_pretrain.open_images", interrupted)
        status, _, err = call(command)
        assert status == 130 and err == "interrupted\n"
    monkeypatch.setattr("engine_pretrain.train_one_epoch", interrupted)
    status, _, err = call(command)
    assert status == 130 and err == "interrupted: start again; there is no checkpoint yet\n"


@pytest.mark.parametrize("script", ["main_pretrain.py", "main_finetune.py", "segmentation/train.py"])
def test_ctrl_c_while_libraries_load_ends_without_a_traceback(script, tmp_path):
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('went on')")
    result = subprocess.run(
        [sys.executable, str(ROOT / script), "--root" if "/" in script else "--data_path", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests may run in a shell's background
    )
    assert result.returncode == -signal.SIGINT and result.stdout + result.stderr == ""


def test_a_full_disk_in_an_evaluation_is_no_matter_of_resuming(call, finetuned, phantoms, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "predictions.csv")

    monkeypatch.setattr("evaluate_finetune.write_evaluation", full)
    command = f"main_finetune.py --eval --resume {finetuned}/checkpoint-last.pth --device cpu --data_path {phantoms}"
    status, _, err = call(f"{command} --output_dir {tmp_path}")
    assert status == 1 and "predictions.csv" in err and "free space and start again" in err and "resume" not in err


@pytest.mark.parametrize("workers", ["--num_workers 1", "--cache off"])
def test_workers_without_a_temporary_folder_are_no_endless_wait(phantoms, tmp_path, workers):
    """A path too long for a socket, as on some clusters; a full disk fails at the same place. Asked for and by default."""
    long = tmp_path / ("x" * 110)
    long.mkdir()
    tiny = TINY_PRETRAIN.replace("--num_workers 0", workers)
    command = f"main_pretrain.py {tiny} --data_path {phantoms} --output_dir {tmp_path / 'run'}"
    result = run_script(command, tmp_path, check=False, TMPDIR=str(long))
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert str(long) in result.stderr and "set TMPDIR" in result.stderr and "--num_workers 0" in result.stderr


def test_a_loss_that_is_not_finite_names_the_files(call, phantoms, tmp_path):
    command = (
        f"main_pretrain.py {TINY_PRETRAIN} --epochs 9 --lr 1e30 --warmup_epochs 0 --save_every 1 --data_path {phantoms}"
    )
    status, _, err = call(f"{command} --output_dir {tmp_path / 'run'}")
    assert status == 1 and len(err.splitlines()) == 1 and "epoch" in err and "step" in err and "7 more" in err
    files = (tmp_path / "run" / "bad-batch.txt").read_text().splitlines()
    assert not list((tmp_path / "run").glob("checkpoint*"))
    assert len(files) == 8 and all(os.path.exists(path) for path in files) and files[0] in err


def test_old_checkpoints_are_pruned_on_request(call, phantoms, tmp_path):
    command = f"main_pretrain.py {TINY_PRETRAIN} --epochs 5 --sam_epoch 9 --save_every 1 --keep 2 --data_path {phantoms}"
    assert call(f"{command} --output_dir {tmp_path / 'run'}")[0] == 0
    names = {path.name for path in (tmp_path / "run").glob("checkpoint*")}
    assert names == {"checkpoint-last.pth", "checkpoint-3.pth", "checkpoint-4.pth"}


def test_half_precision_overflows_are_counted(call, phantoms, tmp_path):
    command = f"main_pretrain.py {TINY_PRETRAIN} --epochs 2 --sam_epoch 9 --amp fp16 --data_path {phantoms}"
    assert call(f"{command} --output_dir {tmp_path / 'run'}")[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.txt").read_text().splitlines()]
    assert all(line["loss_scale"] == 65536 / 2 ** line["overflows"] for line in lines)


def test_a_half_written_log_line_is_no_obstacle(call, pretrained, phantoms, tmp_path):
    folder = shutil.copytree(pretrained, tmp_path / "run")
    whole_log = (folder / "log.txt").read_text()
    (folder / "log.txt").write_text(whole_log + '{"epoch": 4, "lo')
    command = f"main_pretrain.py {TINY_PRETRAIN} {PRETRAIN_SCHEDULE} --data_path {phantoms}"
    assert call(f"{command} --resume auto --output_dir {folder}")[0] == 0
    assert (folder / "log.txt").read_text() == whole_log


def torchrun(command: str, cwd, restarts: int = 0) -> subprocess.Popen:
    """Start pre-training in two processes; returns once there is a checkpoint. Output goes to ``output.txt``."""
    launch = f"-m torch.distributed.run --standalone --nproc_per_node 2 --max-restarts {restarts}"
    options = f"{launch} {ROOT / 'main_pretrain.py'} {TINY_PRETRAIN} {command} --output_dir {cwd / 'run'} --resume auto"
    with open(cwd / "output.txt", "a") as output:
        process = subprocess.Popen([sys.executable, *options.split()], stdout=output, stderr=subprocess.STDOUT, cwd=cwd)
    while process.poll() is None and not (cwd / "run" / "checkpoint-last.pth").exists():
        time.sleep(0.05)
    return process


def test_a_dying_process_stops_all_and_a_restart_goes_on(phantoms, tmp_path):
    """torchrun with two processes; one is killed in training; torchrun starts both again, and they resume."""
    command = f"--epochs 30 --sam_epoch 99 --batch_size 4 --amp fp32 --data_path {phantoms}"
    process = torchrun(command, tmp_path, restarts=1)
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True).stdout
    os.kill(int(listing.split()[-1]), signal.SIGKILL)
    assert process.wait(timeout=120) == 0, (tmp_path / "output.txt").read_text()[-3000:]
    assert "resuming" in (tmp_path / "output.txt").read_text()
    content = content_of(tmp_path / "run" / "checkpoint-last.pth")
    assert content["epoch"] == 29 and torch.isfinite(content["model"]["cls_token"]).all()


def test_sigterm_to_torchrun_stops_all_processes_after_a_step(phantoms, tmp_path):
    """As schedulers do before they take a machine away: both processes agree on the step, and one checkpoint is of it."""
    command = f"--epochs 40 --sam_epoch 99 --batch_size 4 --amp fp32 --print_freq 1 --data_path {phantoms}"
    process = torchrun(command, tmp_path)
    process.terminate()
    assert process.wait(timeout=120) != 0
    output = (tmp_path / "output.txt").read_text()
    assert output.count("stopped by SIGTERM") == 1, output[-3000:]
    stopped = content_of(tmp_path / "run" / "checkpoint-last.pth")
    assert stopped["epoch"] < 39
    process = torchrun(command, tmp_path)
    assert process.wait(timeout=120) == 0
    assert f"resuming {tmp_path / 'run' / 'checkpoint-last.pth'}" in (tmp_path / "output.txt").read_text()
    assert content_of(tmp_path / "run" / "checkpoint-last.pth")["epoch"] == 39
