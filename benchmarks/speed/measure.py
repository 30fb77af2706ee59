"""Measuring: several contenders in turn in one run, the machine they ran on, and the memory that each takes."""

import itertools
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from util.system.console import track


class Row(NamedTuple):
    """One measured figure."""

    part: str
    what: str
    value: float
    unit: str
    spread: str = ""
    target: str = ""


class Timing(NamedTuple):
    """Seconds that one call took: the median over the rounds and the quartiles beside it."""

    median: float
    low: float
    high: float
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, rounds: list[float]) -> "Timing":
        low, _, high = statistics.quantiles(rounds, n=4, method="inclusive") if len(rounds) > 1 else rounds * 3
        return cls(statistics.median(rounds), low, high, tuple(rounds))


def wait(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_in_turn(
    contenders: dict[str, Callable[[], object]], device: torch.device, rounds: int, shortest: float = 0.5
) -> dict[str, Timing]:
    """Time contenders in alternation, so that what else happens on the machine meets all of them alike.

    Args:
        contenders: what to call, by name.
        rounds: number of samples of each, after two calls to warm up.
        shortest: seconds that a sample takes at least; shorter work is repeated within it.
    """
    calls = dict.fromkeys(contenders, 1)  # of each in a sample
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    turns = itertools.product(range(-2, rounds), contenders)  # the negative ones warm up
    for turn, name in track(turns, "measuring", total=(2 + rounds) * len(contenders), unit="sample"):
        wait(device)
        start = time.perf_counter()
        for _ in range(calls[name]):
            contenders[name]()
        wait(device)
        seconds = (time.perf_counter() - start) / calls[name]
        if turn < 0:
            calls[name] = max(1, round(shortest / seconds))
        else:
            samples[name].append(seconds)
    return {name: Timing.of(seconds) for name, seconds in samples.items()}


def ratio(slow: Timing, fast: Timing) -> float:
    """How many times faster ``fast`` is: the median over rounds, each round's two samples being neighbours in time."""
    return statistics.median(a / b for a, b in zip(slow.rounds, fast.rounds, strict=True))


def rates(part: str, timings: dict[str, Timing], images: int) -> Iterator[Row]:
    """Images a second of each contender, with quartiles."""
    for name, timing in timings.items():
        spread = f"{images / timing.high:.3g} to {images / timing.low:.3g}"
        yield Row(part, name, images / timing.median, "images/s", spread)


def product_rate(device: torch.device, dtype: torch.dtype, rounds: int, shortest: float) -> float:
    """Floating-point operations per second of a large square matrix product: what the device can do at best."""
    size = 8192 if device.type == "cuda" else 4096
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timing = time_in_turn({"product": lambda: a @ b}, device, rounds, shortest)["product"]
    return 2 * size**3 / timing.median


def high_water() -> int:
    """Bytes of the largest resident set of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory too, from before this program was started
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _child(make: Callable, arguments: tuple, connection) -> None:
    call = make(*arguments)
    for _ in range(2):
        call()
    connection.send(high_water())


def peak_memory(make: Callable[..., Callable[[], object]], arguments: tuple, device: torch.device) -> int:
    """Bytes that two calls of what ``make(*arguments)`` returns need at most, the model included.

    On a GPU: the allocator's peak. On a CPU: the largest resident set of a process of its own, which includes the
    libraries.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call = make(*arguments)
        for _ in range(2):
            call()
        wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(make, arguments, sender))
    process.start()
    try:
        return receiver.recv()
    finally:
        process.join()
