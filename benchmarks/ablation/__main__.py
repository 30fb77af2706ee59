"""Which choice helps? Rows of both entry scripts, over seeds, on any folder of images.

    python -m benchmarks.ablation --data_path DIR --preset cpu --seeds 0 1 2

A row is a pre-training, which rows share, and a fine-tuning. What the results file holds is not run again, and a stage that
was stopped goes on where it was: the same command continues.
"""

import argparse
import json
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.ablation.rows import PRESETS, PRETRAININGS, ROWS, finetuning_settings, pretraining_settings
from benchmarks.ablation.stages import Stage, figures, run
from benchmarks.ablation.tables import tables
from benchmarks.record import ROOT, revision
from util.data.folders import open_splits
from util.data.walk import class_names, images_below
from util.system import cores
from util.system.console import time_left
from util.system.errors import InputError, run_script
from util.system.files import replacing

VALIDATION = "bilinear"  # how the scripts resize validation images; results from before that was changed say bicubic


def get_options() -> argparse.Namespace:
    rows = "".join(f"\n  {row.name}: {row.asks}" for row in ROWS)
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"rows:{rows}", formatter_class=layout)
    add = parser.add_argument
    add("--data_path", type=Path, required=True, metavar="DIR", help="as the entry scripts take it")
    add("--lesion_masks", metavar="DIR", help="masks of val/, as the entry scripts take them")
    add("--name", help="of the data set (default: its folder's)")
    add("--preset", choices=list(PRESETS), default="cpu", help="what rows have in common (default: cpu)")
    add("--pretrain_epochs", type=int, metavar="N", help="instead of the preset's")
    add("--finetune_epochs", type=int, metavar="N", help="instead of the preset's")
    add("--every", type=int, default=1, metavar="N", help="train on every Nth image of each class (default: 1)")
    add("--rows", nargs="+", default=[row.name for row in ROWS], metavar="ROW", help="some of those below (default: all)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    add("--jobs", type=int, default=1, help="stages side by side (default: 1)")
    add("--device", help="as the entry scripts take it")
    add("--work", type=Path, metavar="DIR", help="for checkpoints and logs (default: ablation/NAME)")
    add("--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="DIR", help="for figures and tables")
    options = parser.parse_args()
    if unknown := set(options.rows) - {row.name for row in ROWS}:
        raise InputError(f"--rows {min(unknown)!r}: no such row; --help lists them")
    if min(options.every, options.jobs) < 1:
        raise InputError(f"--every {options.every}, --jobs {options.jobs}: give 1 or more")
    return options


def every_nth(source: Path, part: Path, every: int) -> Path:
    """A data set of links to every Nth training image of each class, by name, and to ``val/`` and ``masks/``."""
    train = source / "train"
    images = [Path(path) for name in class_names(train) for path in images_below(train / name)[::every]]
    rest = [source / name for name in ("val", "masks") if (source / name).is_dir()]
    for path in (*images, *rest):
        link = part / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(path.resolve())
    return part


class Ablation:
    """The stages of the chosen rows and seeds, and the results file that gathers their figures."""

    def __init__(self, options: argparse.Namespace):
        name = options.name or options.data_path.resolve().name
        name += f"-every{options.every}" if options.every > 1 else ""
        pretraining, finetuning = PRESETS[options.preset]
        self.pretraining = {**pretraining, "epochs": options.pretrain_epochs or pretraining["epochs"]}
        self.finetuning = {**finetuning, "epochs": options.finetune_epochs or finetuning["epochs"]}
        epochs = self.pretraining["epochs"], self.finetuning["epochs"]
        work = (options.work or Path("ablation") / name).resolve()
        self.work = work / "-".join(map(str, (options.preset, *epochs)))  # runs of another setting lie in another folder
        data = options.data_path.resolve()
        if options.every > 1:
            data = every_nth(data, work / f"every{options.every}", options.every)
        self.shared = {"data_path": str(data), "lesion_masks": options.lesion_masks, "device": options.device}
        self.options, self.path = options, options.results / f"{name}.json"
        self.setting = {
            **{"name": name, "validation": VALIDATION, "preset": options.preset, "device": options.device},
            **{"pretrain_epochs": epochs[0], "finetune_epochs": epochs[1]},
            "images": len(open_splits(self.shared["data_path"], ("train",))[0]),
        }
        empty = {"setting": {**self.setting, "commits": []}, "pretraining": {}, "cells": {}}
        self.results = json.loads(self.path.read_text()) if self.path.exists() else empty
        then = {"validation": "bicubic"} | self.results["setting"]
        if changed := [f"{key} {then.get(key)}, now {now}" for key, now in self.setting.items() if then.get(key) != now]:
            raise InputError(f"{self.path} was made with {changed[0]}: give another --name or --results")

    def missing(self, seed: int) -> tuple[list[Stage], list[Stage]]:
        """What the results lack: pre-trainings, and the fine-tunings of the rows."""
        shared = {**self.shared, "seed": seed}
        starts = {
            name: Stage("pretraining", name, self.work, pretraining_settings(self.pretraining, name) | shared)
            for name in PRETRAININGS
        }
        rows = [
            Stage(
                "cells", row.name, self.work, finetuning_settings(self.finetuning, row) | shared, starts.get(row.pretraining)
            )
            for row in ROWS
            if row.name in self.options.rows
        ]
        missing = [row for row in rows if not self.measured(row)]
        wanted = {row.start for row in rows if row.start and (row in missing or not self.measured(row.start))}
        return [stage for stage in starts.values() if stage in wanted], missing

    def measured(self, stage: Stage) -> bool:
        return str(stage.settings["seed"]) in self.results[stage.kind].get(stage.name, {})

    def measure(self, stage: Stage) -> dict:
        run(stage, cores=max(1, cores.usable() // self.options.jobs))
        return figures(stage, self.setting["images"])

    def run(self) -> None:
        """Everything that is missing, seed after seed, ``--jobs`` stages side by side."""
        parts = [part for seed in self.options.seeds for part in self.missing(seed)]
        total, done, began = sum(map(len, parts)), 0, time.monotonic()
        print(f"{total} stages to run, {self.options.jobs} side by side; results in {self.path}", flush=True)
        with ThreadPoolExecutor(self.options.jobs) as pool:
            for part in parts:
                for stage, measured in zip(part, pool.map(self.measure, part), strict=True):
                    self.record(stage, measured)
                    done += 1
                    reached = f"top-1 {100 * measured['top1']:.2f} %, " if "top1" in measured else ""
                    left = f"{measured['minutes']:.1f} min ({time_left(time.monotonic() - began, done, total)} left)"
                    print(f"{done}/{total} {stage.folder.name}: {reached}{left}", flush=True)

    def record(self, stage: Stage, measured: dict) -> None:
        """Keep a stage's figures, unless it was measured before; the file is whole at every moment."""
        command, name = shlex.join(["python", *stage.command()]), self.setting["name"]
        masks, data = self.shared["lesion_masks"], self.shared["data_path"]
        for path, shown in ((str(self.work), "runs"), (masks, f"{name}_masks"), (data, name)):
            command = command.replace(path, shown) if path else command  # as a reader would give it
        runs = self.results[stage.kind].setdefault(stage.name, {})
        runs.setdefault(str(stage.settings["seed"]), {"command": command, **measured})
        commits = dict.fromkeys([*self.results["setting"]["commits"], revision()])
        self.results["setting"] = {**self.setting, "jobs": self.options.jobs, "commits": list(commits)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(self.results, indent=1) + "\n")
        self.path.with_suffix(".md").write_text(tables(self.results))


def main() -> None:
    ablation = Ablation(get_options())
    ablation.run()
    print(tables(ablation.results))


if __name__ == "__main__":
    run_script(main)
