"""Progress of long work: a bar with time left on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from util import distributed

SECONDS_BETWEEN_LINES = 60


def track(items: Iterable, title: str, total: int | None = None, scale: int = 1) -> Iterator:
    """Yield from ``items`` while showing how far the work is, its rate and the time left.

    Args:
        items: what to go through.
        title: what the work is.
        total: number of items, where ``len(items)`` does not tell.
        scale: number of images in an item (a batch holds many).
    """
    if not distributed.is_main():
        yield from items
        return
    total = (len(items) if total is None else total) * scale
    if sys.stderr.isatty():
        with tqdm(total=total, desc=title, unit="image", leave=False, dynamic_ncols=True) as bar:
            for item in items:
                yield item
                bar.update(scale)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES:
            last, rate = now, done * scale / (now - start)
            left = clock((total - done * scale) / rate)
            print(f"{title}: {done * scale}/{total}, {rate:.1f} images/s, {left} left", flush=True)


def clock(seconds: float) -> str:
    """A duration as ``H:MM:SS``."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
