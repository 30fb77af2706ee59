"""A stage of the ablation, one run of an entry script: its command, where it begins, what the results keep of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import main_finetune
import main_pretrain
from benchmarks.ablation.leak import leaks
from benchmarks.speed import flops
from util.system.errors import InputError
from util.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"pretraining": main_pretrain, "cells": main_finetune}
# Options of a pre-training that have no effect before SAM starts
OF_SAM = ("masking", "mask_ratio", "throw_ratio", "map", "map_temperature", "random_share")
LOOK = ("epoch", "val_top1", "map_source", "localisation", "map_gain", "map_pointing", "map_average_precision")


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

    @property
    def half(self) -> Path:
        """The checkpoint that a pre-training keeps from before SAM."""
        return self.folder / f"checkpoint-{self.settings['sam_epoch'] - 1}.pth"

    def before_sam(self) -> dict:
        return {option: value for option, value in self.settings.items() if option not in OF_SAM}

    def command(self) -> list[str]:
        """Script and options, as words."""
        start = self.start and self.start.folder / "checkpoint-last.pth"
        words = [f"{SCRIPTS[self.kind].__name__}.py"]
        for option, value in {**self.settings, "finetune": start, "output_dir": self.folder}.items():
            if value is not None:
                values = [] if value is True else value if isinstance(value, tuple) else [value]
                words += [f"--{option}", *map(str, values)]
        return words

    def args(self):
        """The options as the script understands them, its defaults among them."""
        return SCRIPTS[self.kind].get_args(self.command()[1:])


def run(stage: Stage, pretrainings: Iterable[Stage], cores: int) -> None:
    """Run a stage to its end, or go on with it; what the script prints is in ``output.txt`` of its folder.

    A new pre-training begins with the first half of another of ``pretrainings`` that did the same before SAM.
    """
    stage.folder.mkdir(parents=True, exist_ok=True)
    command = [*stage.command(), "--num_workers", str(cores if cores > 1 else 0), "--resume", "auto"]
    if stage.kind == "pretraining":
        command += ["--save_every", str(max(1, stage.settings["sam_epoch"] - 1))]
        donors = [other for other in pretrainings if other.before_sam() == stage.before_sam() and other.half.exists()]
        if donors and not (stage.folder / "checkpoint-last.pth").exists():
            begin_from(donors[0], stage)
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores)}
    with open(stage.folder / "output.txt", "a") as output:
        result = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, stdout=output, stderr=output)
    if result.returncode:
        last = (stage.folder / "output.txt").read_text().strip().splitlines()[-1:]
        raise InputError(f"{stage.folder} ended with status {result.returncode}: {''.join(last)} (see its output.txt)")


def begin_from(donor: Stage, stage: Stage) -> None:
    """Let a pre-training go on from where another one was before SAM.

    It ends as its own whole run would, on a CPU to the last bit. There are no maps yet. The checkpoint gets the options of
    the run that goes on.
    """
    content = checkpoint.load(donor.half).content
    log = (donor.folder / "log.txt").read_text().splitlines(keepends=True)
    (stage.folder / "log.txt").write_text("".join(log[: content["epoch"] + 1]))
    own = vars(stage.args())
    content["args"] |= {option: own[option] for option in (*OF_SAM, "output_dir")}
    checkpoint.save(stage.folder / "checkpoint-last.pth", **content)


def figures(stage: Stage, images: int) -> dict:
    """What the results keep of a finished stage on a number of training images."""
    log = [json.loads(line) for line in (stage.folder / "log.txt").read_text().splitlines()]
    cost = {"minutes": training_minutes(log, images), "petaflops": images * flops_of(stage.args()) / 1e15}
    shared = {"ran_on": ran_on(stage.folder), **cost}
    if stage.kind == "pretraining":
        looks = [{name: line.get(name) for name in LOOK} for line in log if "val_top1" in line]
        leak = leaks(stage.folder / "checkpoint-last.pth", stage.settings["data_path"], stage.settings["device"])
        return {**shared, "looks": looks, "leak": leak}
    last, best = log[-1], max(log, key=lambda line: line["val_top1"])
    accuracy = {"top1": last["val_top1"], "macro_auc": last["val_macro_auc"], "best_top1": best["val_top1"]}
    return {"pretraining": stage.start and stage.start.name, **shared, **accuracy}


def ran_on(folder: Path) -> str:
    """Machine, number format and versions of a run, on which its figures depend."""
    content = json.loads((folder / "run.json").read_text())
    about = content["environment"]
    machine = f"{about['cores']} x {about['processor']}" if about["device"] == "cpu" else about["device"]
    return f"{machine}, {about['precision']}, PyTorch {about['torch']}, timm {about['timm']}"


def training_minutes(log: list[dict], images: int) -> float:
    """Time that the training steps took; an epoch stopped after its last step has no rate and counts as the others' mean."""
    seconds = [images / line["images_per_second"] for line in log if line["images_per_second"]]
    return round(mean(seconds) * len(log) / 60, 2)


def flops_of(args) -> int:
    """Operations of the training steps of a run with these options, for each training image."""
    if args.model.startswith("msmae"):
        step, ratio = flops.pretraining_step_flops, args.random_mask_ratio
        without_sam = args.epochs if args.masking == "random" else min(args.sam_epoch, args.epochs)
    else:
        step, ratio = flops.finetuning_step_flops, 0.0
        without_sam = args.epochs if args.masking == "none" else args.unmasked_epochs
    model, shape = args.model.removeprefix("msmae_"), {"input_size": args.input_size or 224, "patch_size": args.patch_size}
    with_sam = step(model, mask_ratio=args.mask_ratio, throw_ratio=args.throw_ratio, **shape)
    return without_sam * step(model, mask_ratio=ratio, throw_ratio=0.0, **shape) + (args.epochs - without_sam) * with_sam
