"""One epoch of training steps: what surrounds the step that an engine shows."""

import time
from collections.abc import Iterator
from itertools import islice

from torch import Tensor
from torch.utils.data import DataLoader

from util.data.augment import normalize
from util.system import distributed, interruption
from util.system.console import track
from util.system.errors import NonFiniteLoss, Stopped
from util.system.seeds import seed_everything
from util.system.text import one_line
from util.training.log import Averages, RunLog
from util.training.optimisation import Stepper
from util.training.saver import Saver


class Epoch:
    """One epoch. An engine goes through its batches and says of each what the step was:

        for batch in epoch:
            epoch.adjust_learning_rate()
            with epoch.precision():
                ...
            epoch.step(loss, name=value)
        return epoch.summary()

    Args:
        number: from 0.
        loader: gives the batches; each has ``image``, 0 to 255, and ``index``.
        stepper: turns losses into steps.
        saver, log: of the run.
        seed: of the run.
        print_freq: batches between checks of the loss, which wait for the device.
        step, averages: where an earlier start was stopped within this epoch, the steps done and what they measured.
    """

    def __init__(
        self,
        number: int,
        loader: DataLoader,
        stepper: Stepper,
        saver: Saver,
        log: RunLog,
        *,
        seed: int,
        print_freq: int,
        step: int = 0,
        averages: Averages | None = None,
    ):
        self.number, self.done, self.averages = number, step, averages or Averages()
        self.batches = stepper.steps_per_epoch(len(loader))
        self.precision = stepper.precision
        self._loader, self._stepper, self._saver, self._log = loader, stepper, saver, log
        self._seed, self._print_freq = seed, print_freq
        self._unchecked: list[Tensor] = []  # the images of the batches whose loss was not looked at yet
        self._lr = 0.0
        self._started, self._images = time.monotonic(), 0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Each batch that is still to do, on the device and its images normalised; the step's draws are seeded before it."""
        loader = self._loader
        loader.dataset.set_epoch(self.number)
        loader.sampler.set_epoch(self.number)
        loader.sampler.skip = self.done * loader.batch_size
        left, variant = self.batches - self.done, self._stepper.model.variant
        shown = track(islice(loader, left), f"epoch {self.number}", total=left, scale=loader.batch_size)
        for step, batch in enumerate(shown, self.done):
            seed_everything(self._seed, "step", self.number, step, distributed.rank())
            self._unchecked.append(batch["index"])
            batch = {name: value.to(self.precision.device, non_blocking=True) for name, value in batch.items()}
            batch["image"] = normalize(batch["image"], variant.mean, variant.std)
            yield batch

    def adjust_learning_rate(self) -> None:
        """Set the learning rate of the step that begins; within an accumulation window it stays."""
        if self.done % self._stepper.accum_iter == 0:
            self._lr = self._stepper.set_learning_rate(self.number + self.done / self.batches)

    def step(self, loss: Tensor, **measured: Tensor) -> None:
        """Backward pass and, at the end of an accumulation window, the optimiser's step; record what was measured.

        Raises:
            NonFiniteLoss: every ``print_freq`` batches, and before anything is saved, where a loss was not finite.
            Stopped: where a signal asked for it, after the optimiser's step.
        """
        self.done += 1
        ends_window = self.done % self._stepper.accum_iter == 0
        self._stepper.backward(loss, ends_window)
        self.averages.add(loss=loss, **measured)
        self._images += len(self._unchecked[-1]) * distributed.world_size()
        due = self.done % self._print_freq == 0 or self.done == self.batches
        steps_in_all = self.number * self.batches + self.done
        save = ends_window and self._saver.due_within_epoch(steps_in_all, self._stepper.accum_iter)
        stop = distributed.largest(interruption.signal_received(), together=due) if ends_window else 0
        if due or save or stop:
            self._check_finite()
        if due:
            values = {**self.averages.means(), "lr": self._lr, **self._stepper.scaling()}
            self._log.scalars({f"step/{name}": value for name, value in values.items()}, steps_in_all - 1)
        if stop:
            raise Stopped(stop)
        if save:
            self._saver.save(self.number - 1, self.done, self.averages)

    def summary(self) -> dict[str, float]:
        """Means of what was measured, and the rate of this start's steps."""
        rate = self._images / (time.monotonic() - self._started)
        return {**self.averages.means(), **self._stepper.scaling(), "images_per_second": rate}

    def _check_finite(self) -> None:
        bad = self.averages.first_not_finite()
        if bad is not None:
            step = self.done - len(self._unchecked) + bad
            paths = [self._loader.dataset.paths[index] for index in self._unchecked[bad].tolist()]
            written = self._saver.folder / "bad-batch.txt"
            written.write_text("".join(f"{one_line(path)}\n" for path in paths), encoding="utf-8")
            saved = (self._saver.folder / "checkpoint-last.pth").exists()
            left = "the last checkpoint is intact" if saved else "there is no checkpoint yet"
            raise NonFiniteLoss(
                f"the loss is not finite in epoch {self.number}, step {step}, on {paths[0]} and {len(paths) - 1} more "
                f"({written}); {left}: lower --blr, set --clip_grad 1, use --amp fp32, or look at these images"
            )
        self._unchecked.clear()
