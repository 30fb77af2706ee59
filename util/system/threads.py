"""How many threads PyTorch has on a CPU, and how they wait for each other. Import it before PyTorch.

A thread that waits for the others spins for milliseconds before it sleeps. That is fastest as long as every thread has a
core. Where other processes need the cores, a spinning thread keeps the one that it waits for from running. OpenMP hardly
spins once it has more threads than cores, and it counts them at each wait. So this module gives it more threads, which do
nothing, while the cores are contested (benchmarks/README.md "Shared machines").

Scripts call :func:`settle`. Where the project is used as a library, threads wait as PyTorch has it.
"""

import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Semaphore, Thread, main_thread

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
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    threads = int(asked) if asked.isdecimal() else cores.usable()
    return threads >= cores.bound() / 2 and counts_time(OWN_THREADS / str(os.getpid()) / "schedstat")


def counts_time(statistics: Path) -> bool:
    """Whether the kernel keeps the statistics of a running thread; some have the file and leave it at 0."""
    try:
        return int(statistics.read_text().split()[0]) > 0
    except OSError:
        return False


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
    if WATCHED and watch():
        return f"{count} threads, which wait asleep while other processes need the cores"
    return ", ".join([f"{count} threads", *(f"{name}={os.environ[name]}" for name in CHOICES if name in os.environ)])


@functools.cache  # one thread watches, however often this is called
def watch() -> bool:
    """Until the main thread ends, OpenMP's threads wait asleep while the cores are contested, and spin otherwise.

    Returns:
        Whether the system allows one thread more, to watch.
    """

    def follow() -> None:
        while main_thread().is_alive():
            if contested(PERIOD):
                with more_threads():
                    while contested(PERIOD):
                        pass

    return bool(started([Thread(target=follow, name="watch the cores")]))


def contested(seconds: float) -> bool:
    """Whether this process's threads will have queued for cores ``seconds`` from now; not if the main thread ends before."""
    before, start = queueing(), time.perf_counter()
    main_thread().join(seconds)
    after, passed = queueing(), time.perf_counter() - start
    queued = sum(after[thread] - before[thread] for thread in before.keys() & after.keys())
    return queued > CONTESTED * passed and main_thread().is_alive()


def queueing() -> dict[str, float]:
    """Seconds for which each thread of this process could have run and had no core, by its number in the system."""
    seconds = {}
    try:
        for thread in OWN_THREADS.iterdir():
            seconds[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    except OSError:  # one ended, or no file can be opened now: the others are seen next time
        pass
    return seconds


@contextmanager
def more_threads() -> Iterator[None]:
    """In this context OpenMP has more threads than cores, so that it hardly spins. The new ones rest.

    Where PyTorch has one thread, or the system allows no more, nothing happens.
    """
    import torch

    size = torch.get_num_threads()
    ready, over = Semaphore(0), Event()

    def rest() -> None:
        torch.ones(2**20)  # large enough for a team to share, of this thread and size - 1 new ones
        ready.release()
        over.wait()

    teams = (cores.bound() - size) // (size - 1) + 1 if size > 1 else 0
    resting = started([Thread(target=rest) for _ in range(teams)]) if room_for(teams * size) else []
    for _ in resting:
        ready.acquire()
    try:
        yield
    finally:
        over.set()
        for thread in resting:
            thread.join()


def room_for(count: int) -> bool:
    """Whether the system allows so many threads more. OpenMP would end the process where it does not."""
    over = Event()
    threads = started([Thread(target=over.wait) for _ in range(count)])
    over.set()
    for thread in threads:
        thread.join()
    return len(threads) == count


def started(threads: list[Thread]) -> list[Thread]:
    """Those of the threads that the system lets start."""
    for index, thread in enumerate(threads):
        try:
            thread.start()
        except RuntimeError:
            return threads[:index]
    return threads
