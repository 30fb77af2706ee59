"""The device of a run, the number format of its products, and the machine around them."""

import platform
from importlib import metadata
from pathlib import Path

import torch

from util.system import cores
from util.system.console import say
from util.system.errors import InputError

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
