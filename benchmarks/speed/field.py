"""The project against the field: whole trainings, each in a process of its own, taking turns."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import util as importlib_util
from typing import NamedTuple

from benchmarks.speed import pipeline
from benchmarks.speed.measure import Row, Timing, rates, ratio
from benchmarks.speed.trainings import CONTENDERS, ROOT, Contender, Setting
from util.system import threads
from util.system.console import say, track
from util.system.errors import InputError

# Steps before the measured ones: kernels and memory are new in the first, LightlyTrain draws its batch in the first three.
WARMUP = 3


class Seen(NamedTuple):
    """What was seen of one process."""

    first_step: float  # seconds from the start of the process to the end of its first optimiser step
    step: float  # seconds of a later step
    memory: int  # bytes at most: of the process on a CPU, libraries included and loader workers not; of tensors on a GPU


def watch(phase: str, name: str, setting: Setting) -> Seen:
    """Start a contender, follow it to its last mark, and end it.

    Args:
        setting: with three marks: the first step, the last before measuring, the last measured.

    Raises:
        InputError: where it ends earlier.
    """
    environment = {key: value for key, value in os.environ.items() if key not in threads.CHOICES}  # set here by our import
    read, write = os.pipe()
    command = [sys.executable, "-m", "benchmarks.speed.trainings", phase, name, json.dumps(setting._asdict()), str(write)]
    with tempfile.TemporaryFile("w+", errors="replace") as printed, open(read) as marks:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            pass_fds=[write],
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(write)
        ends, memory = [], 0
        try:
            for line in marks:
                ends.append(time.perf_counter())
                memory = int(line)
                if len(ends) == len(setting.marks):
                    break
        finally:
            with suppress(OSError):  # it has ended already
                os.killpg(process.pid, signal.SIGKILL)  # with its loader workers
            process.wait()
        if len(ends) < len(setting.marks):
            printed.seek(0)
            last = (printed.read().strip().splitlines() or ["without a word"])[-1]
            raise InputError(f"{phase}, {name}: ended before step {setting.marks[len(ends)]}: {last}")
    first, begin, end = ends
    return Seen(first - start, (end - begin) / (setting.marks[2] - setting.marks[1]), memory)


def installed(phase: str, name: str, contender: Contender) -> bool:
    """Whether a contender can run; says so where it cannot."""
    there = not contender.needs or importlib_util.find_spec(contender.needs.replace("-", "_")) is not None
    if not there:
        say(f"note: {phase}, {name}: left out, {contender.needs} is not installed (pip install -r {contender.requirements})")
    return there


def measure(setting: Setting, rounds: int) -> dict[tuple[str, str], list[Seen]]:
    """What was seen of each contender that is installed, by phase and name, a value a round; contenders take turns."""
    seen: dict[tuple[str, str], list[Seen]] = {
        (phase, name): []
        for phase, contenders in CONTENDERS.items()
        for name, contender in contenders.items()
        if installed(phase, name, contender)
    }
    for phase, name in track(list(seen) * rounds, "trainings", total=len(seen) * rounds, unit="training"):
        with tempfile.TemporaryDirectory() as output:
            seen[phase, name].append(watch(phase, name, setting._replace(output=output)))
    return seen


def by_phase(seen: dict[tuple[str, str], list[Seen]]) -> dict[str, list[str]]:
    """The contenders of each phase, in order."""
    phases: dict[str, list[str]] = {}
    for phase, name in seen:
        phases.setdefault(phase, []).append(name)
    return phases


def of(quantity: str, seen: list[Seen]) -> Timing:
    """One of the measures of :class:`Seen` over the rounds."""
    return Timing.of([getattr(each, quantity) for each in seen])


def field(options) -> Iterator[Row]:
    """Whole trainings from JPEG files, ours and others', each in a process of its own: rate, memory, time to first step."""
    batch = options.field_batch_size
    marks = (1, WARMUP, WARMUP + options.batches)
    count = batch * (marks[-1] + 2 * options.num_workers)  # so that workers still load during the last step
    with pipeline.jpeg_folder(count, 256) as root:
        where = (options.model, options.input_size, batch, str(options.device), options.amp, options.num_workers)
        seen = measure(Setting(root, "", *where, marks), options.rounds)
    part = f"the field, batch {batch}"
    for phase, names in by_phase(seen).items():
        steps = {name: of("step", seen[phase, name]) for name in names}
        yield from rates(part, {f"{phase}: {name}": timing for name, timing in steps.items()}, batch)
        for name, timing in steps.items():
            if not name.startswith("ours"):
                ours = names[1]  # masked as theirs
                yield Row(part, f"{phase}: {ours}, against {name}", ratio(timing, steps[ours]), "x")
    quantities = (("memory", "peak memory", "GiB", 2**30), ("first_step", "to the first step", "s", 1))
    for quantity, what, unit, scale in quantities:
        for (phase, name), each in seen.items():
            timing = of(quantity, each)
            spread = f"{timing.low / scale:.3g} to {timing.high / scale:.3g}"
            yield Row(part, f"{phase}: {name}: {what}", timing.median / scale, unit, spread)
