"""What every entry script does around training: prepare, save, resume, report."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from util.data.loading import SeededDataset, training_loader
from util.options import describe_protocol
from util.retired import refuse_retired
from util.system import distributed, interruption
from util.system.console import say, time_left
from util.system.errors import DiskError, InputError
from util.system.workplace import check_socket, check_space, clear, describe, make_writable, output_folder, start
from util.training import checkpoint
from util.training.checkpoint import Checkpoint
from util.training.log import Averages, RunLog
from util.training.optimisation import Precision, Stepper

SAVING_SHARE = 0.05  # of the time may go into checkpoints that nothing but the end of an epoch asks for
# Options that may differ in a resumed run without a word
PLACES = ("output_dir", "log_dir", "resume", "overwrite", "start_epoch", "save_every", "keep")
PLACES += ("data_path", "root", "num_workers", "pin_mem", "device")


def plain(args) -> dict:
    """The options as a dictionary of plain values, as a checkpoint may hold them."""
    values = {**vars(args), "save_every": str(args.save_every)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def find_resumed(args, phase: str, default_folder: Path | None = None) -> Checkpoint | None:
    """The checkpoint that ``--resume`` names; None where "auto" finds none.

    Raises:
        InputError: when it comes from another phase.
    """
    if args.resume == "auto":
        folder = Path(args.output_dir) if args.output_dir else default_folder or named_folder(args.data_path, phase)
        found = checkpoint.newest(folder)
        if not found:
            say(f"--resume auto: no checkpoint in {folder}, starting from the beginning")
            return None
    else:
        found = checkpoint.load(args.resume)
    if found.phase != phase:
        raise InputError(
            f"{found.path} is not a checkpoint of this script's training, to go on from; give an encoder to begin from by "
            "--finetune (in segmentation by --checkpoint)"
        )
    refuse_retired(found.options, found.path)
    return found


def options_to_go_on_with(resumed: Checkpoint | None) -> dict:
    """The options of a run that goes on, all but those that name where it lies and how it was started."""
    started = ("output_dir", "overwrite", "resume", "start_epoch", "eval")
    return {name: value for name, value in resumed.options.items() if name not in started} if resumed else {}


def named_folder(data_path: str | None, phase: str) -> Path:
    """The folder of a run's files where no option names one: ``output_dir/PHASE-DATASET``."""
    if not data_path:
        raise InputError("--resume auto: give --output_dir, the folder of the run to go on with, or its --data_path")
    return Path("output_dir") / f"{phase}-{Path(data_path).resolve().name}"


class Run:
    """A run from its checks to its last checkpoint: folder, device, steps, and all that a checkpoint holds.

    Making it does the checks that need neither model nor images and writes nothing; :meth:`open` makes the folder;
    :meth:`begin` adds what is trained.

    Args:
        args: the options; ``amp`` and ``pin_mem`` are settled in place.
        phase: of the project, as a checkpoint names it; "eval" trains nothing.
        classes: their names.
        default_folder: of the run's files, where no option says another.
        departures: what departs from the protocol, for ``run.json``.
        resumed: the checkpoint to go on from.
    """

    def __init__(
        self,
        args,
        phase: str,
        classes: list[str],
        default_folder: Path,
        departures: dict[str, tuple] | None = None,
        resumed: Checkpoint | None = None,
    ):
        self.args, self.phase, self.classes, self.departures = args, phase, classes, departures
        self.folder = output_folder(args, default_folder, evaluating=phase == "eval")
        self.device = start(args)
        self.precision = Precision(self.device, args.amp)
        if departures is not None:
            say(describe_protocol(args.protocol, departures))
        self.resumed = resumed
        if resumed:
            if resumed.classes != classes:
                raise InputError(f"{resumed.path} was trained on the classes {resumed.classes}, the data has {classes}")
            done, step = resumed.content["epoch"] + 1, resumed.content.get("step")
            say(f"resuming {resumed.path}, {done} epochs done{f', {step} steps of the next' if step else ''}")
        self.best: dict = {}  # epoch and figures of the best validation so far

    def open(self) -> None:
        """Make the output folder; of an evaluation, note in it how it came about (:meth:`begin` does that in training)."""
        self.log_dir = Path(self.args.log_dir or self.folder)
        for folder, option in ((self.folder, "--output_dir"), (self.log_dir, "--log_dir")):
            make_writable(folder, option)
        if self.phase != "eval" and self.args.num_workers:
            check_socket()
        say(f"output folder: {self.folder}")
        if self.phase == "eval" and distributed.is_main():
            describe(self.folder, plain(self.args), self.phase, self.device)

    def begin(self, model: nn.Module, dataset: SeededDataset, optimizer: torch.optim.Optimizer, schedule) -> None:
        """Make loader, steps and log, and restore what ``--resume`` found.

        Args:
            model: on the device.
            dataset: what to train on.
            optimizer: its groups may carry ``lr_scale``.
            schedule: ``schedule.at(epoch)`` is the learning rate.
        """
        args = self.args
        self.model, self.dataset = model, dataset
        self.loader = training_loader(dataset, args.batch_size, args.num_workers, args.pin_mem)
        self.stepper = Stepper(model, optimizer, schedule, self.precision, args.accum_iter, args.clip_grad)
        self.steps_per_epoch = self.stepper.steps_per_epoch(len(self.loader))
        check_space(self.folder, model)
        self.first_epoch = self._restore()
        if args.overwrite and distributed.is_main():
            clear(self.folder)
        if distributed.is_main():
            describe(self.folder, plain(args), self.phase, self.device, self.departures)
        if args.compile:
            torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
            model.compile()
        self.trained = distributed.wrap(model)
        self.log = RunLog(self.folder, self.log_dir, self.first_epoch, self.steps_per_epoch, self.interrupted.get("step", 0))

    def state(self) -> dict:
        """What a checkpoint holds beyond model, optimiser and progress; kinds of runs add to it."""
        return {}

    def restore_state(self, content: dict) -> None:
        """Take from a checkpoint what :meth:`state` put there."""

    def epochs(self) -> range:
        """The epochs still to do."""
        if self.first_epoch >= self.args.epochs:
            say(f"nothing to do: {self.first_epoch} epochs are done and --epochs is {self.args.epochs}")
        self.started = self.saved = time.monotonic()
        self.saving = 0.0  # seconds that the last checkpoint took
        self.continue_epoch(self.first_epoch, Averages())
        return range(self.first_epoch, self.args.epochs)

    @contextmanager
    def saving_when_stopped(self) -> Iterator[None]:
        """In this context SIGTERM and Ctrl-C end the run after the current step, with a checkpoint of exactly there."""
        with interruption.watch():
            try:
                yield
            except interruption.Stopped as stop:
                self._save(self.epoch - 1, self.step, self.averages)
                distributed.barrier()  # whoever ends first would have the others killed
                self.log.close()
                distributed.stop()
                say(
                    f"stopped by {stop} in epoch {self.epoch} after {self.step} of {self.steps_per_epoch} steps; saved "
                    f"{self.folder / 'checkpoint-last.pth'}; the same command with --resume auto goes on"
                )
                raise

    def continue_epoch(self, epoch: int, averages: Averages) -> int:
        """Give ``averages`` what was measured in an epoch before the run was stopped in it; return the steps done then."""
        done = 0
        if self.interrupted and epoch == self.first_epoch:
            averages.restore(self.interrupted["averages"], self.device)
            done = self.interrupted["step"]
        self.epoch, self.step, self.averages = epoch, done, averages
        return done

    def save_due(self, epoch: int, step: int) -> bool:
        """Whether ``--save_every`` asks for a checkpoint after this step."""
        steps = self.args.save_every.steps
        return bool(steps) and (epoch * self.steps_per_epoch + step) % steps == 0

    def after_step(self, epoch: int, step: int, averages: Averages, save: bool, stop: int) -> None:
        """Note how far the run is; stop when a signal (its number, or 0) asked for it, else save when told to."""
        self.epoch, self.step, self.averages = epoch, step, averages
        if stop:
            raise interruption.Stopped(stop)
        if save:
            self._save(epoch - 1, step, averages)

    def report_bad_batch(self, epoch: int, step: int, indices: list[int]) -> str:
        """Write down the files of a batch whose loss was not finite; say what happened and what can be done."""
        paths = [self.dataset.paths[index] for index in indices]
        written = self.folder / "bad-batch.txt"
        written.write_text("".join(f"{path}\n" for path in paths))
        return (
            f"the loss is not finite in epoch {epoch}, step {step}, on {paths[0]} and {len(paths) - 1} more ({written}); "
            "the last checkpoint is intact: lower --blr, set --clip_grad 1, use --amp fp32, or look at these images"
        )

    def end_epoch(self, epoch: int, values: dict, is_best: bool = False) -> None:
        """Record an epoch and save: ``checkpoint-last.pth``, and under its number and as the best when due.

        A large model's checkpoint can take longer than a GPU's epoch. Where nothing else asks for one, it is left out as
        long as saving would take more than ``SAVING_SHARE`` of the time.
        """
        self.log.epoch(epoch, values)
        keep = self._keeps(epoch)
        rested = self.saving <= SAVING_SHARE * (time.monotonic() - self.saved)
        if keep or is_best or rested:
            self._save(epoch)
            self._name(epoch, is_best)
        distributed.barrier()
        self.epoch, self.step, self.averages = epoch + 1, 0, Averages()
        earlier = self.interrupted.get("step", 0) / self.steps_per_epoch  # of the first epoch, done before this start
        start = self.first_epoch + earlier
        left = time_left(time.monotonic() - self.started, epoch + 1 - start, self.args.epochs - start)
        shown = "  ".join(
            f"{name} {value:.4g}" if isinstance(value, int | float) else f"{name} {value}"
            for name, value in values.items()
            if not isinstance(value, dict)
        )
        say(f"epoch {epoch} of {self.args.epochs}: {shown}  ({left} left)")

    def close(self) -> None:
        self.log.close()
        distributed.stop()
        say(f"output folder: {self.folder}")

    def _save(self, epoch: int, step: int = 0, averages: Averages | None = None) -> None:
        """Write ``checkpoint-last.pth``: ``epoch`` is the last whole one, ``step`` how many steps of the next are done."""
        interrupted = {"step": step, "averages": averages.state()} if averages else {"step": 0}
        if not distributed.is_main():
            return
        began = time.monotonic()
        last = self.folder / "checkpoint-last.pth"
        try:
            checkpoint.save(last, **self._content(epoch), **interrupted)
        except (OSError, RuntimeError) as error:
            state = "the one before it is intact" if last.exists() else "there was none before"
            raise DiskError(f"{last} could not be written ({error}); {state}: free space, then --resume auto") from error
        self.saved = time.monotonic()
        self.saving = self.saved - began

    def _keeps(self, epoch: int) -> bool:
        return self.args.save_every.due(epoch) or epoch + 1 == self.args.epochs

    def _name(self, epoch: int, is_best: bool) -> None:
        """Give the checkpoint just written, ``checkpoint-last.pth`` of an epoch's end, the other names that are its due."""
        if not distributed.is_main():
            return
        last = self.folder / "checkpoint-last.pth"
        if self._keeps(epoch):
            checkpoint.duplicate(last, f"checkpoint-{epoch}.pth")
            checkpoint.prune(self.folder, self.args.keep)
        if is_best:
            checkpoint.duplicate(last, "checkpoint-best.pth")

    def _content(self, epoch: int) -> dict:
        return {
            "phase": self.phase,
            "epoch": epoch,
            "args": plain(self.args),
            "classes": self.classes,
            "model": self.model.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "best": self.best,
            **self.state(),
        }

    def _restore(self) -> int:
        """Load the checkpoint to go on from, if any; return the first epoch to do."""
        content = self.resumed.content if self.resumed else None
        self.interrupted = content if content and content.get("step") else {}
        if content:
            try:
                self.model.load_state_dict(content["model"])
                self.stepper.optimizer.load_state_dict(content["optimizer"])
                self.stepper.scaler.load_state_dict(content["scaler"])
                self.stepper.last_scale = self.stepper.scaler.get_scale()
                self.best = content["best"]
                self.restore_state(content)
            except (RuntimeError, ValueError, KeyError) as error:
                reason = str(error).split("\n")[-1].strip()
                raise InputError(f"--resume: the checkpoint does not fit this model and data ({reason})") from None
            now = plain(self.args)
            for name, old in self.resumed.options.items():
                if name not in PLACES and now.get(name, old) != old:
                    say(f"note: --{name} was {old} in the resumed run and is {now[name]} now")
            if content.get("format", 1) < 3:
                say("note: validation images are resized bilinearly now, where the resumed run resized them bicubically")
        if self.args.start_epoch is not None:
            self.interrupted = {}
            return self.args.start_epoch
        if not content:
            return 0
        if self.resumed.path == self.folder / "checkpoint-last.pth" and not self.interrupted:
            # a run killed right after writing it may not have named it
            self._name(content["epoch"], self.best.get("epoch") == content["epoch"])
        return content["epoch"] + 1
