"""Which cores a process may use, and how PyTorch's threads wait for each other. Import it before PyTorch."""

import os

import joblib

# How often a thread looks before it sleeps while it waits for the others. OpenMP's own choice is to look for
# milliseconds, which on a machine that others use too takes the core from whoever the thread waits for.
# (benchmarks/README.md "Shared machines")
SPINS = "1000"
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # where users say it themselves

if not any(name in os.environ for name in WAITING):
    os.environ["GOMP_SPINCOUNT"] = SPINS


def usable() -> int:
    """Number of cores that this process may use: what affinity (``taskset``, SLURM) and a container's quota leave."""
    return joblib.cpu_count()


def settle_threads() -> str:
    """Give PyTorch as many threads as there are usable cores, unless ``OMP_NUM_THREADS`` says otherwise.

    Returns:
        A description for the log.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), usable()))
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}, {waiting()}"


def waiting() -> str:
    """How threads wait, for the log."""
    named = [f"{name}={os.environ[name]}" for name in WAITING if name in os.environ]
    return " ".join(named)
