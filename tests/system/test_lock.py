"""One writer: a folder in use is refused to all others, and free again when its process ends, however it ends."""

import errno
import os
import platform
import subprocess
import sys

import pytest
from conftest import ROOT, TINY_FINETUNE, TINY_PRETRAIN, holder
from test_errors import expect_one_line

from util.system import lock, workplace
from util.system.errors import InputError


@pytest.fixture(autouse=True)
def let_go():
    yield
    lock.release()


def test_a_folder_in_use_is_refused_and_nothing_in_it_changes(call, phantoms, pretrained, finetuned, tmp_path):
    last, data = "checkpoint-last.pth", f"--data_path {phantoms}"
    pretrain = f"main_pretrain.py {TINY_PRETRAIN} --epochs 1 {data}"
    finetune = f"main_finetune.py {TINY_FINETUNE} --epochs 1 --finetune {pretrained / last} {data}"
    evaluate = f"main_finetune.py --eval --resume {finetuned / last} --device cpu {data}"
    folder = tmp_path / "run"
    assert call(f"{pretrain} --output_dir {folder}")[0] == 0
    with holder(folder) as process:
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        for command in (pretrain, f"{pretrain} --overwrite", f"{pretrain} --resume auto", finetune, evaluate):
            words = [f"{folder} is in use ({platform.node()}, process {process.pid}, started", "--output_dir"]
            expect_one_line(call(f"{command} --output_dir {folder}"), words)
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
        assert call(f"{evaluate} --output_dir {tmp_path / 'eval'}")[0] == 0  # beside a training, in a folder of its own
    assert call(f"{pretrain} --output_dir {folder} --overwrite")[0] == 0


def test_a_killed_run_frees_its_folder_though_a_worker_outlives_it(tmp_path):
    with holder(tmp_path, then="if not os.fork(): time.sleep(600)\n") as process:
        assert str(process.pid) in lock.take(tmp_path)
        process.kill()
        process.wait()
        assert lock.take(tmp_path) is None
        assert lock.take(tmp_path) is None  # it may be taken again by who has it
    assert f"process {os.getpid()}," in (tmp_path / lock.NAME).read_text()


def test_what_is_freed_can_be_taken_by_another(tmp_path):
    assert lock.take(tmp_path) is None
    lock.release()
    assert not list(tmp_path.iterdir())
    with holder(tmp_path):
        assert lock.take(tmp_path)


def test_a_file_that_was_removed_is_no_lock(tmp_path, monkeypatch):
    """The holder frees the folder between our opening of its file and our locking it."""
    locked, turns = lock._lock, []

    def late(file):
        turns.append(file)
        if len(turns) == 1:
            (tmp_path / lock.NAME).unlink()
        return locked(file)

    monkeypatch.setattr(lock, "_lock", late)
    assert lock.take(tmp_path) is None and len(turns) == 2 and turns[0].closed
    assert f"process {os.getpid()}," in (tmp_path / lock.NAME).read_text()


def test_of_several_processes_the_main_one_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    workplace.claim(tmp_path)
    assert not (tmp_path / lock.NAME).exists()


def test_a_file_system_without_locks_is_a_note(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", none)
    workplace.claim(tmp_path)
    assert "has no locks" in capsys.readouterr().out


def test_a_lock_that_may_not_be_written_is_an_error(tmp_path):
    (tmp_path / lock.NAME).mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        workplace.claim(tmp_path)


def test_of_two_trainings_started_at_once_one_runs(phantoms, tmp_path):
    """As a scheduler that starts a job twice: one runs to its end, the other ends in one line."""
    options = f"{TINY_PRETRAIN} --epochs 40 --overwrite --data_path {phantoms} --output_dir {tmp_path / 'run'}"
    command = [sys.executable, str(ROOT / "main_pretrain.py"), *options.split()]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) for _ in range(2)]
    errors = "".join(process.communicate()[1] for process in both)
    assert sorted(process.returncode for process in both) == [0, 2], errors
    assert "is in use" in errors and len(errors.splitlines()) == 1
    assert len((tmp_path / "run" / "log.txt").read_text().splitlines()) == 40
