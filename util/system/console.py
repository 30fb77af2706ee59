"""Progress of long work: a bar with time left on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from util.system import distributed

SECONDS_BETWEEN_LINES = 60


def say(message: str) -> None:
    """Print a line, from the main process only."""
    if distributed.is_main():
        print(message, flush=True)


def track(items: Iterable, title: str, total: int, scale: int = 1, unit: str = "image") -> Iterator:
    """Yield from ``items`` while showing how far the work is, its rate and the time left.

    Args:
        items: what to go through.
        title: what the work is.
        total: number of items.
        scale: number of units in an item (a batch holds many images).
        unit: what is counted, in the singular.
    """
    if not distributed.is_main():
        yield from items
        return
    total *= scale
    if sys.stderr.isatty():
        with tqdm(total=total, desc=title, unit=unit, leave=False, dynamic_ncols=True) as bar:
            for item in items:
                yield item
                bar.update(scale)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES:
            last, spent, units = now, now - start, done * scale
            rate = f"{units / spent:.1f}" if units > spent else f"{units / spent:.2g}"
            print(f"{title}: {units}/{total}, {rate} {unit}s/s, {time_left(spent, units, total)} left", flush=True)


def time_left(spent: float, done: float, total: float) -> str:
    """What the rest of ``total`` will take at the pace so far, ``done`` in ``spent`` seconds; a question mark before any."""
    return clock(spent / done * (total - done)) if done else "?"


def clock(seconds: float) -> str:
    """A duration as ``H:MM:SS``."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
