"""What to type first on a machine with a GPU: tests, speed, memory and the first epochs, in about ten minutes.

Prints what passed and what was measured, beside what the arithmetic allows, and says which files to send back.
"""

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from util.options.parser import Parser
from util.system.console import say
from util.system.errors import InputError, run_script

MADE_UP = "gpu-phantoms"  # images of ours: a name that nobody else gives
PARTS = ("pretrain", "finetune", "inference", "pipeline", "epoch")  # of benchmarks.speed, at the first batch size


class Step(NamedTuple):
    """One thing to run."""

    name: str
    command: list[str]
    limit: float  # seconds


class Outcome(NamedTuple):
    """How a step ended."""

    name: str
    ended: str
    seconds: float


def steps(options: argparse.Namespace, folder: Path) -> list[Step]:
    """The steps, in the order of what one wants to know first."""
    shape = ["--model", options.model, "--input_size", str(options.input_size), "--device", options.device]
    first, *_ = options.batch_sizes
    measured = [
        *("benchmarks.speed", *shape, "--compile", "--parts", *PARTS, "--batch_size", str(first)),
        *("--rounds", "3", "--output", str(folder / "throughput.json")),
    ]
    tests = Step("tests on the GPU", ["-m", "pytest", "-n", "0", "-q", "tests/test_cuda.py"], 120)
    listed = [tests] if options.device.startswith("cuda") else []  # without a GPU all of them would be skipped
    listed.append(Step("throughput", ["-m", *measured], 240))
    for size in options.batch_sizes:
        output = str(folder / f"memory-{size}.json")
        command = ["-m", "benchmarks.speed", *shape, "--parts", "memory", "--batch_size", str(size), "--output", output]
        listed.append(Step(f"memory at batch {size}", command, 90))
    data, training = options.data_path, ["--input_size", str(options.input_size), "--device", options.device]
    if not data:
        data = str(folder / MADE_UP)
        listed.append(
            Step("phantoms", ["-m", "util.phantom", data, "--train", "1024", "--val", "128", "--size", "224"], 120)
        )
    training += ["--data_path", data, "--epochs", "2", "--warmup_epochs", "0", "--batch_size", str(first), "--overwrite"]
    pretrained = str(folder / "pretrain")
    encoder = f"{pretrained}/checkpoint-last.pth"
    listed += [
        Step(
            "pre-training, an epoch at random and one with SAM",
            [
                "main_pretrain.py",
                "--model",
                f"msmae_{options.model}",
                *training,
                "--sam_epoch",
                "1",
                "--output_dir",
                pretrained,
            ],
            180,
        ),
        Step(
            "fine-tuning, two epochs with SAM",
            ["main_finetune.py", "--finetune", encoder, *training, "--output_dir", str(folder / "finetune")],
            180,
        ),
    ]
    return listed


def run(step: Step, log: Path) -> Outcome:
    """Run a step; what it prints goes to the terminal and to ``log`` as it comes."""
    title = f"\n== {step.name}: python {' '.join(step.command)}"
    say(title)
    start = time.monotonic()
    with (
        log.open("a") as kept,
        subprocess.Popen(
            [sys.executable, "-u", *step.command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        kept.write(f"{title}\n")
        limit = threading.Timer(step.limit, process.kill)
        limit.daemon = True  # Ctrl-C does not wait for it
        limit.start()
        for line in process.stdout or ():
            print(line, end="", flush=True)
            kept.write(line)
        process.wait()
        limit.cancel()
    seconds = time.monotonic() - start
    if process.returncode == 0:
        ended = "passed"
    else:
        in_time = seconds < step.limit
        ended = f"FAILED with exit status {process.returncode}" if in_time else f"stopped after {step.limit:.0f} s"
    return Outcome(step.name, ended, seconds)


def rates(folder: Path) -> list[str]:
    """The first epochs' images a second, by phase."""
    lines = []
    for phase in ("pretrain", "finetune"):
        log = folder / phase / "log.txt"
        epochs = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        rates = ", ".join(f"{each['images_per_second']:.0f}" for each in epochs)
        if rates:
            lines.append(f"{phase}: {rates} images/s in its epochs, files, maps and first steps included")
    return lines


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--data_path", metavar="DIR", help="images to train on, as for the scripts (default: phantoms of 224 px)"
    )
    parser.add_argument("--output_dir", default="gpu", metavar="DIR", help="folder of all files")
    parser.add_argument("--device", default="cuda", help="such as cuda:1; cpu tries this script out, with a small --model")
    parser.add_argument("--model", default="vit_base_patch16", help="the encoder")
    parser.add_argument("--input_size", type=int, default=224, help="side of the input in pixels")
    parser.add_argument(
        "--batch_sizes", type=int, nargs="+", default=[64, 256], help="of the memory table; the first is used"
    )
    options = parser.parse_args()

    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            "this PyTorch finds no GPU: check nvidia-smi and `python -c 'import torch; print(torch.version.cuda)'`"
        )
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if not options.data_path:
        shutil.rmtree(folder / MADE_UP, ignore_errors=True)  # of an earlier time
    log = folder / "gpu.txt"
    log.write_text(f"{' '.join(sys.argv)}\n")
    outcomes = [run(step, log) for step in steps(options, folder)]
    summary = [f"{'step':<52}{'ended':<32}seconds"]
    summary += [f"{each.name:<52}{each.ended:<32}{each.seconds:.0f}" for each in outcomes]
    summary += rates(folder)
    summary.append("What the arithmetic allows: the row 'share of that rate' above, and docs/gpu.md.")
    text = "\n".join(summary)
    with log.open("a") as kept:
        kept.write(f"\n{text}\n")
    say(f"\n{text}")
    say(f"send back {log} and {folder}/*.json; docs/gpu.md says where to and what was never run before")
    if any(each.ended != "passed" for each in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
