"""``python -m util.cross_validate`` as a user runs it, stopped once on the way; what it refuses; who saw held-out images."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, TINY_FINETUNE, TINY_PRETRAIN
from sklearn.metrics import accuracy_score, roc_auc_score

from util import cross_validate, split
from util.data.folds import open_folds
from util.data.tables import write_table
from util.evaluation.intervals import intervals
from util.evaluation.predictions import read_predictions
from util.system import child
from util.system.errors import InputError, Stopped, run_script
from util.training import checkpoint
from util.weights import history

PRETRAIN = f"{TINY_PRETRAIN} --epochs 1 --warmup_epochs 0"
FINETUNE = f"{TINY_FINETUNE} --epochs 1 --warmup_epochs 0"
TABLES = ("split-fold1.csv", "split-fold2.csv")


def call(main, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["tool", *map(str, words)])
    try:
        run_script(main)
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture(scope="module")
def folds(phantoms, tmp_path_factory):
    """The folder of two folds of 36 phantoms of 20 patients, made by ``python -m util.split``."""
    folder = tmp_path_factory.mktemp("folds") / "tables"
    folder.mkdir()
    rows = [
        (file.relative_to(phantoms), f"{kind}{index // 2}")
        for kind in ("base", "none", "ring", "skull")
        for index, file in enumerate(sorted(phantoms.glob(f"[tv]*/{kind}/*")))
    ]
    write_table(folder.parent / "patients.csv", ["path", "patient"], rows)
    with pytest.MonkeyPatch.context() as patch:
        options = ("--folds", 2, "--shares", 0.5, 0.5, "--patients", folder.parent / "patients.csv")
        assert call(split.main, patch, phantoms, *options, "--output", folder / "split.csv") == 0
    return folder


def start(folds, cwd):
    """The command, its own options and those of both scripts."""
    words = ["-m", "util.cross_validate", str(folds), "--output_dir", "cv", "--pretrain", PRETRAIN, "--", *FINETUNE.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words]
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def finished(folds, tmp_path_factory):
    """The folder of a cross-validation that was stopped in its second fold and went on, and what both starts printed."""
    cwd, first = tmp_path_factory.mktemp("cv"), ""
    with start(folds, cwd) as process:
        for line in process.stdout:
            first += line
            if line.startswith("fold 2, pretrain: device"):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 143, first
    with start(folds, cwd) as process:
        second = process.stdout.read()
    assert process.returncode == 0, second
    return cwd / "cv", first, second


def test_it_goes_on_after_a_stop(finished):
    _, first, second = finished
    assert "fold 1 of 2 is finished" in first and first.rstrip().endswith("stopped in fold 2; the same command goes on")
    assert "fold 1 of 2: finished before" in second and "fold 2 of 2 is finished" in second and "; 0:00:00 left" in second
    assert "fold 1, " not in second and "fold 2, finetune: epoch 0 of 1" in second


def test_each_fold_sees_its_own_images_alone(finished, folds):
    for number, table in enumerate(TABLES, start=1):
        options = {phase: json.loads((finished[0] / f"fold{number}" / phase / "run.json").read_text())["options"]
                   for phase in ("pretrain", "finetune", "test")}  # fmt: skip
        assert all(each["data_path"] == str(folds / table) for each in options.values())
        assert options["finetune"]["finetune"] == f"cv/fold{number}/pretrain/checkpoint-last.pth"
        assert options["test"]["resume"] == f"cv/fold{number}/finetune/checkpoint-best.pth"
        assert options["test"]["split"] == "test" and options["test"]["device"] == "cpu"


def test_the_pooled_figures_are_those_of_all_held_out_images(finished, phantoms):
    folder, _, out = finished
    results, pooled = json.loads((folder / "metrics.json").read_text()), read_predictions(folder)
    assert sorted(pooled.files) == sorted(
        str(path.resolve()) for path in phantoms.glob("*/*/*") if path.parts[-3] != "masks"
    )
    parts = [read_predictions(folder / f"fold{number}" / "test") for number in (1, 2)]
    predictions = pooled.probabilities.argmax(1)
    assert (predictions == np.concatenate([part.probabilities.argmax(1) for part in parts])).all()
    assert results["top1"] == pytest.approx(accuracy_score(pooled.truth, predictions))
    auc = np.mean([roc_auc_score(pooled.truth == index, pooled.probabilities[:, index]) for index in range(4)])
    assert results["macro_auc"] == pytest.approx(auc)
    assert len(set(pooled.patients)) == 20
    by_patient, by_image = (
        intervals(pooled.truth, pooled.probabilities, pooled.classes, patients)["top1"]
        for patients in (pooled.patients, None)
    )
    assert results["intervals"]["top1"] == pytest.approx(by_patient) != by_image
    for name in ("top1", "macro_auc"):
        values = [json.loads((folder / f"fold{k}" / "test" / "metrics.json").read_text())[name] for k in (1, 2)]
        assert [fold[name] for fold in results["folds"]] == values
        spread = results["over_folds"][name]
        assert spread["mean"] == pytest.approx(np.mean(values))
        assert spread["standard_deviation"] == pytest.approx(np.std(values, ddof=1))
        assert spread["lowest"] == [1 + int(np.argmin(values)), min(values)] and spread["highest"][1] == max(values)
    low, high = results["intervals"]["top1"]
    assert f"top-1               {100 * results['top1']:.2f} % ({100 * low:.2f} to {100 * high:.2f})" in out
    with open(folder / "folds.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["fold"] for row in rows] == ["1", "2", "mean", "std. deviation"]
    assert rows[2]["top-1"] == f"{100 * results['over_folds']['top1']['mean']:.2f} %"
    report = (folder / "report.html").read_text()
    assert "cross-validation: cv" in report and "std. deviation" in report and rows[2]["top-1"] in report
    assert all((folder / f"{name}.png").stat().st_size > 10_000 for name in ("roc", "confusion", "reliability"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("{folds} -- --epochs 0", ["--epochs"]),
        ("{folds} -- --data_path x", ["--data_path behind --", "leave it out"]),
        ("{folds} -- --ordered", ["--ordered", "give it before --"]),
        ("{folds} -- --finetune nowhere.pth", ["nowhere.pth", "no such file"]),
        ("{folds} -- --model vit_micro_patch8 --input_size 32 --batch_size 64", ["--batch_size 64", "training images"]),
        ("{folds} --pretrain=--finetune=x -- ", ["--finetune"]),
        ("{folds} --pretrain=--epochs=1 -- --finetune x.pth", ["--pretrain and --finetune"]),
        ("{folds} --pretrain=--model=msmae_vit_micro_patch8 -- --model vit_tiny_patch16", ["--model vit_tiny_patch16"]),
        ("{folds}/split-fold1.csv --pretrain=--resume=auto --", ["--resume=auto in --pretrain"]),
        ("{folds}/nothing.csv --", ["nothing.csv", "no tables of folds", "--output"]),
        ("{folds}/.. --", ["no tables of folds", "python -m util.split"]),
        ("{copy}/two --", ["holds the folds of other, split", "other.csv"]),
        ("{copy}/twice --", ["is in test in 2 folds", "not what python -m util.split --folds writes"]),
        ("{copy}/more --", ["is not in both split-fold1.csv and split-fold2.csv"]),
        ("{copy}/foreign --", ["split-fold2.csv", "no column split"]),
    ],
)
def test_what_is_refused(options, words, folds, phantoms, tmp_path, monkeypatch, capsys):
    for name in ("two", "twice", "more", "foreign"):
        (tmp_path / name).mkdir()
        for table in TABLES:
            with open(folds / table, newline="") as file:
                columns, *rows = csv.reader(file)
            rows = [[str((folds / row[0]).resolve()), *row[1:]] for row in rows]
            second = table == TABLES[1]
            if name == "twice":
                rows = [[*row[:2], "test" if second and row[2] == "val" else row[2], row[3]] for row in rows]
                spare = {row[1]: row for row in rows if row[2] == "train"}
                rows = [[*row[:2], "val" if second and row in spare.values() else row[2], row[3]] for row in rows]
                rows = [[*row[:3], row[0]] for row in rows]  # each image a patient of its own
            if name == "more" and second:
                rows = rows[1:]
            if name == "foreign" and second:
                columns = ["path", "label", "part", "patient"]
            write_table(tmp_path / name / table, columns, rows)
            if name == "two":
                write_table(tmp_path / name / table.replace("split", "other"), columns, rows)
    monkeypatch.chdir(tmp_path)
    own, _, behind = f"{options} ".format(folds=folds, copy=tmp_path).rpartition(" -- ")
    status = call(cross_validate.main, monkeypatch, *own.split(), "--output_dir", "cv", "--", *behind.split())
    out, err = capsys.readouterr()
    assert status == 2 and len(err.splitlines()) == 1 and all(word in err for word in words), out + err
    assert not (tmp_path / "cv").exists()


def test_it_does_not_go_on_with_something_else(finished, folds, tmp_path, monkeypatch, capsys):
    before = (finished[0] / "run.json").read_text()
    words = [folds, "--output_dir", finished[0], "--pretrain", PRETRAIN, "--", *FINETUNE.split()]
    assert call(cross_validate.main, monkeypatch, *words, "--epochs", 2) == 2
    assert "finetune epochs was 1 and is 2 now" in capsys.readouterr().err
    assert call(cross_validate.main, monkeypatch, folds, "--output_dir", finished[0] / "fold1" / "test", *words[3:]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (finished[0] / "run.json").read_text() == before


def test_a_fold_that_was_removed_is_done_again(finished, folds, tmp_path, monkeypatch):
    folder, commands = Path(shutil.copytree(finished[0], tmp_path / "cv")), []
    shutil.move(folder / "fold2", tmp_path / "fold2")

    def run(words, *_, **__):
        commands.append(words)
        if "--eval" in words:
            shutil.copytree(tmp_path / "fold2" / "test", folder / "fold2" / "test")

    monkeypatch.setattr(child, "run", run)
    words = [folds, "--output_dir", folder, "--pretrain", PRETRAIN, "--", *FINETUNE.split()]
    assert call(cross_validate.main, monkeypatch, *words) == 0
    scripts = [Path(next(word for word in words if str(word).endswith(".py"))).name for words in commands[:-1]]
    assert scripts == ["main_pretrain.py", "main_finetune.py", "main_finetune.py"]


def test_what_changes_no_figure_may_change_and_reaches_evaluations_and_pictures(finished, folds, tmp_path, monkeypatch):
    folder, commands = Path(shutil.copytree(finished[0], tmp_path / "cv")), []
    account = json.loads((folder / "run.json").read_text())
    del account["finished"]["2"]
    (folder / "run.json").write_text(json.dumps(account))
    monkeypatch.setattr(child, "run", lambda words, *_, **__: commands.append(words))
    changed = [
        "--on_leak",
        "error",
        "--figure_format",
        "svg",
        "png",
        "--figure_width",
        "100",
        "--save_every",
        "7",
        "--keep",
        "2",
    ]
    words = [folds, "--output_dir", folder, "--pretrain", PRETRAIN, "--", *FINETUNE.split(), *changed]
    assert call(cross_validate.main, monkeypatch, *words) == 0
    (evaluation,) = [" ".join(words) for words in commands if "--eval" in words]
    assert "--on_leak error" in evaluation and "--figure_format svg png --figure_width 100" in evaluation
    for name in ("roc", "confusion", "reliability"):
        assert 'width="283.' in (folder / f"{name}.svg").read_text()  # points, which are 100 mm
    assert call(cross_validate.main, monkeypatch, *words, "--on_leak", "drop") == 2
    assert cross_validate.options_of_evaluation(["--on_leak", "drop", "--amp", "fp32"]) == ["--amp", "fp32"]


def test_copies_are_refused_before_any_training(folds, tmp_path, monkeypatch, capsys):
    tables = {}
    for table in TABLES:
        with open(folds / table, newline="") as file:
            columns, *rows = csv.reader(file)
        tables[table] = {str((folds / row[0]).resolve()): row[1:] for row in rows}
    first, second = tables.values()
    original = next(path for path, row in first.items() if row[1] == "test")
    copy = str(shutil.copy(original, tmp_path / "copy.png"))
    for part, table in zip(("train", "test"), (first, second), strict=True):
        table[copy] = [table[original][0], part, "another"]
    for table, rows in tables.items():
        write_table(tmp_path / table, columns, [[path, *row] for path, row in rows.items()])
    monkeypatch.setattr(child, "run", lambda *_, **__: pytest.fail("it began"))
    words = [tmp_path, "--output_dir", tmp_path / "cv", "--", *FINETUNE.split(), "--on_leak", "error"]
    assert call(cross_validate.main, monkeypatch, *words) == 2
    told = f"--on_leak error: {TABLES[0]}: 1 image of test is a copy of a training image ({Path(original).name} is copy.png)"
    assert told in capsys.readouterr().err and not (tmp_path / "cv").exists()


def seen_by(path, judged):
    return history.seen(judged, history.history(path))


def test_a_checkpoint_that_saw_held_out_images_is_told(finished, folds, tmp_path, monkeypatch, capsys):
    """The first fold's pre-training has seen what the second fold holds out, under the same names or as copies."""
    source = finished[0] / "fold1" / "pretrain" / "checkpoint-last.pth"
    first, second = open_folds(folds)
    held_out = {str(Path(path).resolve()) for path in second.paths("test")}
    told, seen = history.remark(source, second.paths("test"), "test images"), seen_by(source, second.paths("test"))
    assert seen == held_out & set(first.paths("train")) and 0 < len(seen) < len(held_out)
    assert told.startswith(
        f"LEAK: {source} was trained on {len(seen)} of the {len(held_out)} test images, with their labels"
    )
    assert history.remark(source, first.paths("test"), "test images") == "" and not seen_by(source, first.paths("test"))
    copies = []
    for index, path in enumerate(second.paths("test")):
        copies.append(shutil.copy(path, tmp_path / f"{index}.png"))
    assert len(seen_by(source, copies)) == len(seen)
    finetuned = finished[0].parent / "cv" / "fold1" / "finetune" / "checkpoint-last.pth"
    monkeypatch.chdir(finished[0].parent)  # --finetune was given relative to this folder
    assert seen_by(finetuned, second.paths("test")) == seen

    def stop(words, title, *_, **__):
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(child, "run", stop)
    options = ["--finetune", source, *FINETUNE.split()]
    assert call(cross_validate.main, monkeypatch, folds, "--output_dir", tmp_path / "cv", "--", *options) == 143
    out, _ = capsys.readouterr()
    everything = len(first.paths("train"))
    assert f"note: LEAK: {source} was trained on {everything} of the 36 held-out images, with their labels" in out
    assert "--pretrain pre-trains within each fold" in out


def test_what_a_checkpoint_does_not_tell_is_said(finished, tmp_path):
    source = finished[0] / "fold1" / "pretrain" / "checkpoint-last.pth"
    content = checkpoint.load(source).content
    for name, changes, words in (
        ("moved", {"args": {**content["args"], "data_path": "gone/split.csv"}}, "gone/split.csv, are not at hand"),
        ("foreign", {"args": {}}, "does not say which images"),
    ):
        checkpoint.save(tmp_path / f"{name}.pth", **{**content, **changes})
        told = history.remark(tmp_path / f"{name}.pth", ["x.png"], "test images")
        assert words in told and "the figures look too good" in told and "LEAK" not in told


def test_what_pre_training_began_from_is_history_too(finished, folds, tmp_path):
    """Also where it began from a folder of another library's."""
    source = finished[0] / "fold1" / "pretrain" / "checkpoint-last.pth"
    held_out = open_folds(folds)[1].paths("test")
    expected = seen_by(source, held_out)
    content = checkpoint.load(source).content
    for start, seen, words in (
        (str(source), expected, "LEAK"),
        ("gone.pth", set(), "not at hand"),
        ("timm:no", set(), "not at hand"),
        (str(tmp_path / "next.pth"), set(), "not at hand"),  # it was written over what it began from
    ):
        checkpoint.save(
            tmp_path / "next.pth", **{**content, "args": {**content["args"], "init": start, "data_path": str(tmp_path)}}
        )
        assert seen_by(tmp_path / "next.pth", held_out) == seen
        assert words in history.remark(tmp_path / "next.pth", held_out, "test images")


def test_a_child_that_fails_is_one_line(tmp_path, capsys):
    (tmp_path / "fails.py").write_text("print('begins')\nraise SystemExit('error: --x is wrong')")
    with pytest.raises(InputError, match=r"fold 1 ended with status 1: --x is wrong \(all it said: .*log.txt\)"):
        child.run([str(tmp_path / "fails.py")], "fold 1", tmp_path / "deep" / "log.txt")
    assert capsys.readouterr().out == "fold 1: begins\nfold 1: error: --x is wrong\n"
    assert (tmp_path / "deep" / "log.txt").read_text() == "begins\nerror: --x is wrong\n"
