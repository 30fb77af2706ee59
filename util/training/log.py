"""The records of a run: ``log.txt`` (a line of JSON an epoch) and TensorBoard."""

import json
from pathlib import Path

import torch
from torch import Tensor

from util.system import distributed
from util.system.files import replacing
from util.system.text import json_text


class Averages:
    """Running means of values that stay on the device, so that a training step need not wait for them."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.count = 0
        self.unchecked: list[Tensor] = []  # each step's values since they were last checked

    def add(self, **values: Tensor) -> None:
        """Add one step's scalars; if their names differ from before, the means begin anew."""
        step = torch.stack([value.detach().double() for value in values.values()])
        if self.names and self.names != list(values):  # a run that goes on within an epoch, with other options
            self.sums, self.count = None, 0
        self.names, self.count = list(values), self.count + 1
        self.sums = step if self.sums is None else self.sums + step
        self.unchecked.append(step)

    def first_not_finite(self) -> int | None:
        """Which step since the last call brought an infinite value or NaN, counted from 0 (waits for the device)."""
        if not self.unchecked:
            return None
        finite = torch.stack(self.unchecked).isfinite().all(1).tolist()
        self.unchecked = []
        return None if all(finite) else finite.index(False)

    def means(self) -> dict[str, float]:
        """Means over steps and processes."""
        if self.sums is None:
            return {}
        return dict(zip(self.names, distributed.average(self.sums / self.count).tolist(), strict=True))

    def state(self) -> dict:
        """What a checkpoint in the middle of an epoch keeps; sums are means over processes."""
        sums = None if self.sums is None else distributed.average(self.sums).cpu()
        return {"names": self.names, "sums": sums, "count": self.count}

    @classmethod
    def of(cls, state: dict, device: torch.device) -> "Averages":
        """Means that go on from a :meth:`state`."""
        averages = cls()
        averages.names, averages.count = state["names"], state["count"]
        averages.sums = None if state["sums"] is None else state["sums"].to(device)
        return averages


def _epoch_of(line: str) -> float:
    """The epoch of a line of ``log.txt``; that of a line which a killed run left half written is beyond all others."""
    try:
        return json.loads(line)["epoch"]
    except (ValueError, KeyError):
        return float("inf")


class RunLog:
    """Writes the records of a run; other processes than the main one write nothing.

    Args:
        output_dir: gets ``log.txt``.
        log_dir: gets TensorBoard's events.
        resume_epoch: first epoch of this start, resume_step: steps of it already done; lines and events of later ones,
            left by a run that was stopped between its log and its checkpoint, are replaced.
    """

    def __init__(self, output_dir: Path, log_dir: Path, resume_epoch: int, steps_per_epoch: int, resume_step: int = 0):
        self.path = output_dir / "log.txt"
        self.steps_per_epoch = steps_per_epoch
        self.writer = None
        if distributed.is_main():
            if self.path.exists():
                kept = [
                    line
                    for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines()
                    if _epoch_of(line) < resume_epoch
                ]
                with replacing(self.path) as temporary:
                    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            from torch.utils.tensorboard import SummaryWriter  # other processes need not load it

            self.writer = SummaryWriter(str(log_dir), purge_step=resume_epoch * steps_per_epoch + resume_step or None)

    def scalars(self, values: dict[str, float], step: int) -> None:
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def figure(self, name: str, figure, epoch: int) -> None:
        """Show a figure of an epoch in TensorBoard, at the epoch's last step like its numbers."""
        if self.writer:
            self.writer.add_figure(name, figure, self._last_step(epoch), close=False)

    def epoch(self, epoch: int, values: dict) -> None:
        """Record an epoch: a JSON line, and its numbers in TensorBoard at the epoch's last step."""
        if not self.writer:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json_text({"epoch": epoch, **values}, indent=None) + "\n")
        numbers = {f"epoch/{name}": value for name, value in values.items() if isinstance(value, int | float)}
        self.scalars(numbers, self._last_step(epoch))
        self.writer.flush()

    def _last_step(self, epoch: int) -> int:
        """Counted from 0; a run that goes on with the next epoch purges what comes after it."""
        return (epoch + 1) * self.steps_per_epoch - 1

    def close(self) -> None:
        if self.writer:
            self.writer.close()
