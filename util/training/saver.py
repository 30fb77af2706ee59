"""When a checkpoint is written, and what it is called."""

import time
from collections.abc import Callable
from pathlib import Path

from util.options.parser import SaveEvery
from util.system import distributed
from util.system.errors import DiskError
from util.training import checkpoint
from util.training.log import Averages

SAVING_SHARE = 0.05  # of the time may go into checkpoints that nothing but the end of an epoch asks for


class Saver:
    """Writes ``checkpoint-last.pth`` and gives it the other names that are its due.

    Args:
        folder: of the run.
        every: which epochs are kept under their number, and after how many steps to save within an epoch.
        keep: number of numbered checkpoints that stay; None: all.
        epochs: of the whole training; the last one is kept.
        content: gives what a checkpoint holds after an epoch, beside how far the next one is.
    """

    def __init__(self, folder: Path, every: SaveEvery, keep: int | None, epochs: int, content: Callable[[int], dict]):
        self.folder, self.every, self.keep, self.epochs, self._content = folder, every, keep, epochs, content
        self._saved, self._took = time.monotonic(), 0.0

    def due_within_epoch(self, steps_in_all: int) -> bool:
        """Whether ``--save_every Nsteps`` asks for a checkpoint after so many steps from the start."""
        return self.every.steps > 0 and steps_in_all % self.every.steps == 0

    def save(self, epoch: int, step: int = 0, averages: Averages | None = None) -> None:
        """Write ``checkpoint-last.pth``: ``epoch`` is the last whole one, ``step`` how many steps of the next are done.

        Raises:
            DiskError: when it cannot be written; the one before is intact.
        """
        within = {"step": step, "averages": averages.state()} if averages else {"step": 0}
        if not distributed.is_main():
            return
        began = time.monotonic()
        last = self.folder / "checkpoint-last.pth"
        try:
            checkpoint.save(last, **self._content(epoch), **within)
        except (OSError, RuntimeError) as error:
            state = "the one before it is intact" if last.exists() else "there was none before"
            raise DiskError(f"{last} could not be written ({error}); {state}: free space, then --resume auto") from error
        self._saved = time.monotonic()
        self._took = self._saved - began

    def save_epoch(self, epoch: int, is_best: bool) -> None:
        """Save at the end of an epoch.

        A large model's checkpoint can take longer than a GPU's epoch. Where nothing else asks for one, it is left out as
        long as saving would take more than :data:`SAVING_SHARE` of the time.
        """
        rested = self._took <= SAVING_SHARE * (time.monotonic() - self._saved)
        if self._kept(epoch) or is_best or rested:
            self.save(epoch)
            self.name(epoch, is_best)

    def name(self, epoch: int, is_best: bool) -> None:
        """Give ``checkpoint-last.pth``, written at the end of an epoch, the other names that are its due."""
        if not distributed.is_main():
            return
        last = self.folder / "checkpoint-last.pth"
        if self._kept(epoch):
            checkpoint.duplicate(last, f"checkpoint-{epoch}.pth")
            checkpoint.prune(self.folder, self.keep)
        if is_best:
            checkpoint.duplicate(last, "checkpoint-best.pth")

    def _kept(self, epoch: int) -> bool:
        return self.every.due(epoch) or epoch + 1 == self.epochs
