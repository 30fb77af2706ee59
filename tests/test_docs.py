"""docs/from-folder-to-figure.md, followed as written, its commands in small."""

import csv
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, run_here
from taught import teach

from util.system import child

PAGE = (ROOT / "docs" / "from-folder-to-figure.md").read_text()
BLOCKS = re.findall(r"(?:^    .*\n)+", re.sub(r"^```python.*?^```", "", PAGE, flags=re.M | re.S), re.M)
SMALLER = {
    r"--train \d+ --val \d+ --size 64": "--train 120 --val 40 --size 64",
    r"--epochs \d+": "--epochs 2 --num_workers 0 --figure_width 85",
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
    """The folder in which the page was followed, and what was printed there."""
    folder, printed = tmp_path_factory.mktemp("figure"), ""

    def run_child(words, title, log, cwd=None):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(run_here(list(words), cwd or Path.cwd()).stdout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "run", run_child)  # of a cross-validation
        for command in commands_of_the_page(folder):
            printed += run_here(command, folder).stdout
            if command[-1] == "figure/finetune":  # two epochs leave a model that no temperature fits
                best = folder / "figure" / "finetune" / "checkpoint-best.pth"
                teach(best, [str(path) for path in folder.glob("figure/phantoms/train/*/*.png")], best)
    return folder, printed


def test_nothing_is_left_to_write():
    assert "INSERT" not in PAGE and "```" not in PAGE


def test_the_commands_print_what_the_page_shows(followed):
    shown = [block for block in BLOCKS if not re.match(r"    (python|for|path,) ?", block)]
    told = {*first_words(followed[1]), "B's"}
    assert len(shown) > 8 and {word for block in shown for word in first_words(block)} <= told


def test_the_commands_leave_what_the_page_speaks_of(followed):
    figure = followed[0] / "figure"
    for run in ("finetune", "scratch", "cv/fold1", "cv/fold2"):
        assert (figure / run / "test" / "reliability.png").exists()
    for name in ("folds.csv", "metrics.json", "predictions.csv", "report.html"):
        assert (figure / "cv" / name).exists()
    assert (figure / "pretrain" / "checkpoint-last-probe-split-test.json").exists()
    assert {path.name for path in figure.glob("*.csv")} == {"split.csv", "cv-fold1.csv", "cv-fold2.csv"}
    for split in ("calibrated", "cutoff", "test"):
        assert (figure / "finetune" / split / "predictions.csv").exists()
    for name in ("roc.png", "confusion.png", "tsne.png", "attention.png", "metrics.json", "predictions.csv"):
        assert f"`{name}`" in PAGE and (figure / "finetune" / "test" / name).exists()


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_columns_are_those_of_the_page(followed):
    figure = followed[0] / "figure"
    for name in ("finetune/cutoff/predictions.csv", "predicted/predictions.csv"):
        columns = list(rows_of(figure / name)[0])
        assert {"file", "prediction", "p(skull)", "cutoff(skull)"} <= set(columns) and "`cutoff(CLASS)`" in PAGE


OUTPUTS = re.search(r"^## What the outputs hold.*?(?=^Nearly all)", PAGE, re.M | re.S)[0]


def test_the_page_says_what_each_output_holds(followed):
    """Each file that its commands leave is in the table; file names lie only where it says so."""
    table = {
        name: row.split("|")[2:4]
        for row in OUTPUTS.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([^` ]+)`", row.split("|")[1])
    }
    figure, names = followed[0] / "figure", {path.name for path in followed[0].glob("figure/phantoms/*/*/*.png")}
    written = [path for run in ("finetune", "predicted", "scratch") for path in (figure / run).rglob("*") if path.is_file()]
    assert len(written) > 20
    for path in written:
        if path.parent.name == "overlays":
            assert "overlays/" in table and path.name not in names
        elif path.suffix in (".csv", ".json", ".txt", ".html"):
            images, files = table[path.name]
            text = path.read_text()
            assert any(f"/{name}" in text for name in names) == ("yes" in files), path
            assert ("data:image" in text or "<img" in text) == ("yes" in images), path
        elif path.suffix == ".pth":
            assert not any(name.encode() in path.read_bytes() for name in names), path
