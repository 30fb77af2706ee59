"""How much of its share of the cores a training keeps beside other busy processes, by how its threads wait.

Started as a module, this is one contender: a line on stdin asks for so many seconds of steps, the answer is their rate.
"""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from util.system import cores, threads
from util.system.console import track

OURS = "by what the cores are doing (ours)"
POLICIES = {  # environment of a contender, by name
    "as PyTorch has it": {"GOMP_SPINCOUNT": "300000"},  # OpenMP's own count: with none set it would be ours
    "passive": {"OMP_WAIT_POLICY": "passive"},
    f"{threads.SPINS} spins": {"GOMP_SPINCOUNT": threads.SPINS},
    OURS: {},
}
BUSY = (0, 1, 2)  # foreign processes


class Contender:
    """A process that trains the small model with one way of waiting, and rests until it is asked for a rate."""

    def __init__(self, policy: str, count: int):
        environment = {name: value for name, value in os.environ.items() if name not in threads.CHOICES}
        environment |= POLICIES[policy] | {"OMP_NUM_THREADS": str(count)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.shared"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Contender":
        self.rate(0.2)  # it has started and is warm
        return self

    def rate(self, seconds: float) -> float:
        """Steps a second over ``seconds``."""
        assert self.process.stdin and self.process.stdout
        print(seconds, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def __exit__(self, *_) -> None:
        self.process.communicate()


COMPETITOR = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))"


@contextmanager
def busy(count: int) -> Iterator[None]:
    """In this context so many other processes compute without a pause. They end with this process, however it ends."""
    processes = [subprocess.Popen([sys.executable, "-c", COMPETITOR]) for _ in range(count)]
    try:
        time.sleep(0.3 if count else 0)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def rates(rounds: int, seconds: float) -> dict[tuple[str, int], list[float]]:
    """Steps a second of each contender beside each number of busy processes, a value a round; contenders take turns."""
    measured: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        contenders = {name: stack.enter_context(Contender(name, cores.usable())) for name in POLICIES}
        turns = itertools.product(range(rounds), BUSY)
        for _, count in track(turns, "beside other processes", total=rounds * len(BUSY), unit="turn"):
            with busy(count):
                for name, contender in contenders.items():
                    measured.setdefault((name, count), []).append(contender.rate(seconds))
    return measured


def fair_share(count: int) -> float:
    """What a training with a thread a core keeps of its rate beside ``count`` busy processes, if all threads share alike."""
    return min(1.0, cores.usable() / (cores.usable() + count))


def main() -> None:
    import torch

    from benchmarks.speed.contenders import finetuning
    from util.system.device import choose_precision

    threads.settle()
    device = torch.device("cpu")
    step = finetuning("vit_micro_patch8", 64, 32, device, choose_precision("auto", device), "none")
    for _ in range(3):
        step()
    for line in sys.stdin:
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < float(line):
            step()
            steps += 1
        print(steps / (time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
