"""Which choice helps? Named rows of the two entry scripts, over seeds, on any folder of images.

    python -m benchmarks.ablation --data_path DIR --preset cpu --seeds 0 1 2

A row is a pre-training, which rows share, and a fine-tuning; a cell is a row with a seed. Cells that the results file holds
are not run again, and a stopped one goes on where it was: the same command continues. A results file and a work folder are
of one setting: another preset or number of epochs wants another ``--results`` (or ``--name``) and ``--work``.
"""

import argparse
import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from threading import Lock

import torch

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
from benchmarks.ablation_stages import (
    ROOT,
    find_donor,
    finetuning_figures,
    made_by,
    pretraining_figures,
    run_stage,
    share_first_half,
    until_sam,
)
from benchmarks.ablation_tables import tables
from util.data.loading import open_folders
from util.system.console import time_left
from util.system.errors import InputError, run_script

LOCK = Lock()  # of the results, where stages run side by side


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
        """Pre-trainings and rows of a seed that the results do not hold."""
        rows = [row for row in self.rows if not self.holds("cells", row.name, seed)]
        needed = list(dict.fromkeys(row.pretraining for row in rows if row.pretraining))
        recorded = dict.fromkeys(row.pretraining for row in self.rows if row.pretraining)
        needed += [name for name in recorded if name not in needed and not self.holds("pretraining", name, seed)]
        return needed, rows

    def holds(self, kind: str, name: str, seed: int) -> bool:
        return str(seed) in self.results[kind].get(name, {})

    def recorded_commands(self) -> Iterator[tuple[str, str]]:
        """Of every stage in the results file: the command that it holds, and the one that it would have now."""
        stages = {("pretraining", name): partial(self.pretraining, name) for name in PRETRAINING}
        stages |= {("cells", row.name): partial(self.finetuning, row) for row in ROWS}
        for (kind, name), stage in stages.items():
            for seed, figures in self.results[kind].get(name, {}).items():
                yield figures["command"], shown(stage(int(seed))[0], self.options)

    def check(self, work: dict[int, tuple[list[str], list[Row]]]) -> None:
        """Raise :class:`InputError` where the results, or folders of stages to run, were made with other options."""
        for then, now in self.recorded_commands():
            if then != now:
                there, here = (set(re.split(" (?=--)", command)) for command in (then, now))
                raise InputError(
                    f"{self.path} has figures of other options ({' '.join(sorted(there - here))}; now "
                    f"{' '.join(sorted(here - there))}), which would stand in one table with these: give another --results "
                    "or --name"
                )
        for seed, (names, rows) in work.items():
            stages = [self.pretraining(name, seed) for name in names] + [self.finetuning(row, seed) for row in rows]
            for command, folder in stages:
                if not made_by(command, folder, self.options):
                    raise InputError(f"{folder} holds a run of other options: give another --work, or remove it")

    def pretraining(self, name: str, seed: int) -> tuple[list[str], Path]:
        folder = stage_folder(self.options.work, "pretrain", name, str(seed))
        return pretraining_command(self.options, self.preset, name, seed, folder, (name, seed) in self.leading), folder

    def pretrainings(self, seed: int) -> list[tuple[list[str], Path]]:
        """Commands and folders of all that there are, run or not, but for those whose folder is of other options."""
        stages = [self.pretraining(name, seed) for name in PRETRAINING]
        return [(command, folder) for command, folder in stages if made_by(command, folder, self.options)]

    def leaders(self, names: list[str], seed: int) -> dict[str, str]:
        """By pre-training, which of ``names`` does its first half: itself, another, or one that is done already."""
        first, leaders = {}, {}  # the former by what is done before SAM
        others = self.pretrainings(seed)
        for name in names:
            command, folder = self.pretraining(name, seed)
            donor = find_donor(command, folder, others)
            before = str(until_sam(command))
            leaders[name] = name if donor else first.setdefault(before, name)
        return leaders

    def finetuning(self, row: Row, seed: int) -> tuple[list[str], Path]:
        folder = stage_folder(self.options.work, "finetune", row.name, str(seed))
        start = self.pretraining(row.pretraining, seed)[1] if row.pretraining else None
        return finetuning_command(self.options, self.preset, row, seed, folder, start), folder

    def run(self) -> None:
        """Everything that is missing; ``--jobs`` stages side by side, each once those that it goes on from are done."""
        work = {seed: self.missing(seed) for seed in self.options.seeds}
        self.check(work)
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
            pretrainings = self.results["pretraining"].items()  # in one order, whichever was done first
            self.results["pretraining"] = dict(sorted(pretrainings, key=lambda item: (*PRETRAINING, item[0]).index(item[0])))
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
