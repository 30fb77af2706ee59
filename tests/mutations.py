"""Seeded damage to checkpoints: other bytes, and fields that are not what they were. Each file loads as it was written or
ends in one line; the long form is part of ``make stress``."""

import contextlib
import copy
import io
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from conftest import content_of
from torch import Tensor

from util.system.errors import InputError, run_script
from util.training import checkpoint

WRONG = [
    *(None, True, "text", "", "3", -1, 0, 7, 1.5, float("nan"), float("inf"), 10**30, -(2**63), b"bytes", "\x1b[31m\n"),
    *([], [1, "a"], {}, {"a": 1}, (1, 2), [[[]]], [None], {"model": {}}, "9" * 300),
    *(torch.zeros(0), torch.zeros(()), torch.full((3,), float("nan")), torch.zeros(2, 2, dtype=torch.int8)),
]
OF_TENSORS: list[Callable[[Tensor], Any]] = [
    lambda t: t.to(torch.int8),
    lambda t: t.to(torch.complex64),
    lambda t: t.to(torch.bool),
    lambda t: t.double(),
    lambda t: t.half(),
    lambda t: t.flatten(),
    lambda t: t.unsqueeze(0),
    lambda t: t[:0],
    lambda t: t[:-1] if t.ndim else t,
    lambda t: t.transpose(0, -1) if t.ndim else t,
    lambda t: torch.cat([t, t], -1) if t.ndim else t,
    lambda t: t * float("nan"),
    lambda t: t.float() * 1e30 * 1e30,
    lambda t: t.flatten()[:4].tolist(),
    lambda t: t.flatten()[:8].clone().to_sparse(),
    lambda t: t.new_zeros(1, 8, t.shape[-1] if t.ndim else 1),
    lambda t: torch.nn.Parameter(t.float()),
]


def changed(content: dict, rng: random.Random) -> tuple[dict, str]:
    """A copy with one field replaced, removed, doubled or renamed, and what was done."""
    content = copy.deepcopy(content)
    parent, names = content, []
    while True:
        name = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        names.append(name)
        value = parent[name]
        if not isinstance(value, dict | list) or not value or rng.random() < 0.25:
            break
        parent = value
    how = rng.choice(("replace", "replace", "replace", "remove", "rename"))
    if how == "remove":
        del parent[name]
    elif how == "rename" and isinstance(parent, dict):
        parent[rng.choice((7, "other", f"{name}\x1b", None, ("a", 1)))] = parent.pop(name)
    else:
        new = rng.choice(OF_TENSORS)(value) if isinstance(value, Tensor) and rng.random() < 0.7 else rng.choice(WRONG)
        parent[name] = copy.deepcopy(new)
        how = f"replace by {type(new).__name__} {new!r:.60}"
    return content, f"{'.'.join(map(str, names))}: {how}"


def changed_bytes(written: bytes, rng: random.Random) -> bytes:
    """A file with up to 64 other bytes in a row, or cut off."""
    start = rng.randrange(len(written))
    if rng.random() < 0.1:
        return written[:start]
    damaged = bytearray(written)
    for offset in range(start, min(start + rng.choice((1, 1, 8, 64)), len(written))):
        damaged[offset] = rng.randrange(256)
    return bytes(damaged)


def same(a: Any, b: Any) -> bool:
    """Whether two contents are equal, tensors bit by bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def damage_bytes(content: dict, path: Path, times: int, rng: random.Random) -> tuple[int, list[str]]:
    """How many files with changed bytes were refused, and what went wrong: other content, or no plain line."""
    checkpoint.save(path, **content)
    written, whole = path.read_bytes(), content_of(path)
    refused, wrong = 0, []
    for turn in range(times):
        path.write_bytes(changed_bytes(written, rng))
        try:
            if not same(content_of(path), whole):
                wrong.append(f"{turn}: other content was loaded")
        except InputError as error:
            refused += 1
            if not str(error).isprintable() or str(path) not in str(error):
                wrong.append(f"{turn}: {error}")
        except Exception as error:
            wrong.append(f"{turn}: {error!r}")
    return refused, wrong


class Begun(Exception):
    """All was loaded: the work would begin."""


def one_step(_, epoch, *args, **options) -> None:
    """Instead of an epoch: a step of the optimiser, which needs all that it remembers."""
    epoch.averages.means()
    for group in epoch._stepper.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    epoch._stepper.optimizer.step()
    raise Begun


@contextlib.contextmanager
def without_work() -> Iterator[None]:
    """Scripts end by :class:`Begun` where training or evaluation would begin."""
    with contextlib.ExitStack() as stack:
        for name in (
            *("engine_finetune.evaluate", "segmentation.engine.evaluate"),
            "util.maps.training_maps.TrainingMaps.refresh",
        ):
            stack.enter_context(mock.patch(name, side_effect=Begun))
        for name in ("engine_pretrain", "engine_finetune", "segmentation.engine"):
            stack.enter_context(mock.patch(f"{name}.train_one_epoch", one_step))
        yield


def start(main: Callable[[], None], command: str) -> tuple[int, str]:
    """Exit status and standard error of ``SCRIPT OPTIONS...``, called in this process; 0 where the work would begin."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", command.split()), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_script(main)
        except Begun:
            pass
        except SystemExit as stop:
            return stop.code, err.getvalue()
        except Exception as error:
            return -1, f"{error!r}"
    return 0, ""


def damage_fields(
    content: dict, path: Path, times: int, rng: random.Random, main: Callable[[], None], command: str
) -> tuple[int, list[str]]:
    """How many files with a changed field the ``command`` refused, which names the file ``path``, and what went wrong."""
    refused, wrong = 0, []
    with without_work():
        for _ in range(times):
            other, what = changed(content, rng)
            torch.save(other, path)
            status, err = start(main, command)
            refused += status == 2
            plain = status == 2 and err.endswith("\n") and err.rstrip("\n").isprintable()
            if status != 0 and not plain:
                wrong.append(f"{what}: {status} {err}")
    return refused, wrong


def of_routes(path: Path, data: Path, pairs: Path, folder: Path) -> dict[str, tuple[Callable[[], None], str]]:
    """Each way that a checkpoint ``path`` takes into a script, by its phase and option: the script and its command.

    Args:
        data: of classification; pairs: of segmentation.
        folder: for output.
    """
    import main_finetune
    import main_pretrain
    from segmentation import train

    common = f"--device cpu --num_workers 0 --output_dir {folder}"
    pretrain, finetune, segment = main_pretrain.main, main_finetune.main, train.main
    return {
        "pretrain --resume": (pretrain, f"main_pretrain.py --epochs 9 --resume {path} --data_path {data} {common}"),
        "pretrain --finetune": (finetune, f"main_finetune.py --batch_size 8 --finetune {path} --data_path {data} {common}"),
        "finetune --eval": (finetune, f"main_finetune.py --overwrite --eval --resume {path} --data_path {data} {common}"),
        "finetune --resume": (finetune, f"main_finetune.py --epochs 9 --resume {path} --data_path {data} {common}"),
        "pretrain --checkpoint": (segment, f"train.py --batch_size 4 --checkpoint {path} --root {pairs} {common}"),
        "segmentation --resume": (segment, f"train.py --epochs 9 --resume {path} --root {pairs} {common}"),
        "segmentation --evaluate": (segment, f"train.py --overwrite --evaluate {path} --root {pairs} {common}"),
    }
