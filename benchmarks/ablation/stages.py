"""A stage of the ablation, one run of an entry script: its command, and what the results keep of it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks.ablation.leak import leaks
from benchmarks.record import ROOT, ran_on, read_lines
from util.system.errors import InputError

SCRIPTS = {"pretraining": "main_pretrain.py", "cells": "main_finetune.py"}
LOOKS = ("epoch", "val_top1", "map_source", "localisation", "map_gain", "map_pointing", "map_average_precision")


@dataclass(frozen=True, eq=False)
class Stage:
    """A pre-training ("pretraining") or the fine-tuning of a row ("cells", as a results file calls them), with a seed."""

    kind: str
    name: str
    work: Path  # the folder of all runs
    settings: dict  # options of the script, all but the folders that it begins from and writes to
    start: "Stage | None" = None  # the pre-training that a fine-tuning begins from

    @property
    def folder(self) -> Path:
        phase = "pretrain" if self.kind == "pretraining" else "finetune"
        return self.work / f"{phase}-{self.name.replace(', ', '-').replace(' ', '_')}-{self.settings['seed']}"

    def command(self) -> list[str]:
        """Script and options, as words."""
        start = self.start and self.start.folder / "checkpoint-last.pth"
        words = [SCRIPTS[self.kind]]
        for option, value in {**self.settings, "finetune": start, "output_dir": self.folder}.items():
            if value is not None:
                values = [] if value is True else value if isinstance(value, tuple) else [value]
                words += [f"--{option}", *map(str, values)]
        return words


def run(stage: Stage, cores: int) -> None:
    """Run a stage to its end, or go on with it; what the script prints is in ``output.txt`` of its folder."""
    stage.folder.mkdir(parents=True, exist_ok=True)
    command = [*stage.command(), "--num_workers", str(cores if cores > 1 else 0), "--resume", "auto"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores)}
    with open(stage.folder / "output.txt", "a") as output:
        result = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, stdout=output, stderr=output)
    if result.returncode:
        last = (stage.folder / "output.txt").read_text().strip().splitlines()[-1:]
        raise InputError(f"{stage.folder} ended with status {result.returncode}: {''.join(last)} (see its output.txt)")


def figures(stage: Stage, images: int) -> dict:
    """What the results keep of a finished stage on a number of training images."""
    log = read_lines(stage.folder / "log.txt")
    shared = {"ran_on": ran_on(stage.folder), "minutes": training_minutes(log, images)}
    if stage.kind == "pretraining":
        looks = [{name: line.get(name) for name in LOOKS} for line in log if "val_top1" in line]
        leak = leaks(stage.folder / "checkpoint-last.pth", stage.settings["data_path"], stage.settings["device"])
        return {**shared, "looks": looks, "leak": leak}
    last, best = log[-1], max(log, key=lambda line: line["val_top1"])
    accuracy = {"top1": last["val_top1"], "macro_auc": last["val_macro_auc"], "best_top1": best["val_top1"]}
    return {"pretraining": stage.start and stage.start.name, **shared, **accuracy}


def training_minutes(log: list[dict], images: int) -> float:
    """Time that the training steps took; an epoch stopped after its last step has no rate and counts as the others' mean."""
    seconds = [images / line["images_per_second"] for line in log if line["images_per_second"]]
    return round(mean(seconds) * len(log) / 60, 2)
