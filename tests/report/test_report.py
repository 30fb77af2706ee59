"""The report: whole, in one file, right on a phone, with commands that can be pasted; and tools that run from anywhere."""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html import escape, unescape
from html.parser import HTMLParser

import pytest
from conftest import ROOT, run_here, run_script

from util.report.__main__ import curves, render, training_section, whole_lines
from util.system.errors import InputError


def words_of(html):
    """What a reader sees of a piece of a page."""
    return unescape(re.sub(r"<[^>]*>", "", html))


def test_report_holds_everything_and_needs_nothing(evaluated, pretrained, finetuned, tmp_path):
    output = tmp_path / "report.html"
    result = run_script(f"util/report/__main__.py {pretrained} {finetuned} {evaluated} --output {output}", tmp_path)
    html = output.read_text()
    assert f"written: {output}" in result.stdout
    assert not re.search(r'(src|href)="(?!data:)', html) and "@import" not in html and "url(" not in html
    results = json.loads((evaluated / "metrics.json").read_text())
    for name in ("top1", "balanced_accuracy"):
        low, high = results["intervals"][name]
        assert f"{100 * results[name]:.2f} % ({100 * low:.2f} to {100 * high:.2f})" in html
    for name in ("macro_f1", "macro_auc"):
        assert f"{results[name]:.4f} (" in html
    words = words_of(html)
    assert "protocol: paper, except --model msmae_vit_micro_patch8 (paper: msmae_vit_base_patch16)" in words
    for row in results["per_class"].values():
        assert f"{row['auc']:.4f}" in html
    last = json.loads((finetuned / "log.txt").read_text().splitlines()[-1])
    assert f"{last['loss']:.4g}" in html and "mao2023msmae" in html and "main_pretrain.py" in html
    first = re.search(r"base64,([^\"]+)", html)[1]
    assert base64.b64decode(first) == (pretrained / "sheet-3.png").read_bytes()  # what the demo ends with
    assert html.count("data:image/png") == 1 + 1 + 1 + 1 + 5  # curves and a sheet of each training, five of the evaluation


def test_report_says_over_what_intervals_are_and_of_which_weights_figures_are(evaluated, tmp_path):
    folder = shutil.copytree(evaluated, tmp_path / "eval")
    words = words_of(render([folder]))
    assert "bootstrap over images, those of shares by Clopper and Pearson" in words and "has changed since" not in words
    results = json.loads((folder / "metrics.json").read_text())
    results |= {"patients": 7, "checkpoint_sha256": "0" * 64}
    (folder / "metrics.json").write_text(json.dumps(results))
    words = words_of(render([folder]))
    assert "images of 7 patients" in words and "bootstrap over patients, each with all its images" in words
    assert "Clopper" not in words and "The checkpoint has changed since" in words


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_a_panel_without_a_curve_is_left_empty(panels):
    lines = [{"epoch": epoch, "loss": 1.0, "val_top1": 0.5, "map_gain": 2.0} for epoch in range(2)]
    names = ["epoch", "loss", "val_top1", "map_gain"][: panels + 1]
    axes = curves([{name: line[name] for name in names} for line in lines]).axes
    assert [bool(axis.lines) for axis in axes] == [axis.axison for axis in axes]
    assert sum(axis.axison for axis in axes) == panels


def test_report_of_a_folder_without_a_run(tmp_path):
    result = run_here(f"util/report/__main__.py {tmp_path}", tmp_path, check=False)
    assert result.returncode == 2 and "neither metrics.json" in result.stderr and len(result.stderr.splitlines()) == 1


def test_commands_can_be_pasted(tmp_path):
    command = ["python", "main_pretrain.py", "--data_path", "my  images/it's <b> & $HOME", "--log_dir", "--odd"]
    about = {"command": command, "options": {}, "environment": {}, "phase": "pretrain"}
    (tmp_path / "run.json").write_text(json.dumps(about))
    (tmp_path / "log.txt").write_text('{"epoch": 0, "loss": 1.0}\n')
    html = render([tmp_path])
    assert shlex.split(words_of(re.search(r"<pre>(.*?)</pre>", html, re.DOTALL)[1])) == command


def test_pictures_that_a_page_cannot_hold_are_named(evaluated, tmp_path):
    for path in evaluated.iterdir():
        if path.suffix != ".png" and path.name != "roc.svg":
            shutil.copy(path, tmp_path)
    for name in ("confusion", "attention"):
        (tmp_path / f"{name}.svg").unlink()
    html = render([tmp_path])
    assert html.count("data:image/svg+xml") == 2 and "data:image/png" not in html
    assert "holds no PDF: roc.pdf, confusion.pdf, attention.pdf (" in words_of(html)


class Wide(HTMLParser):
    """Counts tables and pictures, and those of them that stand in an element of the class ``wide``."""

    def __init__(self):
        super().__init__()
        self.open, self.found, self.inside = [], 0, 0

    def handle_starttag(self, tag, attributes):
        if tag in ("table", "img"):
            self.found += 1
            self.inside += ("div", "wide") in self.open
        if tag in ("div", "table"):
            self.open.append((tag, dict(attributes).get("class")))

    def handle_endtag(self, tag):
        if tag in ("div", "table"):
            self.open.pop()


def test_what_is_wide_scrolls(evaluated, pretrained):
    html = render([pretrained, evaluated])
    page = Wide()
    page.feed(html)
    assert page.found == page.inside == 4 + 2 + 5 and ".wide { overflow-x: auto; }" in html


TOOLS = ("report/__main__", "prepare/__main__", "export/__main__", "split", "compare", "phantom", "cross_validate", "probe")


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_run_from_any_folder_by_their_path(tool, tmp_path):
    result = run_script(f"util/{tool}.py --help", tmp_path, PYTHONPATH="")
    assert "usage" in result.stdout


def test_a_tool_runs_from_any_folder_by_its_name(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "util.phantom", "made", "--train", "4", "--val", "4", "--size", "32"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert len(list((tmp_path / "made" / "train").rglob("*.png"))) == 4


def test_report_in_a_browser(evaluated, pretrained, tmp_path):
    """Phone width: nothing is wider than the screen; every picture is drawn."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    if not browser:
        pytest.skip("no Chromium here")
    output = tmp_path / "report.html"
    run_script(f"util/report/__main__.py {pretrained} {evaluated} --output {output}", tmp_path)
    probe = (
        "<script>addEventListener('load', () => { const page = document.querySelector('iframe').contentDocument;"
        "const wide = page.documentElement.scrollWidth, drawn = [...page.images].every(image => image.naturalWidth > 100),"
        "scroll = [...page.querySelectorAll('.wide')].some(each => each.scrollWidth > each.clientWidth);"
        "document.body.dataset.probe = `${wide} wide, drawn ${drawn}, scroll ${scroll}` })</script>"
    )
    frame = f'<iframe style="width: 375px; height: 800px; border: 0" srcdoc="{escape(output.read_text())}"></iframe>'
    (tmp_path / "phone.html").write_text(f"<!DOCTYPE html><body>{frame}{probe}</body>")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    command = [browser, *flags, (tmp_path / "phone.html").as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    wide, drawn, scroll = re.search(r'data-probe="(\d+) wide, drawn (\w+), scroll (\w+)"', page).groups()
    assert int(wide) <= 375 and drawn == scroll == "true"


def test_files_that_are_not_the_projects_and_metrics_cut_short(pretrained, tmp_path):
    folder = shutil.copytree(pretrained, tmp_path / "run")
    (folder / "sheet-mine.png").write_bytes(b"")
    assert "sheet-mine" not in render([folder])
    (folder / "metrics.json").write_text('{"top1": 0.')
    with pytest.raises(InputError, match=r"metrics\.json is damaged.*evaluate again"):
        render([folder])


def test_the_best_epoch_of_a_segmentation_is_the_one_that_was_chosen(tmp_path):
    values = [{"val_iou": 0.3, "val_iou_batches": 0.1}, {"val_iou": 0.2, "val_iou_batches": 0.4}]
    lines = [json.dumps({"epoch": epoch, "loss": 1.0, **each}) for epoch, each in enumerate(values)]
    (tmp_path / "log.txt").write_text("\n".join(lines) + "\n")
    for by, said in (("batch_iou", "40.00 % (epoch 1"), ("image_iou", "30.00 % (epoch 0")):
        (tmp_path / "run.json").write_text(json.dumps({"options": {"best_by": by}}))
        (note,) = training_section(tmp_path)["notes"]
        assert said in note


def test_a_log_that_a_killed_run_left_half_written(pretrained, tmp_path):
    folder = shutil.copytree(pretrained, tmp_path / "run")
    epochs = len(whole_lines((folder / "log.txt").read_text()))
    with open(folder / "log.txt", "a") as log:
        log.write('{"epoch": 9, "loss": 1.2')
    assert len(whole_lines((folder / "log.txt").read_text())) == epochs
    assert training_section(folder)["tables"]
