"""Where a run takes place: its device and precision, and an output folder that is its own while it lasts."""

from dataclasses import dataclass
from pathlib import Path

import torch

from util.system import distributed, lock, threads
from util.system.console import say
from util.system.device import Precision, choose_device, choose_precision
from util.system.errors import InputError
from util.system.text import readable


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
    cpu = threads.settle()  # beside a GPU too, where loader workers need the cores
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
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
