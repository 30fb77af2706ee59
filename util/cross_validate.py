"""Train and evaluate once for each fold of ``python -m util.split --folds``, and put the held-out images together.

    mkdir folds
    python -m util.split DIR --folds 5 --output folds/split.csv
    python -m util.cross_validate folds --output_dir cv -- --protocol tuned --finetune CHECKPOINT
    python -m util.cross_validate folds --output_dir cv --pretrain "--protocol tuned --epochs 100" -- --protocol tuned

Behind ``--`` stand options of main_finetune.py, which hold for every fold. A CHECKPOINT that was pre-trained on images which
a fold holds out has seen the answers; with ``--pretrain`` each fold pre-trains on its own training images instead. The same
command goes on after a stop: what is finished is not done again.
"""

import argparse
import json
import shlex
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder, called by its path

from util.data.copies import copies_in, digest, groups_of_copies
from util.data.folds import Fold, open_folds
from util.evaluation.pooling import cross_validated, folds_in_words, pool, write_results
from util.evaluation.predictions import read_predictions
from util.evaluation.results import in_words
from util.options import checks, finetuning, pretraining
from util.options.parsed import plain
from util.options.parser import Parser
from util.options.protocol import spelled
from util.system import child
from util.system.console import clock, say
from util.system.device import environment
from util.system.errors import InputError, Stopped, run_script
from util.system.text import counted, write_json
from util.system.workplace import make_writable
from util.training import checkpoint
from util.weights import history
from util.weights.sources import load_weights

OURS = ("--data_path", "--output_dir", "--resume", "--eval", "--split", "--overwrite", "--log_dir", "--start_epoch")
# options that an evaluation has too, each with its values
OF_EVALUATION = (
    *("--device", "--amp", "--batch_size", "--num_workers", "--num_classes", "--cache", "--patients"),
    *("--on_patient_leak", "--on_leak", "--on_bad_image", "--lesion_masks", "--figure_format", "--figure_width"),
)
# options that may change when a cross-validation goes on: the machine's, and those that change no figure
MAY_CHANGE = {
    *("data_path", "output_dir", "device", "num_workers", "cache", "pin_mem", "compile", "print_freq"),
    *("figure_format", "figure_width", "save_every", "keep"),
}


def get_args() -> tuple[argparse.Namespace, list[str]]:
    """Our own options, and those behind ``--``."""
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    parser = Parser((__doc__ or "").split("\n")[0])
    parser.usage = "%(prog)s FOLDS --output_dir DIR [options] -- OPTIONS OF main_finetune.py"
    parser.add_argument(
        "folds", type=Path, metavar="FOLDS", help="folder of the tables of python -m util.split --folds, or their --output"
    )
    parser.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="folder of all files")
    parser.add_argument(
        "--pretrain",
        type=shlex.split,
        metavar="OPTIONS",
        help="pre-train in each fold, on its training images alone, by these options of main_pretrain.py, in quotes; "
        "fine-tuning begins there",
    )
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="which epoch is evaluated; best: the best on val"
    )
    parser.add_argument("--ordered", action="store_true", help="classes are grades in order: adds the quadratic kappa")
    return parser.parse_args(words[:split]), words[split + 1 :]


def settle(args: argparse.Namespace, words: list[str], folds: list[Fold]) -> dict[str, dict]:
    """All options of both phases, checked as the scripts check them, so that a wrong one shows before any work."""
    for given, where in ((words, "behind --"), (args.pretrain or [], "in --pretrain")):
        for word in given:
            if word.split("=")[0] in OURS:
                raise InputError(f"{word} {where}: leave it out; each fold has its own")
            if word == "--ordered":
                raise InputError(f"{word} {where}: give it before --")
    data, train = ["--data_path", str(folds[0].table)], min(len(fold.paths("train")) for fold in folds)
    if args.pretrain is None:
        chosen = finetuning.get_args([*words, *data])
        if chosen.finetune:
            source = load_weights(chosen.finetune, weights=False)
            chosen = finetuning.get_args([*words, *data], finetuning.recorded_options(chosen, initial=source))
        checks.batches(chosen.batch_size, chosen.accum_iter, train)
        return {"finetune": plain(chosen)}
    if any(word.split("=")[0] == "--finetune" for word in words):
        raise InputError("--pretrain and --finetune: each names where fine-tuning begins; give one of them")
    pretrain = pretraining.get_args([*args.pretrain, *data])
    if pretrain.init:
        initial = load_weights(pretrain.init, weights=False)
        pretrain = pretraining.get_args([*args.pretrain, *data], pretraining.recorded_options(None, initial))
    model = {"model": pretrain.model.removeprefix("msmae_"), "patch_size": pretrain.patch_size}
    finetune = finetuning.get_args(
        [*words, *data, "--finetune", "of the fold"], {**model, "input_size": pretrain.input_size}
    )
    for name, value in model.items():
        if getattr(finetune, name) != value:
            raise InputError(
                f"{spelled(name, getattr(finetune, name))} is not what --pretrain trains, {value}: leave it out"
            )
    for options in (pretrain, finetune):
        checks.batches(options.batch_size, options.accum_iter, train)
    return {"pretrain": plain(pretrain), "finetune": plain(finetune)}


def refuse_leaks(options: dict[str, dict], folds: list[Fold]) -> None:
    """Under ``--on_leak error``, raise :class:`InputError` for copies of a fold's training images that judge its model."""
    strict = [phase for phase in options if options[phase]["on_leak"] == "error"]
    if not strict:
        return
    groups = groups_of_copies(record.path for record in folds[0].records)  # all folds hold the same images
    for fold in folds:
        copies = copies_in(groups, fold.paths("train"))
        for split in ("val", "test") if "finetune" in strict else ("val",):
            if found := [path for path in fold.paths(split) if path in copies]:
                count = counted(len(found), f"image of {split} is a copy", f"images of {split} are copies")
                example = f"{Path(found[0]).name} is {Path(copies[found[0]]).name}"
                raise InputError(
                    f"--on_leak error: {fold.table.name}: {count} of a training image ({example}); "
                    "remove one of them and make the tables anew, or give --on_leak note"
                )


def begin(args: argparse.Namespace, options: dict[str, dict], folds: list[Fold]) -> dict:
    """The account of the cross-validation, ``run.json``: begun now, or read, when the same goes on.

    Raises:
        InputError: where the folder holds a cross-validation of other tables or options, or something else.
    """
    path, settings = args.output_dir / "run.json", {"checkpoint": args.checkpoint, "ordered": args.ordered}
    tables = {fold.table.name: digest(str(fold.table)) for fold in folds}
    now = {
        "phase": "cross-validation",
        "command": ["python", "-m", "util.cross_validate", *sys.argv[1:]],
        "options": {**settings, **{f"{phase} {name}": value for phase in options for name, value in options[phase].items()}},
        "environment": environment(torch.device("cpu")),
        "tables": tables,
        "finished": {},
    }
    try:
        before = json.loads(path.read_text()) if path.is_file() else None
    except ValueError:
        before = {}
    if before is None and not (any(args.output_dir.glob("fold*")) or (args.output_dir / "metrics.json").exists()):
        return now
    if not before or before.get("phase") != "cross-validation":
        raise InputError(f"--output_dir {args.output_dir} holds something else: choose another folder")
    other = f"--output_dir {args.output_dir} holds another cross-validation"
    if before["tables"] != tables:
        raise InputError(f"{other}, of other tables: choose another folder")
    now_options = json.loads(json.dumps(now["options"]))
    for name in sorted(before["options"].keys() | now_options.keys()):
        was, new = before["options"].get(name), now_options.get(name)
        option = name.split()[-1]
        harmless = option in MAY_CHANGE or (option == "on_leak" and "drop" not in (was, new))  # drop trains on fewer images
        if was != new and not harmless:
            raise InputError(f"{other}: {name} was {was} and is {new} now; choose another folder, or go on as it began")
    return {**now, "finished": before["finished"]}


def keep(folder: Path, account: dict) -> None:
    write_json(folder / "run.json", account)


def is_finished(folder: Path) -> bool:
    """Whether a training has done all its epochs."""
    last = folder / "checkpoint-last.pth"
    if not last.is_file():
        return False
    try:
        content = checkpoint.load(last, weights=False).content
    except InputError:
        return False  # --resume auto finds an older one
    return content["epoch"] + 1 >= content["args"]["epochs"]


def is_tested(folder: Path) -> bool:
    """Whether the evaluation of a fold is there."""
    return all((folder / "test" / name).is_file() for name in ("predictions.csv", "metrics.json"))


def run_fold(args: argparse.Namespace, words: list[str], fold: Fold) -> None:
    """Pre-train if wanted, fine-tune, and evaluate on the images held out."""
    folder, data = args.output_dir / f"fold{fold.number}", ["--data_path", str(fold.table)]
    start: list[str] = []
    if args.pretrain is not None:
        start = ["--finetune", str(folder / "pretrain" / "checkpoint-last.pth")]
        train(fold, "main_pretrain.py", [*args.pretrain, *data], folder / "pretrain")
    train(fold, "main_finetune.py", [*words, *start, *data], folder / "finetune")
    more = options_of_evaluation(words)
    source = folder / "finetune" / f"checkpoint-{args.checkpoint}.pth"
    command = ["--eval", "--split", "test", "--resume", str(source), *data, *more, *(["--ordered"] if args.ordered else [])]
    script = str(child.ROOT / "main_finetune.py")
    command += ["--output_dir", str(folder / "test"), "--overwrite"]
    child.run([script, *command], f"fold {fold.number}, test", folder / "test" / "output.txt")


def options_of_evaluation(words: list[str]) -> list[str]:
    """Those of the options of a fine-tuning that its evaluation has too."""
    options = argparse.ArgumentParser(allow_abbrev=False)
    for name in OF_EVALUATION:
        options.add_argument(name, nargs="+", default=[])
    chosen = vars(options.parse_known_args(words)[0])
    if chosen["on_leak"] == ["drop"]:  # that is for training
        del chosen["on_leak"]
    return [word for name, values in chosen.items() if values for word in (f"--{name}", *values)]


def train(fold: Fold, script: str, options: list[str], folder: Path) -> None:
    if is_finished(folder):
        return say(f"fold {fold.number}, {folder.name}: finished before")
    command = [str(child.ROOT / script), *options, "--output_dir", str(folder), "--resume", "auto"]
    child.run(command, f"fold {fold.number}, {folder.name}", folder / "output.txt")


def conclude(args: argparse.Namespace, options: dict[str, dict], folds: list[Fold], remarks: list[str]) -> None:
    """Put the folds together: metrics, predictions, pictures, the table, the report."""
    folder, tests = args.output_dir, {fold.number: args.output_dir / f"fold{fold.number}" / "test" for fold in folds}
    pooled = pool([read_predictions(test) for test in tests.values()])
    of_folds = {number: json.loads((test / "metrics.json").read_text()) for number, test in tests.items()}
    source = f"fold*/finetune/checkpoint-{args.checkpoint}.pth"
    results = {
        "checkpoint": source,
        "split": f"test of {len(folds)} folds",
        **cross_validated(pooled, of_folds, args.ordered),
    }
    results["remarks"] = [*remarks, *results["remarks"]]
    pages = options["finetune"]
    written = write_results(folder, results, pooled, pages["figure_width"], pages["figure_format"])
    sections = [str(each.resolve()) for each in (folder, *tests.values())]
    report = ["-m", "util.report", *sections, "--output", str((folder / "report.html").resolve())]
    child.run(report, "report", folder / "output.txt", cwd=child.ROOT)
    say(f"\n{folds_in_words(results)}\n\nall held-out images, each judged by the model of its fold: {in_words(results)}")
    say(f"written in {folder}: {', '.join(written)}, report.html")


def main() -> None:
    args, words = get_args()
    folds = open_folds(args.folds)
    options = settle(args, words, folds)
    account = begin(args, options, folds)
    refuse_leaks(options, folds)
    remarks = []
    start = options["pretrain"]["init"] if "pretrain" in options else options["finetune"]["finetune"]
    if start:
        line = history.remark(start, [path for fold in folds for path in fold.paths("test")], "held-out images")
        advice = "" if "pretrain" in options else "; --pretrain pre-trains within each fold"
        remarks += [f"{line}{advice}"] if line else []
    make_writable(args.output_dir, "--output_dir")
    keep(args.output_dir, account)
    for line in remarks:
        say(f"note: {line}")
    for fold in folds:
        if str(fold.number) in account["finished"] and is_tested(args.output_dir / f"fold{fold.number}"):
            say(f"fold {fold.number} of {len(folds)}: finished before")
            continue
        began, whole = time.monotonic(), not (args.output_dir / f"fold{fold.number}").exists()
        try:
            run_fold(args, words, fold)
        except (Stopped, KeyboardInterrupt) as stop:
            say(f"stopped in fold {fold.number}; the same command goes on")
            raise (stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)) from None
        seconds = time.monotonic() - began
        account["finished"][str(fold.number)] = seconds if whole else None  # a fold that was stopped tells no time
        keep(args.output_dir, account)
        known = [each for each in account["finished"].values() if each]
        left = len(folds) - len(account["finished"])
        estimate = clock(sum(known) / len(known) * left) if known else "?"
        say(f"fold {fold.number} of {len(folds)} is finished, after {clock(seconds)}; {estimate} left")
    conclude(args, options, folds, remarks)


if __name__ == "__main__":
    run_script(main)
