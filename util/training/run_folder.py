"""The folder of a run: which files are its own, whether it may be used, and ``run.json``, which says how it was called."""

import json
import re
import shutil
import sys
from pathlib import Path

from util.system import distributed, lock
from util.system.device import environment
from util.system.errors import InputError
from util.system.text import write_json
from util.system.workplace import Workplace, claim
from util.training.checkpoint import Checkpoint

RUN_FILES = (
    *("checkpoint-*.pth", ".checkpoint-*.tmp", "events.out.tfevents.*"),
    *("sheet-*.png", "sheet-*.pdf", "sheet-*.svg", ".sheet-*.tmp"),
    *("log.txt", "run.json", "bad-batch.txt"),
)


def training_folder(output_dir: str | None, default: Path, resume: str | None, *, overwrite: bool) -> Path:
    """The folder of a training's files; never one that holds another run's checkpoints.

    Args:
        output_dir: where the user wants it; without, it is that of the checkpoint to go on from, else ``default``.
        resume: the checkpoint to go on from, or "auto".
        overwrite: replace what lies there.

    Raises:
        InputError: where another run lies there, or is at work there.
    """
    resumed = Path(resume) if resume and resume != "auto" else None
    folder = Path(output_dir) if output_dir else resumed.parent if resumed else default
    if (folder / lock.NAME).exists():
        claim(folder)  # first of all: what is in use can be neither gone on with nor replaced
    goes_on = resume == "auto" or (resumed is not None and resumed.resolve().parent == folder.resolve())
    if any(folder.glob("checkpoint-*.pth")) and not goes_on and not overwrite:
        raise InputError(
            f"{folder} holds a run already: go on with it by --resume auto, replace it by --overwrite, or choose another "
            "--output_dir"
        )
    return folder


def check_space(folder: Path, size: int, count: int) -> None:
    """Raise :class:`InputError` unless a run's checkpoints fit on the disk, beside what is not the run's.

    Args:
        folder: of the run; the checkpoints that the run will replace or remove count as free.
        size: of one, in bytes.
        count: how many lie there at most (:func:`util.training.saver.most_at_once`).
    """
    own = [path for path in folder.glob("checkpoint-*.pth") if re.fullmatch(r"checkpoint-(\d+|last|best)", path.stem)]
    checkpoints = {(status.st_dev, status.st_ino): status.st_size for status in map(Path.stat, own)}
    free, needed = shutil.disk_usage(folder).free + sum(checkpoints.values()), count * size
    if free < needed:
        raise InputError(
            f"--output_dir {folder}: {free / 2**30:.2f} GiB free, {count} checkpoints of {size / 2**30:.2f} GiB need "
            f"{needed / 2**30:.2f}; free space, choose another folder, or keep fewer by --keep or --save_every"
        )


def clear(folder: Path) -> None:
    """Remove the files of an earlier run, and only those, from an output folder (``--overwrite``)."""
    for pattern in RUN_FILES:
        for path in folder.glob(pattern):
            path.unlink()


def check_evaluation_folder(folder: Path, checkpoint: Checkpoint, split: str, data_path: str, overwrite: bool) -> None:
    """Raise :class:`InputError` where a folder holds a prediction, or an evaluation of another checkpoint, split or data.

    Checkpoints are compared by SHA-256; results from before hashes were recorded, by path.
    """
    if (folder / "prediction.json").exists():
        raise InputError(f"{folder} holds a prediction, with a predictions.csv of its own: choose another --output_dir")
    results = folder / "metrics.json"
    if overwrite or not results.is_file():
        return
    try:
        there = dict(json.loads(results.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        there = {}
    path, before = there.get("checkpoint"), there.get("split", split)
    if there.get("checkpoint_sha256") and checkpoint.sha256:
        same = there["checkpoint_sha256"] == checkpoint.sha256
    else:
        same = isinstance(path, str) and Path(path).resolve() == checkpoint.path.resolve()
    here = str(Path(data_path).resolve())
    data = there.get("data_path", here)
    if same and before == split and data != here:
        raise InputError(
            f"{folder} holds an evaluation of {data}: choose another --output_dir, or replace it by --overwrite"
        )
    if not same or before != split:
        another = f"{path} as it was before" if path == str(checkpoint.path) and not same else path
        raise InputError(
            f"{folder} holds an evaluation of {another} on {before}: choose another --output_dir, or replace it by "
            "--overwrite"
        )


def write_run_json(
    workplace: Workplace,
    phase: str,
    options: dict,
    departures: dict[str, tuple] | None = None,
    *,
    begun_from: dict[str, str | None] | None = None,
    resumed: Checkpoint | None = None,
) -> None:
    """Write ``run.json``: how the run was called, with what options and checkpoints, and where.

    Args:
        departures: from the protocol.
        begun_from: file and hash of the encoder's checkpoint.
        resumed: the checkpoint that this run resumes, evaluates or predicts with.
    """
    if not distributed.is_main():
        return
    protocol = {"name": options.get("protocol"), "departures": departures}
    content = {
        "phase": phase,
        **({"protocol": protocol} if departures is not None else {}),
        "command": ["python", *sys.argv],
        "options": options,
        "checkpoints": {
            "begun_from": begun_from,
            {"eval": "evaluated", "predict": "used"}.get(phase, "resumed"): resumed and resumed.named(),
        },
        "environment": {**environment(workplace.device), "precision": workplace.precision.name},
    }
    # an evaluation or prediction in the folder of a training leaves that one's account alone
    beside_training = phase in ("eval", "predict") and (workplace.folder / "log.txt").exists()
    name = f"run-{phase}.json" if beside_training else "run.json"
    write_json(workplace.folder / name, content)
