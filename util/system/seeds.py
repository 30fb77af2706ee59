"""Randomness without state: every draw is made from a seed that names what it is for.

Nothing random has to be stored to stop and resume exactly, and nothing depends on what was drawn before.
"""

import hashlib
import random

import numpy as np
import torch


def derive_seed(*names: int | str) -> int:
    """A 63-bit seed from a tuple of names, such as ``(seed, "step", epoch, step)``."""
    digest = hashlib.blake2b(repr(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(*names: int | str) -> None:
    """Seed Python's, NumPy's and PyTorch's generators (on all devices in use) from a tuple of names."""
    seed = derive_seed(*names)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed is too slow to call for every image
    if torch.cuda.is_initialized():  # never so in a loader's worker
        torch.cuda.manual_seed_all(seed)
