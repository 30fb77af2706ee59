"""How often a training keeps a checkpoint: the value of ``--save_every``."""

import argparse
import re
from typing import NamedTuple


class SaveEvery(NamedTuple):
    """When to save beyond ``checkpoint-last.pth`` after each epoch: every so many epochs, or every so many steps (then
    no epoch keeps one)."""

    epochs: int
    steps: int

    def __str__(self) -> str:
        return f"{self.steps}steps" if self.steps else f"{self.epochs}"

    @classmethod
    def parse(cls, text: str) -> "SaveEvery":
        match = re.fullmatch(r"([1-9]\d*)(steps?)?", text)
        if not match:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a number of epochs, as 20, nor of steps, as 500steps")
        return cls(0, int(match[1])) if match[2] else cls(int(match[1]), 0)

    def due(self, epoch: int) -> bool:
        """Whether the checkpoint of an epoch is to be kept."""
        return self.epochs > 0 and epoch % self.epochs == 0

    def count(self, epochs: int) -> int:
        """How many checkpoints of the first ``epochs`` are kept."""
        return -(-epochs // self.epochs) if self.epochs else 0
