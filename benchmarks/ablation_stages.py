"""A stage of ``benchmarks.ablation``, one run of an entry script: begun where another one was, run, read for the tables."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean

import main_finetune
import main_pretrain
from benchmarks.ablation_rows import shown
from benchmarks.leak import leaks
from benchmarks.speed import flops
from util.system.errors import InputError
from util.training import checkpoint

ROOT = Path(__file__).resolve().parent.parent
OF_SAM = ("masking", "mask_ratio", "throw_ratio", "map", "map_temperature", "map_uniform", "random_share")
OF_FILES = ("output_dir", "save_every")
LOOK = ("epoch", "val_top1", "map_source", "localisation")
LOOK_OF_SAM = ("map_gain", "map_pointing", "map_average_precision")  # of the map that it draws by


def log_of(folder: Path) -> list[dict]:
    path = folder / "log.txt"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def finished(command: list[str], folder: Path) -> bool:
    epochs = int(command[command.index("--epochs") + 1])
    lines = log_of(folder)
    return (folder / "checkpoint-last.pth").exists() and bool(lines) and lines[-1]["epoch"] + 1 == epochs


def made_by(command: list[str], folder: Path, options) -> bool:
    """Whether the run that a folder holds, if any, is one of this command, whatever stopped or resumed it."""
    path = folder / "run.json"
    if not path.exists():
        return True
    made = json.loads(path.read_text())["command"][1:]
    made = made[: made.index("--resume")] if "--resume" in made else made
    return shown(made, options) == shown(command, options)


def run_stage(command: list[str], folder: Path, options) -> None:
    """Run an entry script to its end, or go on with it; what it prints is in ``output.txt`` of its folder."""
    if finished(command, folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, os.cpu_count() // options.jobs))}
    with open(folder / "output.txt", "a") as output:
        result = subprocess.run(
            [sys.executable, *command, "--resume", "auto"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    if result.returncode:
        last = (folder / "output.txt").read_text().strip().splitlines()[-1:]
        raise InputError(f"{folder.name} ended with status {result.returncode}: {''.join(last)} ({folder / 'output.txt'})")


def find_donor(command: list[str], folder: Path, others: list[tuple[list[str], Path]]) -> tuple[Path, Path] | None:
    """A pre-training of the seed that kept where it was before SAM and did the same until then: its folder, the checkpoint.

    Args:
        command, folder: of the pre-training that may begin there.
        others: commands and folders of the seed's pre-trainings.
    """
    kept_name = f"checkpoint-{main_pretrain.get_args(command[1:]).sam_epoch - 1}.pth"
    for other_command, donor in others:
        kept = donor / kept_name
        if donor != folder and kept.exists() and until_sam(other_command) == until_sam(command):
            return donor, kept
    return None


def share_first_half(command: list[str], folder: Path, others: list[tuple[list[str], Path]]) -> None:
    """Let a pre-training begin where another one of the seed was before SAM, if there is one (:func:`find_donor`).

    The result is that of the whole run, on a CPU to the last bit. The other one's maps are left out: it may have made
    them in another way.
    """
    if (folder / "checkpoint-last.pth").exists() or not (found := find_donor(command, folder, others)):
        return
    donor, kept = found
    folder.mkdir(parents=True, exist_ok=True)
    content = checkpoint.load(kept)
    lines = (donor / "log.txt").read_text().splitlines(keepends=True)
    (folder / "log.txt").write_text("".join(lines[: content["epoch"] + 1]))
    content |= dict.fromkeys(("maps", "map_entropy", "map_source"))
    checkpoint.save(folder / "checkpoint-last.pth", **content)


def until_sam(command: list[str]) -> dict:
    """The options of a pre-training that have an effect before SAM starts."""
    args = main_pretrain.get_args(command[1:])
    return {name: value for name, value in vars(args).items() if name not in (*OF_SAM, *OF_FILES)}


def ran_on(folder: Path) -> str:
    """Machine, number format and versions of a stage, on which its figures depend."""
    content = json.loads((folder / "run.json").read_text())
    about, precision = content["environment"], content["options"]["amp"]
    machine = f"{about['cores']} x {about['processor']}" if about["device"] == "cpu" else about["device"]
    return f"{machine}, {precision}, PyTorch {about['torch']}, timm {about['timm']}"


def training_minutes(lines: list[dict], images: int) -> float:
    """Time that the training steps of a run took, from the images a second of its epochs; a stop does not count.

    An epoch that was stopped after its last step has no rate of its own and counts as the others' mean.
    """
    seconds = [images / line["images_per_second"] for line in lines if line["images_per_second"]]
    return round(mean(seconds) * len(lines) / 60, 2)


def look_of(line: dict) -> dict:
    """A look at the maps from a line of the log; before SAM, what it would draw by is left out: nothing was drawn by it."""
    drawn = line if line.get("map_source") else {}
    return {name: line.get(name) for name in LOOK} | {name: drawn.get(name) for name in LOOK_OF_SAM}


def pretraining_figures(options, command: list[str], folder: Path, images: int) -> dict:
    """What the tables tell of a pre-training: accuracy of its head, where its maps look, what masking by them leaks."""
    lines = log_of(folder)
    looks = [look_of(line) for line in lines if "val_top1" in line]
    args = main_pretrain.get_args(command[1:])
    by_chance = args.epochs if args.masking == "random" else min(args.sam_epoch, args.epochs)
    encoder, shape = args.model.removeprefix("msmae_"), {"input_size": args.input_size, "patch_size": args.patch_size}
    one_by_chance = flops.pretraining_step_flops(encoder, mask_ratio=args.random_mask_ratio, throw_ratio=0.0, **shape)
    one_by_sam = flops.pretraining_step_flops(encoder, mask_ratio=args.mask_ratio, throw_ratio=args.throw_ratio, **shape)
    return {
        "command": shown(command, options),
        "ran_on": ran_on(folder),
        "minutes": training_minutes(lines, images),
        "petaflops": images * (by_chance * one_by_chance + (args.epochs - by_chance) * one_by_sam) / 1e15,
        "looks": looks,
        "leak": leaks(folder / "checkpoint-last.pth", options.data_path, options.device),
    }


def finetuning_figures(options, command: list[str], folder: Path, images: int) -> dict:
    lines = log_of(folder)
    last, best = lines[-1], max(lines, key=lambda line: line["val_top1"])
    args = main_finetune.get_args(command[1:])
    unmasked = args.epochs if args.masking == "none" else args.unmasked_epochs
    shape = {"input_size": args.input_size or 224, "patch_size": args.patch_size}
    one, hidden = (
        flops.finetuning_step_flops(args.model, mask_ratio=mask, throw_ratio=throw, **shape)
        for mask, throw in ((0.0, 0.0), (args.mask_ratio, args.throw_ratio))
    )
    return {
        "command": shown(command, options),
        "ran_on": ran_on(folder),
        "minutes": training_minutes(lines, images),
        "petaflops": images * (unmasked * one + (args.epochs - unmasked) * hidden) / 1e15,
        "top1": last["val_top1"],
        "macro_auc": last["val_macro_auc"],
        "best_top1": best["val_top1"],
        "best_epoch": best["epoch"],
        "localisation": last.get("localisation"),
    }
