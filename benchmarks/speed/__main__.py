"""Measure how fast the project is, beside Hugging Face's ViTMAE, timm's ViT and LightlyTrain, in one run on the device at
hand.

Prints tables in Markdown with the project's targets beside them, and writes all figures to a JSON file."""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.speed import contenders, flops, pipeline
from benchmarks.speed import shared as beside
from benchmarks.speed.field import field
from benchmarks.speed.measure import Row, peak_memory, product_rate, rates, ratio, time_in_turn
from benchmarks.speed.shares import profile
from models_vit import ENCODERS, create_encoder
from util.data.inference import Inference
from util.maps import sources
from util.options.parser import HelpFormatter
from util.system import cores
from util.system.device import Precision, choose_device, choose_precision, environment
from util.system.errors import run_script

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def pretrain(options) -> Iterator[Row]:
    """The pre-training step beside Hugging Face's, with random masking, and in fp32 with plain attention."""
    name, size, batch, device, amp = shape(options)
    steps = {"ours, SAM 0.45 / 0.3": contenders.pretraining(*shape(options))}
    steps["ours, random 75 %"] = contenders.pretraining(*shape(options), masking="random")
    if name == "vit_base_patch16":
        steps["Hugging Face ViTMAE, 75 %"] = contenders.huggingface_pretraining(size, batch, device, amp)
    steps["ours, SAM, fp32, plain attention"] = contenders.pretraining(name, size, batch, device, "fp32", plain=True)
    if options.compile:
        steps["ours, SAM, compiled"] = contenders.pretraining(*shape(options), compiled=True)
    timings = time_in_turn(steps, device, options.rounds, options.shortest)
    yield from rates("pre-training step", timings, batch)
    ours = timings["ours, SAM 0.45 / 0.3"]
    per_second = flops.pretraining_step_flops(name, size) * batch / ours.median
    yield Row("pre-training step", "ours, SAM: arithmetic", per_second / 1e9, "GFLOP/s")
    best = product_rate(device, DTYPES[amp], options.rounds, options.shortest)
    yield Row("pre-training step", f"a large {amp} matrix product", best / 1e9, "GFLOP/s")
    target = "at least 40 % (H200)" if device.type == "cuda" else ""
    yield Row("pre-training step", "ours, SAM: share of that rate", 100 * per_second / best, "%", target=target)
    if "Hugging Face ViTMAE, 75 %" in timings:
        times = ratio(timings["Hugging Face ViTMAE, 75 %"], ours)
        yield Row("pre-training step", "ours, SAM, against Hugging Face", times, "x", target="at least 2")
    times = ratio(timings["ours, SAM, fp32, plain attention"], ours)
    target = "at least 3" if device.type == "cpu" and amp != "fp32" else ""
    yield Row("pre-training step", f"{amp} against fp32 with plain attention", times, "x", target=target)


def memory(options) -> Iterator[Row]:
    """The most memory that a pre-training step takes, model and optimiser included."""
    _, size, batch, device, amp = shape(options)
    ours = peak_memory(contenders.pretraining, shape(options), device)
    yield Row("peak memory", "pre-training, ours, SAM", ours / 2**30, "GiB")
    if options.model == "vit_base_patch16":
        theirs = peak_memory(contenders.huggingface_pretraining, (size, batch, device, amp), device)
        yield Row("peak memory", "pre-training, Hugging Face ViTMAE", theirs / 2**30, "GiB")
        yield Row("peak memory", "ours against Hugging Face", ours / theirs, "x", target="below 1")
    for masking, name in (("sam", "SAM"), ("none", "all patches")):
        needed = peak_memory(contenders.finetuning, (*shape(options), masking), device)
        yield Row("peak memory", f"fine-tuning, {name}", needed / 2**30, "GiB")


def efficiency(options) -> Iterator[Row]:
    """The models that the paper compares: operations and time of a forward pass, time and memory of a training step.

    Of MSMAE the forward pass is the masked one, as the paper counts; validation runs on all patches, as MAE's does.
    """
    names = {"ViT-B/16 (timm)": "vit_base_patch16_224", "Swin-T (timm)": "swin_tiny_patch4_window7_224"}
    names |= {"MAE fine-tuning, and validation": "none", "MSMAE fine-tuning, masked": "sam"}
    _, size, batch, device, amp = shape(options)
    for name, kind in names.items():
        call = contenders.forward("vit_base_patch16", size, 1, torch.device("cpu"), "fp32", kind)
        total = sum(flops.count(call).values())
        yield Row("efficiency, forward pass of an image", name, total / 2e9, "G multiply-adds")
    where = ("vit_base_patch16", size, batch, device, amp)
    for part, make in (("forward pass", contenders.forward), ("training step", contenders.finetuning)):
        calls = {name: make(*where, kind) for name, kind in names.items()}
        for name, timing in time_in_turn(calls, device, options.rounds, options.shortest).items():
            spread = f"{1e3 * timing.low / batch:.3g} to {1e3 * timing.high / batch:.3g}"
            yield Row(f"efficiency, {part}, time an image", name, 1e3 * timing.median / batch, "ms", spread)
        del calls
        gc.collect()
    for name, kind in names.items():
        needed = peak_memory(contenders.finetuning, (*where, kind), device)
        yield Row("efficiency, training step, peak memory", name, needed / 2**30, "GiB")


def finetune(options) -> Iterator[Row]:
    """The fine-tuning step on SAM's visible patches, on all patches, and of timm's own model."""
    steps = {
        "SAM": contenders.finetuning(*shape(options), "sam"),
        "all patches": contenders.finetuning(*shape(options), "none"),
    }
    if options.model == "vit_base_patch16":
        steps["timm's vit_base_patch16_224, all patches"] = contenders.finetuning(*shape(options), "vit_base_patch16_224")
    if options.compile:
        steps["SAM, compiled"] = contenders.finetuning(*shape(options), "sam", compiled=True)
        steps["all patches, compiled"] = contenders.finetuning(*shape(options), "none", compiled=True)
    timings = time_in_turn(steps, options.device, options.rounds, options.shortest)
    yield from rates("fine-tuning step", timings, options.batch_size)
    times = ratio(timings["all patches"], timings["SAM"])
    yield Row("fine-tuning step", "SAM against all patches", times, "x", target="at least 3.5")
    ratios = contenders.PAPERS_SAM.mask_ratio, contenders.PAPERS_SAM.throw_ratio
    least = flops.finetuning_step_flops(options.model, options.input_size)
    possible = least / flops.finetuning_step_flops(options.model, options.input_size, *ratios)
    yield Row("fine-tuning step", "SAM against all patches, by FLOPs", possible, "x")
    if options.model == "vit_base_patch16":
        times = ratio(timings["timm's vit_base_patch16_224, all patches"], timings["all patches"])
        yield Row("fine-tuning step", "ours, all patches, against timm", times, "x")


@torch.no_grad()
def inference(options) -> Iterator[Row]:
    """The refresh of a set's maps against plain forward passes; latency and throughput of inference."""
    device, precision = options.device, Precision(options.device, options.amp)
    model = create_encoder(options.model, img_size=options.input_size, num_classes=contenders.CLASSES).to(device).eval()
    batch = torch.randn(options.batch_size, 3, options.input_size, options.input_size, device=device)

    def forward(images):
        with precision():
            return model.classify(images)

    def forward_all():
        return [forward(batch) for _ in range(options.batches)]

    count, measured = options.batches * options.batch_size, ("consensus", "last")
    passes = Inference(options.input_size, options.batch_size, precision)
    with pipeline.jpeg_folder(count, 256) as root:
        images = pipeline.training_images(root, "auto", options.input_size, model.patch_size).images
        calls = {"plain forward passes, batches at hand": forward_all}
        for source in measured:
            calls[f"maps of a set of {count} images, {source}"] = partial(sources.maps, model, images, passes, source)
        timings = time_in_turn(calls, device, options.rounds, options.shortest)
    yield from rates("maps and inference", timings, count)
    plain, *maps = timings.values()
    for source, timing in zip(measured, maps, strict=True):
        times = ratio(plain, timing)
        yield Row("maps and inference", f"maps, {source}, against plain forward passes", times, "x", target="at least 1")
    for size in (1, 64):
        images = batch[:1].expand(size, -1, -1, -1).contiguous()
        timing = time_in_turn({"": partial(forward, images)}, device, options.rounds, options.shortest)[""]
        spread = f"{timing.low:.3g} to {timing.high:.3g}"
        yield Row("maps and inference", f"inference, batch of {size}: latency", timing.median, "s", spread)
        yield Row("maps and inference", f"inference, batch of {size}: throughput", size / timing.median, "images/s")


def loading(options) -> Iterator[Row]:
    """The input pipeline alone."""
    patch_size = ENCODERS[options.model]["patch_size"]
    with pipeline.jpeg_folder(options.batches * options.batch_size, 256) as root:
        for what, cache, policy in (
            ("decoded images at hand", "ram", None),
            ("decoding each time", "off", None),
            ("decoded images at hand, RandAugment", "ram", "rand-m9-mstd0.5-inc1"),
        ):
            dataset = pipeline.training_images(root, cache, options.input_size, patch_size, policy)
            timing = pipeline.loading_seconds(dataset, options.batch_size, options.num_workers, options.rounds)
            spread = f"{1 / timing.high:.4g} to {1 / timing.low:.4g}"
            yield Row("input pipeline", f"{what}, {options.num_workers} workers", 1 / timing.median, "images/s", spread)


def epoch(options) -> Iterator[Row]:
    """An epoch of pre-training from JPEG files against its steps alone."""
    files, steps = pipeline.epoch_against_steps(*shape(options), options.num_workers, options.batches, options.rounds)
    images = options.batches * options.batch_size
    yield from rates("epoch from files", {"from JPEG files": files, "its steps alone": steps}, images)
    yield Row("epoch from files", "files against steps", ratio(files, steps), "x", target="at most 1.10")


def count(options) -> Iterator[Row]:
    """FLOPs of the encoder, as the paper counts and as executed."""
    ratios = contenders.PAPERS_SAM.mask_ratio, contenders.PAPERS_SAM.throw_ratio
    for how, what in (("paper", "as the paper counts"), ("executed", "as executed")):
        whole = flops.encoder_flops(options.model, options.input_size)[how]
        part = flops.encoder_flops(options.model, options.input_size, *ratios)[how]
        yield Row("encoder, one image", f"all patches, {what}", whole / 2e9, "G multiply-adds")
        yield Row("encoder, one image", f"SAM's visible patches, {what}", part / 2e9, "G multiply-adds")
        yield Row("encoder, one image", f"saved, {what}", 100 * (1 - part / whole), "%")


def growth(options) -> Iterator[Row]:
    """How a step's cost grows with the model and with the resolution."""
    batch, device, amp = min(8, options.batch_size), options.device, options.amp
    models = [(name, 224) for name in GROWTH_MODELS]
    resolutions = [(options.model, size) for size in GROWTH_SIZES if (options.model, size) not in models]
    for name, size in models + resolutions:
        steps = {
            "pre-training, SAM": contenders.pretraining(name, size, batch, device, amp),
            "fine-tuning, SAM": contenders.finetuning(name, size, batch, device, amp, "sam"),
            "fine-tuning, all patches": contenders.finetuning(name, size, batch, device, amp, "none"),
        }
        timings = time_in_turn(steps, device, options.rounds, options.shortest)
        named = {f"{step}, {name}, {size} px": timing for step, timing in timings.items()}
        yield from rates(f"growth, batch {batch}", named, batch)
        del steps
        gc.collect()


def shared(options) -> Iterator[Row]:
    """The small model's fine-tuning beside busy processes, by how its threads wait; on the CPU, a thread a core."""
    measured = beside.rates(options.rounds, 8 * options.shortest)
    usual = statistics.median(measured["as PyTorch has it", 0])
    for (name, count), samples in measured.items():
        low, _, high = statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else samples * 3
        whole = statistics.median(measured[name, 0]) if count else usual
        share = 100 * statistics.median(samples) / whole
        goal = 80 * beside.fair_share(count) if count else 97
        what = f"{name}, beside {count} busy" if count else f"{name}, alone, against PyTorch's own"
        spread = f"{100 * low / whole:.3g} to {100 * high / whole:.3g}"
        target = f"at least {goal:.0f} %" if name == beside.OURS else ""
        yield Row("shared machine", what, share, "%", spread, target)


def startup(options) -> Iterator[Row]:
    """From a command to its answer: what ``import torch`` takes, ``--help``, and the first step of the demo's model."""
    with pipeline.jpeg_folder(64, 64) as root, tempfile.TemporaryDirectory() as output:
        small = (
            f"--data_path {root} --model msmae_vit_micro_patch8 --input_size 64 --batch_size 32 --epochs 1 --warmup_epochs 0"
        )
        commands = {
            "import torch": ["-c", "import torch"],
            "main_pretrain.py --help": ["main_pretrain.py", "--help"],
            "main_finetune.py --help": ["main_finetune.py", "--help"],
            "one epoch of two steps of the demo's model, start to end": [
                "main_pretrain.py",
                *small.split(),
                "--device",
                "cpu",
                "--output_dir",
                output,
                "--overwrite",
            ],
        }
        calls: dict[str, Callable[[], object]] = {
            name: partial(subprocess.run, [sys.executable, *command], check=True, capture_output=True)
            for name, command in commands.items()
        }
        timings = time_in_turn(calls, torch.device("cpu"), options.rounds)
    base = timings["import torch"].median
    for name, timing in timings.items():
        target = f"at most {base + 0.5:.2f}" if "help" in name else "at most 5" if "steps" in name else ""
        yield Row("start", name, timing.median, "s", f"{timing.low:.3g} to {timing.high:.3g}", target)


GROWTH_MODELS = ("vit_tiny_patch16", "vit_small_patch16", "vit_base_patch16", "vit_large_patch16")
GROWTH_SIZES = (112, 160, 224, 320, 448)
PARTS = {
    "flops": count,
    "pretrain": pretrain,
    "finetune": finetune,
    "profile": profile,
    "inference": inference,
    "pipeline": loading,
    "epoch": epoch,
    "memory": memory,
    "growth": growth,
    "efficiency": efficiency,
    "shared": shared,
    "startup": startup,
    "field": field,
}


def shape(options) -> tuple[str, int, int, torch.device, str]:
    return options.model, options.input_size, options.batch_size, options.device, options.amp


def table(rows: list[Row]) -> str:
    """Rows of one part as a Markdown table."""
    lines = [f"| {rows[0].part} | | quartiles | target |", "|---|---|---|---|"]
    lines += [f"| {row.what} | {row.value:.4g} {row.unit} | {row.spread} | {row.target} |" for row in rows]
    return "\n".join(lines)


def get_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=[part for part in PARTS if part != "efficiency"], help="what to measure"
    )
    parser.add_argument("--model", choices=ENCODERS, default="vit_base_patch16", help="the encoder")
    parser.add_argument("--input_size", type=int, default=224, help="side of the input in pixels")
    parser.add_argument("--batch_size", type=int, help="images in a batch (default: 64 on a GPU, 32 on a CPU)")
    parser.add_argument(
        "--field_batch_size", type=int, help="the same in the part 'field' (default: 32 on a GPU, 8 on a CPU)"
    )
    parser.add_argument("--batches", type=int, help="batches in sets and epochs (default: 40 on a GPU, 4 on a CPU)")
    parser.add_argument("--rounds", type=int, default=3, help="samples of each contender")
    parser.add_argument("--shortest", type=float, default=0.5, help="seconds of a sample at least")
    parser.add_argument("--num_workers", type=int, default=min(8, cores.usable()), help="loader workers")
    parser.add_argument("--device", help="cuda, cuda:N or cpu (default: cuda where there is a GPU)")
    parser.add_argument("--amp", choices=("auto", "bf16", "fp16", "fp32"), default="auto", help="number format")
    parser.add_argument("--compile", action="store_true", help="also measure steps compiled by torch.compile")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/throughput.json"), help="file for all figures")
    return parser.parse_args()


def main() -> None:
    options = get_options()
    options.device = choose_device(options.device)
    options.amp = choose_precision(options.amp, options.device)
    on_gpu = options.device.type == "cuda"
    options.batch_size = options.batch_size or (64 if on_gpu else 32)
    options.field_batch_size = options.field_batch_size or (32 if on_gpu else 8)
    options.batches = options.batches or (40 if on_gpu else 4)
    torch.manual_seed(0)
    about = environment(options.device, ("transformers",))
    settings = {name: str(value) if name in ("device", "output") else value for name, value in vars(options).items()}
    print(", ".join(f"{name} {value}" for name, value in {**about, **settings}.items()), flush=True)
    rows: list[Row] = []
    for number, part in enumerate(options.parts, 1):
        print(f"\npart {number} of {len(options.parts)}: {part}", flush=True)
        measured = list(PARTS[part](options))
        print(f"\n{table(measured)}", flush=True)
        rows += measured
        gc.collect()
        content = {"machine": about, "settings": settings, "rows": [row._asdict() for row in rows]}
        options.output.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\nwritten: {options.output}")


if __name__ == "__main__":
    run_script(main)
