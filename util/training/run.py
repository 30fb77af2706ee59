"""A training from its first epoch to its last: its log, its checkpoints, stopping and going on."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch.utils.data import DataLoader

from util.system import distributed, interruption, lock
from util.system.console import say, time_left
from util.system.errors import DISK_TROUBLE, DiskError, InputError, Stopped
from util.system.text import one_line
from util.system.workplace import Workplace
from util.training.checkpoint import Checkpoint
from util.training.epoch import Epoch
from util.training.log import Averages, RunLog
from util.training.optimisation import Stepper
from util.training.plan import Plan
from util.training.resuming import changes, kept_epoch, same_place, set_aside
from util.training.run_folder import check_space, clear, write_run_json
from util.training.saver import Saver, most_at_once


@dataclass(frozen=True)
class About:
    """What a run says of itself, in ``run.json`` and in each checkpoint.

    Args:
        phase: "pretrain", "finetune" or "segmentation".
        options: all of them, plain values.
        classes: their names.
        departures: from the protocol (:func:`util.options.protocol.departures`).
        source: the checkpoint of the encoder that it begins from, if any.
    """

    phase: str
    options: dict
    classes: list[str]
    departures: dict[str, tuple]
    source: Checkpoint | None = None


class Part(Protocol):
    """Something beside model and optimiser that a checkpoint keeps, such as the maps of the training images.

    Attributes:
        nbytes: what it takes there, nearly.
    """

    nbytes: int

    def state_dict(self) -> dict: ...

    def load_state_dict(self, content: dict) -> None: ...


def size_of_checkpoint(stepper: Stepper, parts: Iterable[Part]) -> int:
    """Bytes of a checkpoint, nearly: the model and its average, AdamW's two moments of what it trains, and other parts."""
    trained = [parameter for parameter in stepper.model.parameters() if parameter.requires_grad]
    models = [stepper.model, *([stepper.average] if stepper.average else [])]
    tensors = [*(tensor for model in models for tensor in model.state_dict().values()), *trained, *trained]
    return sum(tensor.nbytes for tensor in tensors) + sum(part.nbytes for part in parts)


class Training:
    """A training. It takes up where ``resumed`` ends, and gives one :class:`Epoch` after the other.

    Args:
        workplace: folder, device and precision.
        about: what the run says of itself.
        plan: how long it goes, where it begins and what it keeps.
        stepper: model, optimiser and schedule.
        loader: of the training set.
        parts: what a checkpoint keeps beside them.
        resumed: the checkpoint to go on from.

    Attributes:
        model: what is trained, with gradients averaged over processes.
        best: epoch and score of the best epoch so far; empty before the first.
        finished_now: whether the last epoch ended in this start.

    Raises:
        InputError: where the checkpoint does not fit, or the disk is too small.
    """

    def __init__(
        self,
        workplace: Workplace,
        about: About,
        plan: Plan,
        stepper: Stepper,
        loader: DataLoader,
        parts: Iterable[Part],
        resumed: Checkpoint | None = None,
    ):
        self.workplace, self.about, self.plan, self.parts = workplace, about, plan, tuple(parts)
        self._stepper, self._loader = stepper, loader
        self.best: dict = {}
        self._best_before: dict = {}  # until the epoch that is best now was saved
        self.finished_now = False
        at_most = most_at_once(plan.save_every, plan.keep, plan.epochs, best=about.phase != "pretrain")
        check_space(workplace.folder, size_of_checkpoint(stepper, self.parts), at_most)
        self._saver = Saver(workplace.folder, plan.save_every, plan.keep, self._content)
        if resumed:
            self._restore(resumed)
        within = resumed.content if resumed and plan.start_epoch is None else {}  # of the epoch that was stopped, if any
        after = resumed.content["epoch"] + 1 if resumed else 0
        self._first_epoch = after if plan.start_epoch is None else plan.start_epoch
        if plan.overwrite and distributed.is_main():
            clear(workplace.folder)
        self._begun_from = self._name_source(resumed)
        write_run_json(workplace, about.phase, about.options, about.departures, begun_from=self._begun_from, resumed=resumed)
        if resumed:
            self._choose_best_anew_where_lost(resumed)
        if names := set_aside(workplace.folder, self._first_epoch):
            say(f"note: this run goes back to epoch {self._first_epoch}; what is later is kept as {', '.join(names)}")
        self.model = distributed.wrap(stepper.model)
        self._steps_per_epoch = stepper.steps_per_epoch(len(loader))
        step = within.get("step", 0)
        if step and resumed:
            processes = distributed.world_size()
            before = resumed.options.get("batch_size", loader.batch_size) * resumed.content.get("processes", processes)
            now = loader.batch_size * processes
            step = same_place(step, before, now, stepper.accum_iter)
        self._first_step = min(step, self._steps_per_epoch)  # the set may have shrunk
        self._log = RunLog(
            workplace.folder,
            plan.log_dir or workplace.folder,
            steps_per_epoch=self._steps_per_epoch,
            resume_epoch=self._first_epoch,
            resume_step=self._first_step,
        )
        self._started = time.monotonic()
        averages = Averages.of(within["averages"], workplace.device) if self._first_step else None
        self._epoch = self._make_epoch(self._first_epoch, self._first_step, averages)

    def epochs(self) -> Iterator[Epoch]:
        """The epochs still to do."""
        if self._first_epoch >= self.plan.epochs:
            say(f"nothing to do: {self._first_epoch} epochs are done and --epochs is {self.plan.epochs}")
        elif self._first_epoch and self._is_stalled(self._first_epoch - 1):
            say(f"nothing to do: {self._in_words()}; a larger --early_stopping goes on")
        else:
            yield self._epoch
            while not self.ends_after(self._epoch.number - 1):  # end_epoch has made the next one
                yield self._epoch

    def ends_after(self, epoch: int) -> bool:
        """Whether an epoch is the last: by their number, or because the best one lies ``early_stopping`` epochs back."""
        return epoch + 1 >= self.plan.epochs or self._is_stalled(epoch)

    def _is_stalled(self, epoch: int) -> bool:
        patience = self.plan.early_stopping
        return patience is not None and "epoch" in self.best and epoch - self.best["epoch"] >= patience

    def _in_words(self) -> str:
        score = next(name for name in self.best if name != "epoch")
        patience, best = self.plan.early_stopping, self.best["epoch"]
        return f"no better {score} for {patience} epochs (--early_stopping), the best was epoch {best}"

    @contextmanager
    def saving_when_stopped(self) -> Iterator[None]:
        """In this context SIGTERM and Ctrl-C end the run after the current step, with a checkpoint of exactly there.

        A second Ctrl-C and a full disk end it at once; they say what is left.
        """
        with interruption.watch():
            try:
                yield
            except KeyboardInterrupt:
                raise KeyboardInterrupt(self._saver.way_on()) from None
            except OSError as error:
                if error.errno not in DISK_TROUBLE or isinstance(error, DiskError):
                    raise
                raise DiskError(f"{error}: {self._saver.way_on(error)}") from error
            except Stopped as stop:
                epoch = self._epoch
                if self.best.get("epoch") == epoch.number:  # it ended, and was not saved as the best
                    self.best = self._best_before
                self._saver.save(epoch.number - 1, epoch.done, epoch.averages)
                distributed.barrier()  # whoever ends first would have the others killed
                self._log.close()
                distributed.stop()
                say(
                    f"stopped by {stop} in epoch {epoch.number} after {epoch.done} of {epoch.batches} steps; saved "
                    f"{self.workplace.folder / 'checkpoint-last.pth'}; the same command with --resume auto goes on"
                )
                raise

    def note_score(self, epoch: Epoch, name: str, score: float) -> bool:
        """Note an epoch's score, such as ``val_top1``, in ``best`` if it is above all before; say whether it is."""
        if score <= self.best.get(name, -math.inf):
            return False
        self.best, self._best_before = {"epoch": epoch.number, name: score}, self.best
        return True

    @property
    def best_checkpoint_in_words(self) -> str:
        """The name of the best epoch's checkpoint, and that it is missing where somebody has removed it."""
        name = "checkpoint-best.pth"
        return name if (self.workplace.folder / name).exists() else f"{name} is missing"

    def end_epoch(self, epoch: Epoch, values: dict, is_best: bool = False) -> None:
        """Record what an epoch measured, save, and say how far the run is."""
        self.finished_now = self.ends_after(epoch.number)
        self._log.epoch(epoch.number, values)
        self._saver.save_epoch(epoch.number, is_best, self.finished_now)
        distributed.barrier()
        self._epoch = self._make_epoch(epoch.number + 1)
        start = self._first_epoch + self._first_step / self._steps_per_epoch
        done = epoch.number + 1 - start
        left = time_left(time.monotonic() - self._started, done, self.plan.epochs - start)
        shown = "  ".join(
            f"{name} {value:.4g}" if isinstance(value, int | float) else f"{name} {value}"
            for name, value in values.items()
            if not isinstance(value, dict)
        )
        say(f"epoch {epoch.number} of {self.plan.epochs}: {shown}  ({left} left)")
        if self._is_stalled(epoch.number):
            say(f"early stopping: {self._in_words()}")

    def show(self, name: str, figure, epoch: Epoch, formats: Iterable[str] = ("png",)) -> None:
        """Keep a picture of an epoch: ``NAME-EPOCH.png`` in the folder (or in other ``formats``), and in TensorBoard."""
        if distributed.is_main():
            from util.evaluation.figure import save  # matplotlib, which takes a second to load

            save(figure, self.workplace.folder, f"{name}-{epoch.number}", formats)
            self._log.figure(name, figure, epoch.number)

    def close(self) -> None:
        """End the log, leave the other processes and the folder, and say where the files are."""
        self._log.close()
        distributed.stop()
        lock.release()
        say(f"output folder: {self.workplace.folder}")

    def _make_epoch(self, number: int, step: int = 0, averages: Averages | None = None) -> Epoch:
        return Epoch(
            number,
            self._loader,
            self._stepper,
            self._saver,
            self._log,
            seed=self.plan.seed,
            print_freq=self.plan.print_freq,
            step=step,
            averages=averages,
        )

    def _content(self, epoch: int) -> dict:
        """What a checkpoint holds after an epoch."""
        content = {
            "phase": self.about.phase,
            "epoch": epoch,
            "args": self.about.options,
            "classes": self.about.classes,
            "precision": self.workplace.precision.name,
            "variant": self._stepper.model.variant.plain(),
            **self._stepper.state_dict(),
            "best": self.best,
            "processes": distributed.world_size(),
            "begun_from": self._begun_from,
        }
        for part in self.parts:
            content |= part.state_dict()
        return content

    def _name_source(self, resumed: Checkpoint | None) -> dict[str, str | None] | None:
        """File and hash of the encoder's checkpoint; a run that goes on knows them from its first start."""
        if resumed:
            return resumed.content.get("begun_from")
        return self.about.source.named() if self.about.source and distributed.is_main() else None

    def _choose_best_anew_where_lost(self, resumed: Checkpoint) -> None:
        """Forget the best epoch where the run's folder does not hold it, and say so."""
        folder, distant = self.workplace.folder, resumed.path.parent
        elsewhere = distant.resolve() != folder.resolve()
        lost = False
        if distributed.is_main() and self.best:
            best, kept = self.best["epoch"], kept_epoch(folder / "checkpoint-best.pth")
            # a folder without a best checkpoint may be that of one checkpoint that was copied: its best epoch stays known
            lost = elsewhere or best >= self._first_epoch or kept not in (None, best)
        if distributed.largest(lost, together=True):
            where = f"stays in {distant}; here one" if elsewhere else "is not in checkpoint-best.pth; it"
            say(f"note: the best epoch, {self.best['epoch']}, {where} is chosen anew")
            self.best = {}

    def _restore(self, resumed: Checkpoint) -> None:
        """Take model, optimiser and parts from a checkpoint; say what is otherwise than it was."""
        content = resumed.content
        decays = [options.get("layer_decay", 1.0) for options in (resumed.options, self.about.options)]
        if decays[0] != decays[1] and 1 in decays:  # with 1, layers share the optimiser's groups
            raise InputError(
                f"--layer_decay {decays[1]:g}: {resumed.path} was made with {decays[0]:g}; leave the option out"
            )
        if resumed.classes != self.about.classes:
            raise InputError(
                f"{resumed.path} was trained on the classes {resumed.classes}, the data has {self.about.classes}"
            )
        steps = f", {content['step']} steps of the next" if content.get("step") else ""
        say(f"resuming {resumed.path}, {content['epoch'] + 1} epochs done{steps}")
        try:
            self._stepper.load_state_dict(content)
            self.best = content["best"]
            if content.get("step"):
                Averages.of(content["averages"], self.workplace.device).means()  # raises where they are malformed
            for part in self.parts:
                part.load_state_dict(content)
        except Exception as error:  # libraries raise nearly anything on malformed states
            reason = one_line(str(error).split("\n")[-1].strip()[:160])
            raise InputError(
                f"{resumed.path} does not fit the model and data that the options describe ({reason}): leave out --model, "
                "sizes and pooling, which --resume takes from the checkpoint"
            ) from None
        for note in changes(resumed, self.about.options, self.workplace.precision.name):
            say(f"note: {note}")
        if resumed.path.resolve() == (self.workplace.folder / "checkpoint-last.pth").resolve() and not content.get("step"):
            # a run killed right after writing it may not have named it
            epoch = content["epoch"]
            self._saver.name(epoch, self.best.get("epoch") == epoch, self.ends_after(epoch))
