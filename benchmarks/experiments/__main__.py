"""The paper's experiment as far as a CPU goes: do runs, gather the figures of those that have ended.

    python -m benchmarks.experiments --list                 # the command of each run
    python -m benchmarks.experiments --run busi-tuned-0     # do it, after the pre-training that it begins from
    python -m benchmarks.experiments                        # benchmarks/results/paper-on-cpu.json and .md from runs/

A run that was stopped goes on, and what the results hold stays.
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys

from benchmarks.experiments.cells import RUNS, Run
from benchmarks.experiments.gather import gather
from benchmarks.experiments.tables import tables
from benchmarks.record import ROOT, revision
from util.system.errors import InputError, run_script

RESULTS = ROOT / "benchmarks" / "results" / "paper-on-cpu.json"


def cpu_seconds() -> float:
    """CPU time of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def do(run: Run) -> None:
    """Do a run with one thread, or go on with it, and note the CPU time that it took."""
    folder = ROOT / "runs" / run.name
    if (folder / "ended").exists():
        return
    if run.start:
        do(RUNS[run.start])
    words = [sys.executable, *shlex.split(run.command())[1:], "--resume", "auto", "--num_workers", "0"]
    before = cpu_seconds()
    status = subprocess.run(words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
    if not folder.is_dir():
        raise InputError(f"{run.name} could not begin")
    with open(folder / "cpu.json", "a") as file:
        file.write(json.dumps({"cpu_seconds": round(cpu_seconds() - before, 1), "commit": revision()}) + "\n")
    if status:
        raise InputError(f"{run.name} ended with status {status}")
    (folder / "ended").touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="tell the commands")
    parser.add_argument("--run", choices=RUNS, metavar="NAME", help="do this run first")
    options = parser.parse_args()
    if options.list:
        return print("\n".join(f"{name}:\n    {run.command()}" for name, run in RUNS.items()))
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.run in results:
        print(f"note: the figures of {options.run} on record stay; remove its entry from {RESULTS.name} to record yours")
    if options.run:
        do(RUNS[options.run])
    for name, run in RUNS.items():
        if name not in results and (ROOT / "runs" / name / "ended").exists():
            figures = gather(ROOT / "runs" / name, ROOT / "data" / run.data, run.pretrains)
            results[name] = {"command": run.command(), **figures}
    results = {name: results[name] for name in RUNS if name in results}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(tables(results))
    print(tables(results))


if __name__ == "__main__":
    run_script(main)
