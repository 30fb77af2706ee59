"""When a checkpoint is written, and what it is called."""

import time
from collections.abc import Callable
from pathlib import Path

from util.system import distributed
from util.system.errors import DISK_TROUBLE, DiskError
from util.training import checkpoint
from util.training.log import Averages
from util.training.save_every import SaveEvery

SAVING_SHARE = 0.05  # of the time may go into checkpoints that nothing but the end of an epoch asks for


def most_at_once(every: SaveEvery, keep: int | None, epochs: int, best: bool) -> int:
    """How many checkpoints a run's folder holds at most: the kept ones, the best, the last and one that is being written.

    The last and the best may share a file with a kept one; the count is right where they do not.

    Args:
        every, keep, epochs: as in :class:`Saver`.
        best: the best epoch is kept.
    """
    kept_before_the_last = every.count(epochs - 1)
    return min(kept_before_the_last, keep or kept_before_the_last) + best + 2


class Saver:
    """Writes ``checkpoint-last.pth`` and gives it the other names that are its due.

    Args:
        folder: of the run.
        every: which epochs are kept under their number, and after how many steps to save within an epoch.
        keep: number of numbered checkpoints that stay; None: all.
        content: gives what a checkpoint holds after an epoch, beside how far the next one is.
    """

    def __init__(self, folder: Path, every: SaveEvery, keep: int | None, content: Callable[[int], dict]):
        self.folder, self.every, self.keep, self._content = folder, every, keep, content
        self._saved, self._took = time.monotonic(), 0.0

    def due_within_epoch(self, steps_in_all: int, window: int = 1) -> bool:
        """Whether ``--save_every Nsteps`` asks for a checkpoint after so many steps from the start.

        Args:
            steps_in_all: at the end of an accumulation window, the only place where a run can go on.
            window: steps of such a window.
        """
        every = self.every.steps
        return every > 0 and steps_in_all // every > (steps_in_all - window) // every

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
            raise DiskError(f"{last} could not be written ({error}): {self.way_on(error)}") from error
        self._saved = time.monotonic()
        self._took = self._saved - began

    def way_on(self, error: BaseException | None = None) -> str:
        """What is left after a run that ended early, and what to do; ``error`` is what ended it."""
        full = isinstance(error, RuntimeError) or (isinstance(error, OSError) and error.errno in DISK_TROUBLE)
        mend = "free space, then " if full else f"see that {self.folder} can be written, then " if error else ""
        if (self.folder / "checkpoint-last.pth").exists():
            return f"{mend}--resume auto goes on from checkpoint-last.pth, which is intact"
        return f"{mend}start again; there is no checkpoint yet"

    def save_epoch(self, epoch: int, is_best: bool, is_last: bool) -> None:
        """Save at the end of an epoch.

        A large model's checkpoint can take longer than a GPU's epoch. Where nothing else asks for one, it is left out as
        long as saving would take more than :data:`SAVING_SHARE` of the time.
        """
        rested = self._took <= SAVING_SHARE * (time.monotonic() - self._saved)
        if self.every.due(epoch) or is_best or is_last or rested:
            self.save(epoch)
            self.name(epoch, is_best, is_last)

    def name(self, epoch: int, is_best: bool, is_last: bool) -> None:
        """Give ``checkpoint-last.pth``, written at the end of an epoch, the other names that are its due."""
        if not distributed.is_main():
            return
        last = self.folder / "checkpoint-last.pth"
        if self.every.due(epoch) or is_last:
            checkpoint.duplicate(last, f"checkpoint-{epoch}.pth")
            checkpoint.prune(self.folder, self.keep)
        if is_best:
            checkpoint.duplicate(last, "checkpoint-best.pth")
