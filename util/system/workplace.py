"""Where a run takes place: the device and its precision, the output folder and its disk."""

import json
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Protocol

import torch

from util.system import cores, distributed, lock
from util.system.console import say
from util.system.errors import InputError
from util.system.files import replacing
from util.system.text import readable

RUN_FILES = (
    *("checkpoint-*.pth", ".checkpoint-*.tmp", "events.out.tfevents.*"),
    *("sheet-*.png", "sheet-*.pdf", "sheet-*.svg", ".sheet-*.tmp"),
    *("log.txt", "run.json", "bad-batch.txt"),
)

EMULATED = {  # number formats that a processor computes in only with one of these features
    "bf16": {"amx_bf16", "avx512_bf16", "bf16"},
    "fp16": {"amx_fp16", "avx512_fp16", "asimdhp", "fphp"},
}


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
    """Resolve ``auto``: bf16 where the hardware computes in it, else fp32.

    Raises:
        InputError: for tf32 without a GPU.
    """
    if amp == "tf32" and device.type != "cuda":
        raise InputError("--amp tf32 is for a GPU; use --amp auto or fp32")
    known = processor_features() if device.type == "cpu" else None
    if amp in EMULATED and known is not None and not known & EMULATED[amp]:
        say(f"note: --amp {amp}: this processor has no arithmetic for it; emulated, it took ten times as long as fp32")
    if amp != "auto":
        return amp
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    return "bf16" if known and known & EMULATED["bf16"] else "fp32"


def processor_features() -> set[str] | None:
    """What the processor says that it can do, in Linux's words; None where the system does not tell."""
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return None


class Named(Protocol):
    """A file that is known by its content (:class:`util.training.checkpoint.Checkpoint`)."""

    @property
    def path(self) -> Path: ...

    @property
    def sha256(self) -> str | None: ...

    def named(self) -> dict[str, str | None]: ...


class Precision:
    """The number format of matrix products on a device; calling it gives the context to run a model in.

    Args:
        device: of the products.
        amp: "bf16", "fp16", "tf32" or "fp32".
    """

    def __init__(self, device: torch.device, amp: str):
        self.device, self.name = device, amp
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(amp)

    def __call__(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None)


@dataclass(frozen=True)
class Workplace:
    """Where a run takes place: the folder of its files, its device, and the number format there."""

    folder: Path
    device: torch.device
    precision: Precision

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"


def open_workplace(folder: Path, device_name: str | None, amp: str, log_dir: str | None = None) -> Workplace:
    """Choose the device, join other processes, make the folder and lock it, and say all that.

    Args:
        log_dir: of TensorBoard's events, made too where it is another folder.

    Raises:
        InputError: where there is no such device, or a folder cannot be written or is in use.
    """
    device = distributed.start(choose_device(device_name))
    precision = Precision(device, choose_precision(amp, device))
    torch.set_float32_matmul_precision("high" if precision.name == "tf32" else "highest")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cores.settle_threads()
    chosen = "; no CUDA GPU found" if device.type == "cpu" and not device_name else ""
    say(f"device: {device} ({name}{chosen}), precision {precision.name}, PyTorch {torch.__version__}")
    make_writable(folder, "--output_dir")
    claim(folder)
    if log_dir:
        make_writable(Path(log_dir), "--log_dir")
    say(f"output folder: {folder}")
    return Workplace(folder, device, precision)


def named_folder(phase: str, data_path: str) -> Path:
    """The folder of a run's files where no option names one: ``output_dir/PHASE-DATASET``."""
    return Path("output_dir") / f"{phase}-{readable(Path(data_path).resolve().name)}"


def training_folder(output_dir: str | None, default: Path, resume: str | None, *, overwrite: bool) -> Path:
    """The folder of a training's files; never one that holds another run's checkpoints.

    Args:
        output_dir: where the user wants it; without, it is that of the checkpoint to go on from, else ``default``.
        resume: the checkpoint to go on from, or "auto".
        overwrite: replace what lies there.

    Raises:
        InputError: where another run lies there, or is at work there.
    """
    resumed = Path(resume) if resume and resume != "auto" else None
    folder = Path(output_dir) if output_dir else resumed.parent if resumed else default
    if (folder / lock.NAME).exists():
        claim(folder)  # first of all: what is in use can be neither gone on with nor replaced
    goes_on = resume == "auto" or (resumed is not None and resumed.resolve().parent == folder.resolve())
    if any(folder.glob("checkpoint-*.pth")) and not goes_on and not overwrite:
        raise InputError(
            f"{folder} holds a run already: go on with it by --resume auto, replace it by --overwrite, or choose another "
            "--output_dir"
        )
    return folder


def make_writable(folder: Path, option: str) -> None:
    """Make the folder that an option names and see that files can be written there, by TensorBoard too."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{option} {folder}: TensorBoard writes to no folder whose name is not UTF-8; choose another name, or set "
            "PYTHONUTF8=1 where the name is right and the locale is not"
        ) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{distributed.rank()}"
        probe.write_text("a file can be written here")
        probe.unlink()
    except OSError as error:
        raise InputError(f"{option} {folder} cannot be written: {error.strerror}") from None


def claim(folder: Path) -> None:
    """Lock an output folder until the script ends; raise :class:`InputError` where another process writes there.

    Of several processes that train together the main one does it.
    """
    if not distributed.is_main():
        return
    try:
        holder = lock.take(folder)
    except OSError as error:
        if error.errno not in lock.NOT_THERE:
            raise InputError(f"--output_dir {folder} cannot be written: {error.strerror}") from None
        say(f"note: the file system of {folder} has no locks; nothing keeps a second run from writing there")
        return
    if holder:
        raise InputError(f"{folder} is in use ({holder}): wait until that run ends, stop it, or choose another --output_dir")


def check_workers(num_workers: int | None) -> None:
    """Raise :class:`InputError` unless sockets can be opened in the temporary folder: workers hand batches over by them.

    A worker that cannot open one drops its batches, and training would wait for the first one for ever. Nothing is checked
    of None, a number that is chosen later (:func:`util.data.loading.loader_workers`).
    """
    if not num_workers:
        return
    try:
        Listener().close()
    except OSError as error:
        raise InputError(
            f"--num_workers: workers cannot open a socket in the temporary folder {tempfile.tempdir or ''} "
            f"({error.strerror or error}); set TMPDIR to a folder with room and a short path, or give --num_workers 0"
        ) from None


def check_space(folder: Path, size: int, count: int) -> None:
    """Raise :class:`InputError` unless a run's checkpoints fit on the disk, beside what is not the run's.

    Args:
        folder: of the run; the checkpoints that the run will replace or remove count as free.
        size: of one, in bytes.
        count: how many lie there at most (:func:`util.training.saver.most_at_once`).
    """
    own = [path for path in folder.glob("checkpoint-*.pth") if re.fullmatch(r"checkpoint-(\d+|last|best)", path.stem)]
    checkpoints = {(status.st_dev, status.st_ino): status.st_size for status in map(Path.stat, own)}
    free, needed = shutil.disk_usage(folder).free + sum(checkpoints.values()), count * size
    if free < needed:
        raise InputError(
            f"--output_dir {folder}: {free / 2**30:.2f} GiB free, {count} checkpoints of {size / 2**30:.2f} GiB need "
            f"{needed / 2**30:.2f}; free space, choose another folder, or keep fewer by --keep or --save_every"
        )


def clear(folder: Path) -> None:
    """Remove the files of an earlier run, and only those, from an output folder (``--overwrite``)."""
    for pattern in RUN_FILES:
        for path in folder.glob(pattern):
            path.unlink()


def environment(device: torch.device, packages: tuple[str, ...] = ()) -> dict[str, str | int]:
    """What results depend on: processor, device, versions (of ``packages`` too)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processors = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": processors[0] if processors else platform.processor(),
        "cores": cores.usable(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", *packages)},
    }


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def check_evaluation_folder(folder: Path, checkpoint: Named, split: str, data_path: str, overwrite: bool) -> None:
    """Raise :class:`InputError` where a folder holds a prediction, or an evaluation of another checkpoint, split or data.

    Checkpoints are compared by SHA-256; results from before hashes were recorded, by path.
    """
    if (folder / "prediction.json").exists():
        raise InputError(f"{folder} holds a prediction, with a predictions.csv of its own: choose another --output_dir")
    results = folder / "metrics.json"
    if overwrite or not results.is_file():
        return
    try:
        there = dict(json.loads(results.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        there = {}
    path, before = there.get("checkpoint"), there.get("split", split)
    if there.get("checkpoint_sha256") and checkpoint.sha256:
        same = there["checkpoint_sha256"] == checkpoint.sha256
    else:
        same = isinstance(path, str) and Path(path).resolve() == checkpoint.path.resolve()
    here = str(Path(data_path).resolve())
    data = there.get("data_path", here)
    if same and before == split and data != here:
        raise InputError(
            f"{folder} holds an evaluation of {data}: choose another --output_dir, or replace it by --overwrite"
        )
    if not same or before != split:
        another = f"{path} as it was before" if path == str(checkpoint.path) and not same else path
        raise InputError(
            f"{folder} holds an evaluation of {another} on {before}: choose another --output_dir, or replace it by "
            "--overwrite"
        )


def write_run_json(
    workplace: Workplace,
    phase: str,
    options: dict,
    departures: dict[str, tuple] | None = None,
    *,
    begun_from: dict[str, str | None] | None = None,
    resumed: Named | None = None,
) -> None:
    """Write ``run.json``: how the run was called, with what options and checkpoints, and where.

    Args:
        departures: from the protocol.
        begun_from: file and hash of the encoder's checkpoint.
        resumed: the checkpoint that this run resumes, evaluates or predicts with.
    """
    if not distributed.is_main():
        return
    protocol = {"name": options.get("protocol"), "departures": departures}
    content = {
        "phase": phase,
        **({"protocol": protocol} if departures is not None else {}),
        "command": ["python", *sys.argv],
        "options": options,
        "checkpoints": {
            "begun_from": begun_from,
            {"eval": "evaluated", "predict": "used"}.get(phase, "resumed"): resumed and resumed.named(),
        },
        "environment": {**environment(workplace.device), "precision": workplace.precision.name},
    }
    # an evaluation or prediction in the folder of a training leaves that one's account alone
    beside_training = phase in ("eval", "predict") and (workplace.folder / "log.txt").exists()
    name = f"run-{phase}.json" if beside_training else "run.json"
    with replacing(workplace.folder / name) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n")
