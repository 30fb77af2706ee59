"""Where a run says what it does: one line an epoch on the console, ``log.txt`` (JSON lines) and TensorBoard."""

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from util import distributed


class Averages:
    """Running means of values that stay on the device, so that a training step need not wait for them."""

    def __init__(self):
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.count = 0

    def add(self, **values: Tensor) -> None:
        """Add one step's scalars, the same ones at every step."""
        step = torch.stack([value.detach().double() for value in values.values()])
        self.names, self.count = list(values), self.count + 1
        self.sums = step if self.sums is None else self.sums + step

    def finite(self) -> bool:
        """Whether no value added so far was infinite or not a number (waits for the device)."""
        return self.sums is None or bool(self.sums.isfinite().all())

    def means(self) -> dict[str, float]:
        """Means over steps and processes."""
        if self.sums is None:
            return {}
        return dict(zip(self.names, distributed.average(self.sums / self.count).tolist(), strict=True))


class RunLog:
    """Writes the records of a run; other processes than the main one write nothing.

    Args:
        output_dir: gets ``log.txt``.
        log_dir: gets TensorBoard's events.
        resume_epoch: first epoch of this start; lines and events of that epoch and later ones, left by a run that was
            stopped between its log and its checkpoint, are replaced.
    """

    def __init__(self, output_dir: Path, log_dir: Path, resume_epoch: int, steps_per_epoch: int):
        self.path = output_dir / "log.txt"
        self.steps_per_epoch = steps_per_epoch
        self.writer = None
        if distributed.is_main():
            if self.path.exists():
                kept = [line for line in self.path.read_text().splitlines() if json.loads(line)["epoch"] < resume_epoch]
                self.path.write_text("".join(line + "\n" for line in kept))
            self.writer = SummaryWriter(str(log_dir), purge_step=resume_epoch * steps_per_epoch or None)

    def scalars(self, values: dict[str, float], step: int) -> None:
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def figure(self, name: str, figure, epoch: int) -> None:
        """Show a figure of an epoch in TensorBoard, at the epoch's last step like its numbers."""
        if self.writer:
            self.writer.add_figure(name, figure, (epoch + 1) * self.steps_per_epoch, close=False)

    def epoch(self, epoch: int, values: dict) -> None:
        """Record an epoch: a JSON line, and its numbers in TensorBoard at the epoch's last step."""
        if not self.writer:
            return
        with open(self.path, "a") as file:
            file.write(json.dumps({"epoch": epoch, **values}) + "\n")
        numbers = {f"epoch/{name}": value for name, value in values.items() if isinstance(value, int | float)}
        self.scalars(numbers, (epoch + 1) * self.steps_per_epoch)
        self.writer.flush()

    def close(self) -> None:
        if self.writer:
            self.writer.close()


def say(message: str) -> None:
    """Print a line, from the main process only."""
    if distributed.is_main():
        print(message, flush=True)
