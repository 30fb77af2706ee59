"""Where the time of a training step goes, by kind of operation, as PyTorch's profiler sees it."""

from collections.abc import Callable, Iterator

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from benchmarks.speed import contenders
from benchmarks.speed.measure import Row, wait

KINDS = {  # how the names of PyTorch's operations begin, after "aten::"
    "products of linear layers": ("mm", "addmm"),
    "attention": ("bmm", "_softmax", "_scaled_dot_product", "_flash_attention", "_efficient_attention"),
    "GELU": ("gelu",),
    "normalisation": ("native_layer_norm",),
    "casts and copies": ("copy_", "cat", "clone", "gather", "scatter", "fill_"),
    "optimiser": ("_fused_adamw", "_foreach"),
}
REST = "all else"


def kind_of(operation: str) -> str:
    """The kind of an operation, named as the profiler does, such as "aten::addmm"."""
    name = operation.removeprefix("aten::")
    return next((kind for kind, beginnings in KINDS.items() if name.startswith(beginnings)), REST)


def shares(step: Callable[[], object], device: torch.device, steps: int) -> dict[str, float]:
    """Shares of each kind of operation in the time of ``steps`` steps, on the GPU where there is one."""
    on_gpu = device.type == "cuda"
    for _ in range(3):
        step()
    wait(device)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
        for _ in range(steps):
            step()
        wait(device)
    times = dict.fromkeys((*KINDS, REST), 0.0)
    for event in seen.key_averages():
        if event.device_type != DeviceType.CPU:  # a kernel; its time is that of the operation that launched it, too
            continue
        times[kind_of(event.key)] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    return {kind: time / sum(times.values()) for kind, time in times.items()}


def profile(options) -> Iterator[Row]:
    """Where the time of a training step goes, in pre-training with SAM and in fine-tuning on all patches."""
    where = (options.model, options.input_size, options.batch_size, options.device, options.amp)
    steps = {
        "pre-training, SAM": contenders.pretraining(*where),
        "fine-tuning, all patches": contenders.finetuning(*where, "none"),
    }
    for name, step in steps.items():
        for kind, share in shares(step, options.device, options.batches).items():
            yield Row("time of a step", f"{name}: {kind}", 100 * share, "%")
