"""What both entry scripts do around training: choose the device, guard the output folder, save, resume, report."""

import time
from pathlib import Path

import torch
from torch import nn

from util import checkpoint, distributed
from util.attention_map import relative_entropy
from util.augment import Augment
from util.data import Images, TrainingImages, open_folders, training_loader
from util.errors import InputError
from util.localisation import find_masks
from util.log import RunLog, say
from util.optimisation import Precision, Schedule, Stepper
from util.options import check_training
from util.progress import clock
from util.whole_set import attention_maps

RUN_FILES = ("checkpoint-*.pth", ".checkpoint-*.tmp", "log.txt", "events.out.tfevents.*", "sheet-*.png")
SAVING_SHARE = 0.05  # of the time may go into checkpoints that nothing but the end of an epoch asks for
PLACES = ("output_dir", "log_dir", "resume", "overwrite", "start_epoch", "data_path", "num_workers", "pin_mem", "device")


def choose_device(name: str | None) -> torch.device:
    """The device asked for, checked; without one, CUDA where there is one and the CPU otherwise."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise InputError(f"--device {name}: not a device; use cuda, cuda:N or cpu") from None
    if device.type not in ("cuda", "cpu"):
        raise InputError(f"--device {name}: only cuda and cpu are supported")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use --device cpu")
    return device


def choose_precision(amp: str, device: torch.device) -> str:
    """Resolve ``auto``: bf16 where the hardware computes in it, else fp32."""
    if amp != "auto":
        return amp
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = set()
    return "bf16" if flags & {"amx_bf16", "avx512_bf16", "bf16"} else "fp32"


def start(args) -> torch.device:
    """Settle device and precision in ``args``, join other processes, and say where the run takes place."""
    device = distributed.start(choose_device(args.device))
    args.amp = choose_precision(args.amp, device)
    args.pin_mem = args.pin_mem and device.type == "cuda"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    chosen = "; no CUDA GPU found" if device.type == "cpu" and not args.device else ""
    say(f"device: {device} ({name}{chosen}), precision {args.amp}, PyTorch {torch.__version__}")
    return device


def output_folder(args, phase: str) -> Path:
    """The folder of this run's files; never one that holds another run's checkpoints.

    Without ``--output_dir`` it is the folder of the checkpoint to resume, or ``output_dir/PHASE-DATASET``.
    """
    resumed = Path(args.resume) if args.resume and args.resume != "auto" else None
    if args.output_dir:
        folder = Path(args.output_dir)
    elif resumed and phase != "eval":
        folder = resumed.parent
    else:
        folder = Path("output_dir") / f"{phase}-{Path(args.data_path).resolve().name}"
    continued = args.resume == "auto" or (resumed and resumed.resolve().parent == folder.resolve())
    if phase != "eval" and any(folder.glob("checkpoint-*.pth")) and not continued and not args.overwrite:
        raise InputError(
            f"{folder} holds a run already: go on with it by --resume auto, replace it by --overwrite, or choose another "
            "--output_dir"
        )
    return folder


def make_writable(folder: Path) -> None:
    """Make a folder and see that files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{distributed.rank()}"
        probe.write_text("a file can be written here")
        probe.unlink()
    except OSError as error:
        raise InputError(f"--output_dir {folder} cannot be written: {error.strerror}") from None


def plain(args) -> dict:
    """The options as a dictionary of plain values, as a checkpoint may hold them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(args).items()}


def clear(folder: Path) -> None:
    """Remove the files of an earlier run, and only those, from an output folder (``--overwrite``)."""
    for pattern in RUN_FILES:
        for path in folder.glob(pattern):
            path.unlink()


def find_resume(args, folder: Path, phase: str, classes: list[str]) -> dict | None:
    """The checkpoint to go on from, or None.

    Raises:
        InputError: when it comes from another phase or from other classes.
    """
    if not args.resume:
        return None
    if args.resume == "auto":
        found = checkpoint.newest(folder)
        if not found:
            say(f"--resume auto: no checkpoint in {folder}, starting from the beginning")
            return None
    else:
        found = Path(args.resume), checkpoint.load(args.resume)
    path, content = found
    if content.get("phase") != phase:
        raise InputError(f"{path} is not a checkpoint of this script's training; --finetune takes any encoder")
    if content["classes"] != classes:
        raise InputError(f"{path} was trained on the classes {content['classes']}, --data_path has {classes}")
    say(f"resuming {path}, epoch {content['epoch']} done")
    return content


class Run:
    """A run from its checks to its last checkpoint: folder, device, images, and all that a checkpoint holds.

    Making it does the checks that need neither model nor images and writes nothing; :meth:`open` makes the folder and reads
    the images; :meth:`prepare` adds what is trained.

    Args:
        args: the options; ``amp`` and ``pin_mem`` are settled in place.
        phase: "pretrain", "finetune" or "eval".
    """

    def __init__(self, args, phase: str):
        self.args, self.phase = args, phase
        if phase == "eval":
            self._folders = open_folders(args.data_path, ("val",), args.num_classes)
        else:
            self._folders = open_folders(args.data_path, ("train", "val"), args.num_classes)
            check_training(args, len(self._folders[0]))
        self.classes = self._folders[0].classes
        self.folder = output_folder(args, phase)
        self.device = start(args)
        self.precision = Precision(self.device, args.amp)
        self.resumed = None if phase == "eval" else find_resume(args, self.folder, phase, self.classes)
        self.map_entropy: float | None = None  # of the training set's maps; None until there are maps
        self.best: dict = {}  # epoch and figures of the best validation so far, in fine-tuning

    def open(self) -> None:
        """Make the output folder; read all images, so that an unreadable one is found before any long work."""
        make_writable(self.folder)
        say(f"output folder: {self.folder}")
        self.val_images = Images(self._folders[-1], self.args.cache)
        self.masks = find_masks(self.val_images, self.args.lesion_masks)
        if self.phase != "eval":
            self.train_images = Images(self._folders[0], self.args.cache)

    def prepare(self, model: nn.Module, groups: list[dict], betas: tuple[float, float], augment: Augment) -> None:
        """Make loader, optimiser, schedule and log for a model, and restore what ``--resume`` found.

        Args:
            model: on the device; it has ``grid_size`` and ``attention_map``.
            groups: of parameters, for AdamW; ``betas`` too.
            augment: of the training images.
        """
        args = self.args
        self.model = model
        self.dataset = TrainingImages(self.train_images, augment, model.grid_size, args.seed)
        self.loader = training_loader(self.dataset, args.batch_size, args.num_workers, args.pin_mem)
        batch = args.batch_size * args.accum_iter * distributed.world_size()
        lr = args.blr * batch / 256 if args.lr is None else args.lr
        schedule = Schedule(lr, args.epochs, args.warmup_epochs, args.min_lr)
        optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
        self.stepper = Stepper(model, optimizer, schedule, self.precision, args.accum_iter, args.clip_grad)
        self.first_epoch = self._restore()
        if args.overwrite and distributed.is_main():
            clear(self.folder)
        if args.compile:
            torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
            model.compile()
        self.trained = distributed.wrap(model)
        log_dir = Path(args.log_dir) if args.log_dir else self.folder
        steps = self.stepper.steps_per_epoch(len(self.loader))
        self.log = RunLog(self.folder, log_dir, self.first_epoch, steps)
        say(
            f"{args.model}: {sum(p.numel() for p in model.parameters()):,} parameters; {len(self.dataset)} training and "
            f"{len(self.val_images)} validation images of {len(self.classes)} classes; learning rate {lr:.3g} for an "
            f"effective batch of {batch}"
        )

    def epochs(self) -> range:
        """The epochs still to do."""
        if self.first_epoch >= self.args.epochs:
            say(f"nothing to do: {self.first_epoch} epochs are done and --epochs is {self.args.epochs}")
        self.started = self.saved = time.monotonic()
        self.saving = 0.0  # seconds that the last checkpoint took
        return range(self.first_epoch, self.args.epochs)

    def refresh_maps(self) -> None:
        """Compute the maps of the training images from the current model; the loader's workers see them."""
        maps = attention_maps(self.model, self.train_images, self.args, self.precision)
        self.dataset.maps.copy_(maps)
        self.map_entropy = float(relative_entropy(maps.flatten(1)).mean())

    def maps_due_after(self, epoch: int, first: int) -> bool:
        """Whether maps are to be computed after this epoch, SAM running from epoch ``first``: then and periodically."""
        next_epoch = epoch + 1
        return first <= next_epoch < self.args.epochs and (next_epoch - first) % self.args.loc_interval == 0

    def end_epoch(self, epoch: int, values: dict, is_best: bool = False) -> None:
        """Record an epoch and save: ``checkpoint-last.pth``, and under its number and as the best when due.

        A large model's checkpoint can take longer than a GPU's epoch. Where nothing else asks for one, it is left out as
        long as saving would take more than ``SAVING_SHARE`` of the time.
        """
        self.log.epoch(epoch, values)
        if distributed.is_main():
            numbered = epoch % self.args.save_every == 0 or epoch + 1 == self.args.epochs
            began = time.monotonic()
            if numbered or is_best or self.saving <= SAVING_SHARE * (began - self.saved):
                last = self.folder / "checkpoint-last.pth"
                checkpoint.save(last, **self._content(epoch))
                if numbered:
                    checkpoint.duplicate(last, f"checkpoint-{epoch}.pth")
                if is_best:
                    checkpoint.duplicate(last, "checkpoint-best.pth")
                self.saved = time.monotonic()
                self.saving = self.saved - began
        distributed.barrier()
        left = (time.monotonic() - self.started) / (epoch + 1 - self.first_epoch) * (self.args.epochs - epoch - 1)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        say(f"epoch {epoch} of {self.args.epochs}: {shown}  ({clock(left)} left)")

    def close(self) -> None:
        self.log.close()
        distributed.stop()
        say(f"output folder: {self.folder}")

    def _content(self, epoch: int) -> dict:
        return {
            "phase": self.phase,
            "epoch": epoch,
            "args": plain(self.args),
            "classes": self.classes,
            "model": self.model.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "maps": None if self.map_entropy is None else self.dataset.maps.clone(),
            "map_entropy": self.map_entropy,
            "best": self.best,
        }

    def _restore(self) -> int:
        """Load the checkpoint to go on from, if any; return the first epoch to do."""
        content = self.resumed
        if content:
            try:
                self.model.load_state_dict(content["model"])
                self.stepper.optimizer.load_state_dict(content["optimizer"])
                self.stepper.scaler.load_state_dict(content["scaler"])
                self.map_entropy, self.best = content["map_entropy"], content["best"]
                if content["maps"] is not None:
                    self.dataset.maps.copy_(content["maps"])
            except (RuntimeError, ValueError, KeyError) as error:
                reason = str(error).split("\n")[-1].strip()
                raise InputError(f"--resume: the checkpoint does not fit this model and data ({reason})") from None
            now = plain(self.args)
            for name, old in content["args"].items():
                if name not in PLACES and now.get(name, old) != old:
                    say(f"note: --{name} was {old} in the resumed run and is {now[name]} now")
        if self.args.start_epoch is not None:
            return self.args.start_epoch
        return content["epoch"] + 1 if content else 0
