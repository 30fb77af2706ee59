"""What tests share: a tiny set of phantoms, and the scripts called as a user calls them."""

import contextlib
import gc
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # files of tests run side by side, in models too small for more threads

import pytest

ROOT = Path(__file__).resolve().parent.parent
# drawing takes longer than all else in so small a run: pictures are as narrow as may be
TINY = "--device cpu --num_workers 0 --batch_size 8 --figure_width 85"
TINY_PRETRAIN = f"--model msmae_vit_micro_patch8 --input_size 32 --patch_size 8 {TINY}"
TINY_FINETUNE = f"--model vit_micro_patch8 --masking attention {TINY}"
PRETRAIN_SCHEDULE = "--epochs 4 --warmup_epochs 1 --sam_epoch 2 --loc_interval 1 --preview_every 2 --save_every 2"
FINETUNE_SCHEDULE = "--epochs 3 --warmup_epochs 1 --loc_interval 2 --save_every 1"


def pytest_xdist_auto_num_workers(config):
    """One more than there are cores, as tests often wait for processes that they started or stopped."""
    from util.system.cores import usable

    return usable() + 1


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Tests leave the user's cache folder alone."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    gc.freeze()  # by now the libraries are loaded: nobody need look through them for garbage


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """24 training and 12 validation phantoms of 32 px in four classes, with lesion masks."""
    from util.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, train=24, val=12, size=32, seed=0)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets: $MSMAE_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("MSMAE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data: set MSMAE_DATA to a folder with btmd/")
    return folder


def run_script(command: str, cwd: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """Run ``SCRIPT OPTIONS...`` in a process of its own, as a user does from the folder ``cwd``."""
    script, *options = command.split()
    result = subprocess.run(
        [sys.executable, *([script] if script.startswith("-") else [str(ROOT / script)]), *options],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=600,
    )
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def run_here(command: str | list[str], cwd: Path, check: bool = True) -> subprocess.CompletedProcess:
    """:func:`run_script` in this process, which saves the seconds in which libraries load; ``-m MODULE`` for a module."""
    script, *options = command.split() if isinstance(command, str) else command
    out, err, status = io.StringIO(), io.StringIO(), 0
    before = signal.getsignal(signal.SIGINT)  # scripts change it while they load
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(cwd)
        try:
            if script == "-m":
                warnings.filterwarnings("ignore", ".* found in sys.modules", RuntimeWarning)  # pytest puts it back
                patch.setattr(sys, "argv", options)
                runpy.run_module(options[0], run_name="__main__", alter_sys=True)
            else:
                patch.setattr(sys, "argv", [script, *options])
                runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as stop:
            status = stop.code or 0
        finally:
            signal.signal(signal.SIGINT, before)
    result = subprocess.CompletedProcess([script, *options], status, out.getvalue(), err.getvalue())
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


HOLD = "import os, pathlib, sys, time\nfrom util.system import lock\nassert lock.take(pathlib.Path(sys.argv[1])) is None\n"
WAIT = "print('mine', flush=True)\ntime.sleep(600)"


@contextmanager
def holder(folder: Path, then: str = ""):
    """Another process that holds a folder, until it is killed."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD + then + WAIT, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout.readline() == b"mine\n"
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def content_of(path: Path) -> dict:
    """What a checkpoint holds."""
    from util.training import checkpoint

    return checkpoint.load(path).content


def same_weights(a: Path, b: Path) -> bool:
    """Whether two checkpoints hold bit-identical weights, after the same epoch."""
    import torch

    a, b = content_of(a), content_of(b)
    return all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"]) and a["epoch"] == b["epoch"]


def log_of(folder: Path) -> list[dict]:
    """The lines of a run's ``log.txt``, one an epoch."""
    return [json.loads(line) for line in (folder / "log.txt").read_text().splitlines()]


@pytest.fixture(scope="session")
def pretrained(phantoms, tmp_path_factory) -> Path:
    """The output folder of a finished pre-training of four epochs, the last two with SAM."""
    folder = tmp_path_factory.mktemp("runs") / "pretrain"
    run_script(
        f"main_pretrain.py {TINY_PRETRAIN} {PRETRAIN_SCHEDULE} --data_path {phantoms} --output_dir {folder}", folder.parent
    )
    return folder


@pytest.fixture(scope="session")
def finetuned(phantoms, pretrained) -> Path:
    """The output folder of a finished fine-tuning of three epochs."""
    folder = pretrained.parent / "finetune"
    start = f"--finetune {pretrained / 'checkpoint-last.pth'}"
    run_script(
        f"main_finetune.py {TINY_FINETUNE} {FINETUNE_SCHEDULE} {start} --data_path {phantoms} --output_dir {folder}",
        folder.parent,
    )
    return folder


@pytest.fixture(scope="session")
def evaluated(finetuned, phantoms) -> Path:
    """The output folder of an evaluation of that fine-tuning, with its pictures in every format."""
    folder = finetuned.parent / "eval"
    command = f"main_finetune.py --eval --resume {finetuned / 'checkpoint-last.pth'} {TINY_FINETUNE}"
    run_script(f"{command} --data_path {phantoms} --output_dir {folder} --figure_format png pdf svg", folder.parent)
    return folder


@pytest.fixture(scope="session")
def three_sets(tmp_path_factory) -> Path:
    """4 training, 60 validation and 40 test phantoms of 32 px."""
    from util.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("sets") / "data"
    write_phantoms(folder, train=4, val=60, test=40, size=32, seed=5)
    return folder


@pytest.fixture(scope="session")
def taught(finetuned, three_sets, tmp_path_factory) -> Path:
    """A checkpoint that is right on some images and too sure, whatever the short fine-tuning reached."""
    from taught import images, teach

    path = tmp_path_factory.mktemp("taught") / "checkpoint-last.pth"
    teach(finetuned / "checkpoint-last.pth", images(three_sets / "val"), path)
    return path


@pytest.fixture
def call(monkeypatch, capsys):
    """Call a script's ``main`` in this process; return exit status, standard output and standard error."""
    import main_finetune
    import main_pretrain
    from util.system.errors import run_script

    mains = {"main_pretrain.py": main_pretrain.main, "main_finetune.py": main_finetune.main}

    def run(command: str) -> tuple[int, str, str]:
        script, *options = command.split()
        monkeypatch.setattr(sys, "argv", [script, *options])
        status = 0
        try:
            run_script(mains[script])
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
