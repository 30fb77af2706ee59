"""Which choice helps? Named rows of the two entry scripts, over seeds, on any folder of images.

    python -m benchmarks.ablation --data_path DIR --preset cpu --seeds 0 1 2

A row is a pre-training, which rows share, and a fine-tuning; a cell is a row with a seed. Cells that the results file holds
are not run again, and a stopped one goes on where it was: the same command continues.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from statistics import mean
from threading import Lock

import torch

import main_finetune
import main_pretrain
from benchmarks import flops
from benchmarks.ablation_rows import (
    PRESETS,
    PRETRAINING,
    ROWS,
    Row,
    finetuning_command,
    pretraining_command,
    shown,
    stage_folder,
)
from benchmarks.ablation_tables import tables
from benchmarks.leak import leaks
from util import checkpoint
from util.data import open_folders
from util.errors import InputError, run_script
from util.progress import time_left

ROOT = Path(__file__).resolve().parent.parent
LOCK = Lock()  # of the results, where stages run side by side
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
    args = main_pretrain.get_args(command[1:])
    for other_command, donor in others:
        kept = donor / f"checkpoint-{args.sam_epoch - 1}.pth"
        if donor != folder and kept.exists() and until_sam(main_pretrain.get_args(other_command[1:])) == until_sam(args):
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


def until_sam(args: argparse.Namespace) -> dict:
    """The options of a pre-training that have an effect before SAM starts."""
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


def development_split(source: Path, work: Path) -> Path:
    """A data set made of the training images alone, every fifth one held out: for choices, so that ``val/`` stays unseen."""
    folder = work / "development"
    for path in sorted((source / "train").glob("*")):
        for number, image in enumerate(sorted(path.iterdir())):
            link(image, folder / ("val" if number % 5 == 4 else "train") / path.name)
    return folder


def thinned(source: Path, work: Path, every: int) -> Path:
    """A data set with every ``every``-th training image of each class, in the order of their names, and all of ``val/``."""
    folder = work / f"every{every}"
    for path in sorted((source / "train").glob("*")):
        for image in sorted(path.iterdir())[::every]:
            link(image, folder / "train" / path.name)
    link(source / "val", folder)
    return folder


def link(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / path.name).exists():
        (folder / path.name).symlink_to(path.resolve())


class Ablation:
    """The stages still to run, in an order that finishes seed after seed, and the results file that gathers them."""

    def __init__(self, options):
        self.options, self.preset = options, PRESETS[options.preset]
        self.rows = [row for row in ROWS if not options.rows or row.name in options.rows]
        self.path = options.results / f"{options.name}.json"
        self.results = json.loads(self.path.read_text()) if self.path.exists() else {"pretraining": {}, "cells": {}}
        self.images = len(open_folders(options.data_path, ("train",))[0])
        self.started, self.done = time.monotonic(), 0
        self.leading = set()  # pre-trainings, with their seed, that others begin from

    def missing(self, seed: int) -> tuple[list[str], list[Row]]:
        """Pre-trainings and rows of a seed that the results do not hold with these very commands."""
        rows = [row for row in self.rows if not self.holds("cells", row.name, seed, self.finetuning(row, seed)[0])]
        needed = list(dict.fromkeys(row.pretraining for row in rows if row.pretraining))
        recorded = dict.fromkeys(row.pretraining for row in self.rows if row.pretraining)
        needed += [
            name
            for name in recorded
            if name not in needed and not self.holds("pretraining", name, seed, self.pretraining(name, seed)[0])
        ]
        return needed, rows

    def holds(self, kind: str, name: str, seed: int, command: list[str]) -> bool:
        found = self.results[kind].get(name, {}).get(str(seed))
        return found is not None and found["command"] == shown(command, self.options)

    def pretraining(self, name: str, seed: int) -> tuple[list[str], Path]:
        folder = stage_folder(self.options.work, "pretrain", name, str(seed))
        return pretraining_command(self.options, self.preset, name, seed, folder, (name, seed) in self.leading), folder

    def pretrainings(self, seed: int) -> list[tuple[list[str], Path]]:
        """Commands and folders of all that there are, run or not."""
        return [self.pretraining(name, seed) for name in PRETRAINING]

    def leaders(self, names: list[str], seed: int) -> dict[str, str]:
        """By pre-training, which of ``names`` does its first half: itself, another, or one that is done already."""
        first, leaders = {}, {}  # the former by what is done before SAM
        for name in names:
            command, folder = self.pretraining(name, seed)
            donor = find_donor(command, folder, self.pretrainings(seed))
            before = str(until_sam(main_pretrain.get_args(command[1:])))
            leaders[name] = name if donor else first.setdefault(before, name)
        return leaders

    def finetuning(self, row: Row, seed: int) -> tuple[list[str], Path]:
        folder = stage_folder(self.options.work, "finetune", row.name, str(seed))
        start = self.pretraining(row.pretraining, seed)[1] if row.pretraining else None
        return finetuning_command(self.options, self.preset, row, seed, folder, start), folder

    def run(self) -> None:
        """Everything that is missing; ``--jobs`` stages side by side, each once those that it goes on from are done."""
        work = {seed: self.missing(seed) for seed in self.options.seeds}
        self.total = sum(len(names) + len(rows) for names, rows in work.values())
        print(f"{self.total} stages to run, {self.options.jobs} side by side; results in {self.path}", flush=True)
        waiting = {}  # by stage: those that it goes on from
        for seed, (names, rows) in work.items():
            for name, leader in self.leaders(names, seed).items():
                waiting[self.pretrain, name, seed] = [(self.pretrain, leader, seed)] if leader != name else []
                if leader != name:
                    self.leading.add((leader, seed))
            waiting |= {(self.finetune, row, seed): [(self.pretrain, row.pretraining, seed)] for row in rows}
        running = {}  # the stage of each future
        with ThreadPoolExecutor(self.options.jobs) as pool:
            while waiting or running:
                for stage, needed in list(waiting.items()):
                    unfinished = waiting.keys() | running.values()
                    if len(running) < self.options.jobs and unfinished.isdisjoint(needed):
                        del waiting[stage]
                        run, what, seed = stage
                        running[pool.submit(run, what, seed)] = stage
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[future]
                    future.result()

    def pretrain(self, name: str, seed: int) -> None:
        command, folder = self.pretraining(name, seed)
        share_first_half(command, folder, self.pretrainings(seed))
        run_stage(command, folder, self.options)
        self.record("pretraining", name, seed, pretraining_figures(self.options, command, folder, self.images))

    def finetune(self, row: Row, seed: int) -> None:
        command, folder = self.finetuning(row, seed)
        run_stage(command, folder, self.options)
        figures = finetuning_figures(self.options, command, folder, self.images)
        self.record("cells", row.name, seed, {"pretraining": row.pretraining, **figures})

    def record(self, kind: str, name: str, seed: int, figures: dict) -> None:
        """Add figures to the results file, which is whole at every moment."""
        with LOCK:
            self.results[kind].setdefault(name, {})[str(seed)] = figures
            setting = {key: getattr(self.options, key) for key in ("name", "preset", "jobs", "development")}
            self.results["setting"] = {**setting, "images": self.images}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.results, indent=1) + "\n")
            temporary.replace(self.path)
            self.path.with_suffix(".md").write_text(tables(self.results, [row.name for row in ROWS]))
            self.done += 1
            left = time_left(time.monotonic() - self.started, self.done, self.total)
            told = f"top-1 {100 * figures['top1']:.2f} %" if "top1" in figures else "pre-trained"
            print(
                f"{self.done}/{self.total} {name}, seed {seed}: {told}, {figures['minutes']:.1f} min ({left} left)",
                flush=True,
            )


def get_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_path", type=Path, required=True, metavar="DIR", help="as the entry scripts take it")
    parser.add_argument("--lesion_masks", metavar="DIR", help="masks of val/, as the entry scripts take them")
    parser.add_argument("--name", help="of the data set (default: its folder's)")
    parser.add_argument("--preset", choices=list(PRESETS), default="cpu", help="what rows have in common (default: cpu)")
    parser.add_argument("--pretrain_epochs", type=int, metavar="N", help="instead of the preset's")
    parser.add_argument("--finetune_epochs", type=int, metavar="N", help="instead of the preset's")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="train on every Nth image of each class (default: 1)"
    )
    parser.add_argument("--rows", nargs="+", metavar="ROW", help=f"some of: {'; '.join(row.name for row in ROWS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--jobs", type=int, default=1, help="stages side by side (default: 1)")
    parser.add_argument("--device", help="as the entry scripts take it")
    parser.add_argument("--development", action="store_true", help="train and judge on parts of train/; val/ stays unseen")
    parser.add_argument("--work", type=Path, metavar="DIR", help="for checkpoints and logs (default: ablation/NAME)")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="DIR", help="for the tables"
    )
    options = parser.parse_args()
    unknown = set(options.rows or ()) - {row.name for row in ROWS}
    if unknown:
        raise InputError(f"--rows {min(unknown)!r}: no such row; --help lists them")
    if options.every < 1:
        raise InputError(f"--every {options.every}: give 1 or more")
    options.name = options.name or options.data_path.resolve().name
    options.name += f"-every{options.every}" if options.every > 1 else ""
    options.name += "-development" if options.development else ""
    options.work = (options.work or Path("ablation") / options.name).resolve()
    if options.every > 1:
        options.data_path = thinned(options.data_path, options.work, options.every)
    if options.development:
        options.data_path = development_split(options.data_path, options.work)
    options.data_path = str(options.data_path.resolve())
    return options


def main() -> None:
    options = get_options()
    torch.set_num_threads(max(1, os.cpu_count() // options.jobs))
    ablation = Ablation(options)
    ablation.run()
    print(tables(ablation.results, [row.name for row in ROWS]))


if __name__ == "__main__":
    run_script(main)
