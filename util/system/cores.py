"""Which cores a process may use."""

import os

import joblib


def usable() -> int:
    """Number of cores that this process may use: what affinity (``taskset``, SLURM) and a container's quota leave."""
    return joblib.cpu_count()


def bound() -> int:
    """Number of cores that this process is bound to by affinity alone, which is what OpenMP counts."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
