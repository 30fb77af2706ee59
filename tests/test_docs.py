"""docs/from-folder-to-figure.md, followed as written: its commands in small, then its Python."""

import contextlib
import io
import re
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT
from evaluation.made_up import classifier

from util.evaluation.predictions import Predictions, write_predictions

PAGE = (ROOT / "docs" / "from-folder-to-figure.md").read_text()
BLOCKS = re.findall(r"(?:^    .*\n)+", re.sub(r"^```python.*?^```", "", PAGE, flags=re.M | re.S), re.M)
SNIPPETS = re.findall(r"^```python\n(.*?)^```\n\n((?:    [^\n]*\n)+)", PAGE, re.M | re.S)  # with what they print
SMALLER = {
    r"--train \d+ --val \d+ --size 64": "--train 120 --val 40 --size 64",
    r"--epochs \d+": "--epochs 2 --num_workers 0",
    r"--warmup_epochs \d+": "--warmup_epochs 0",
    r"--sam_epoch \d+": "--sam_epoch 0",
    r"--folds 5": "--folds 2",
}


def commands_of_the_page(folder):
    """The page's commands in small, as a shell reads them, each a list of words."""
    script = "".join(block for block in BLOCKS if block.startswith("    python ") and " DIR " not in block)
    for long, short in SMALLER.items():
        script, found = re.subn(rf"(?<!\S){long}", short, script)
        assert found, long
    recorder = """python() { printf '%s\\n' "$@" END; }\n"""
    told = subprocess.run(["bash", "-ec", recorder + script], cwd=folder, capture_output=True, text=True, check=True).stdout
    return [command.splitlines() for command in told.split("END\n")[:-1]]


def first_words(text):
    """Of each line: what a row is called, without its numbers."""
    words = (re.split(r"[\s,:]", line.strip())[0] for line in text.splitlines() if line.strip())
    return [word for word in words if not word.isdigit()]


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder in which the page was followed up to its Python, and what was printed there."""
    folder, printed = tmp_path_factory.mktemp("figure"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        for first, *rest in commands_of_the_page(folder):
            script = rest.pop(0) if first == "-m" else str(ROOT / first)
            patch.setattr(sys, "argv", [script, *rest])
            if first == "-m":
                runpy.run_module(script, run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(script, run_name="__main__")
    return folder, printed.getvalue()


def test_nothing_is_left_to_write():
    assert "INSERT" not in PAGE and len(SNIPPETS) == PAGE.count("```python") == 2


def test_the_commands_print_what_the_page_shows(followed):
    shown = [block for block in BLOCKS if not re.match(r"    (python|path,) ?", block)]
    told = {*first_words(followed[1]), *(word for _, lines in SNIPPETS for word in first_words(lines)), "B's"}
    assert len(shown) > 8 and {word for block in shown for word in first_words(block)} <= told


def test_the_commands_leave_what_the_page_speaks_of(followed):
    demo = followed[0] / "demo"
    for run in ("finetune", "scratch", "cv/fold1", "cv/fold2"):
        assert (demo / run / "test" / "reliability.png").exists()
    for name in ("folds.csv", "metrics.json", "predictions.csv", "report.html"):
        assert (demo / "cv" / name).exists()
    assert (demo / "pretrain" / "checkpoint-last-probe-split-test.json").exists()
    assert {path.name for path in demo.glob("*.csv")} == {"split.csv", "cv-fold1.csv", "cv-fold2.csv"}
    for split in ("val", "test"):
        assert (demo / "finetune" / split / "predictions.csv").exists()
    for name in ("roc.png", "confusion.png", "tsne.png", "attention.png", "metrics.json", "predictions.csv"):
        assert f"`{name}`" in PAGE and (demo / "finetune" / "test" / name).exists()


def test_the_python_about_probabilities_prints_what_the_page_shows(tmp_path, monkeypatch, capsys):
    """On made-up predictions twice as sure as they may be: two epochs leave a model that no temperature fits."""
    for seed, split in enumerate(("val", "test")):
        labels, probabilities = classifier(2000, classes=4, sharpness=2, seed=seed)
        files = [f"{number}.png" for number in range(2000)]
        found = Predictions(files, probabilities, ["base", "none", "ring", "skull"], labels)
        (tmp_path / "demo" / "finetune" / split).mkdir(parents=True)
        write_predictions(tmp_path / "demo" / "finetune" / split / "predictions.csv", found)
    monkeypatch.chdir(tmp_path)
    printed = []
    for code, shown in SNIPPETS:
        exec(code, {})
        printed.append(capsys.readouterr().out)
        assert first_words(printed[-1]) == first_words(shown)
    assert float(re.search(r"temperature.*: (.*)", printed[0])[1]) == pytest.approx(2, rel=0.1)
    before, after = map(float, re.findall(r"calibration error (.*) %", printed[0]))
    assert after < before / 2
    in_test, at_one_percent = map(float, re.findall(r"positive_predictive_value +(\S+) %", printed[1]))
    assert at_one_percent < in_test / 5
