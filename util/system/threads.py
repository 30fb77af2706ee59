"""How many threads PyTorch has on a CPU, and how they wait for each other. Import it before PyTorch.

A thread that waits for the others spins for milliseconds before it sleeps. That is fastest as long as every thread has a
core. Where other processes need the cores, a spinning thread keeps the one that it waits for from running. OpenMP hardly
spins once it has more threads than cores, and it counts them at each wait. So this module gives it more threads, which do
nothing, while the cores are contested (benchmarks/README.md "Shared machines").
"""

import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier, Event, Thread

from util.system import cores

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # where users say how threads wait
SPINS = "1000"  # where the cores cannot be watched: a compromise between being alone and having company
OWN_THREADS = Path("/proc/self/task")
PERIOD = 0.5  # seconds between two looks at the cores
CONTESTED = 0.1  # seconds, in a second, for which threads that could run waited for a core; alone it is below 0.01


def can_watch() -> bool:
    """Whether the system tells how long threads queue for a core, and few threads more make OpenMP's waits short.

    Many would be needed where a container's quota or ``OMP_NUM_THREADS`` allows fewer threads than half the cores, as
    OpenMP compares the number of threads with that of the cores.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdecimal() else cores.usable()
    return threads >= cores.bound() / 2 and (OWN_THREADS / str(os.getpid()) / "schedstat").exists()


def choose() -> bool:
    """Whether to watch the cores. Where that cannot be, and users do not say how threads wait, set how long they spin."""
    if any(name in os.environ for name in CHOICES):
        return False
    if not can_watch():
        os.environ["GOMP_SPINCOUNT"] = SPINS
        return False
    return True


WATCHED = choose()


def settle() -> str:
    """Give PyTorch a thread for each usable core, unless ``OMP_NUM_THREADS`` says otherwise, and see to how they wait.

    Returns:
        A description for the log.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), cores.usable()))
    count = torch.get_num_threads()
    if count == 1:
        return "1 thread"
    if not WATCHED:
        return ", ".join([f"{count} threads", *(f"{name}={os.environ[name]}" for name in CHOICES if name in os.environ)])
    watch()
    return f"{count} threads, which wait asleep while other processes need the cores"


@functools.cache  # one is enough for a process
def watch() -> None:
    """From now on OpenMP's threads wait asleep while the cores are contested, and spin otherwise."""

    def follow() -> None:
        while True:
            if contested():
                with more_threads():
                    while contested():
                        pass

    Thread(target=follow, name="watch the cores", daemon=True).start()


def contested() -> bool:
    """Whether this process's threads had to queue for cores in the next half second."""
    before, start = queueing(), time.perf_counter()
    time.sleep(PERIOD)
    after, seconds = queueing(), time.perf_counter() - start
    return sum(after[thread] - before[thread] for thread in before.keys() & after.keys()) > CONTESTED * seconds


def queueing() -> dict[str, float]:
    """Seconds for which each thread of this process could have run and had no core, by its number in the system."""
    seconds = {}
    for thread in OWN_THREADS.iterdir():
        with suppress(OSError):  # it has ended
            seconds[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    return seconds


@contextmanager
def more_threads() -> Iterator[None]:
    """In this context OpenMP has more threads than cores, so that it hardly spins. The new ones rest."""
    import torch

    size = torch.get_num_threads()
    others = (cores.bound() - size) // (
        size - 1
    ) + 1  # each of so many threads gets a team of its own, size - 1 threads more
    ready, over = Barrier(others + 1), Event()

    def rest() -> None:
        torch.ones(2**20)  # large enough for a team to share
        ready.wait()
        over.wait()

    threads = [Thread(target=rest, daemon=True) for _ in range(others)]
    for thread in threads:
        thread.start()
    ready.wait()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
