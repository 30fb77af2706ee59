"""Pictures and the report: made, not blank, and telling the numbers of ``metrics.json``."""

import csv
import json
import re
import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_FINETUNE, run_script
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks.pictures import efficiency
from models_msmae import create_autoencoder, load_model
from util import explain
from util.data.images import read_image
from util.evaluation import pictures as figures
from util.evaluation.metrics import classification_metrics
from util.report.__main__ import curves
from util.system.errors import InputError


def made_up(classes, images=200, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    scores = rng.random((images, classes)) + 1.5 * rng.random((images, 1)) * np.eye(classes)[labels]
    return labels, scores / scores.sum(1, keepdims=True), [f"class {n}" for n in range(classes)]


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def assert_not_blank(path):
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"), dtype=float)
    assert pixels.std() > 8 and min(pixels.shape) > 200, path


@pytest.mark.parametrize("classes", [2, 4, 40])
def test_roc(classes, tmp_path):
    labels, probabilities, names = made_up(classes)
    figure = figures.roc_figure(labels, probabilities, names, "title")
    legend = list(dict.fromkeys(line for line in texts(figure) if "AUC" in line))
    auc = [roc_auc_score(labels == n, probabilities[:, n]) for n in range(classes)]
    if classes == 2:
        assert legend == [f"class 1 (AUC {auc[1]:.4f})"]
    else:
        assert f"macro average (AUC {np.mean(auc):.4f})" in legend and len(legend) == min(classes, 6) + 1
        assert f"class {np.argmax(auc)} (AUC {max(auc):.4f})" in legend
        assert f"class {np.argmin(auc)} (AUC {min(auc):.4f})" in legend
    assert len(figure.axes[0].lines) == (1 if classes == 2 else classes + 1) + 1
    figure.savefig(tmp_path / "roc.png")
    assert_not_blank(tmp_path / "roc.png")


@pytest.mark.parametrize("classes", [2, 4, 40])
def test_confusion_and_tsne(classes, tmp_path):
    labels, probabilities, names = made_up(classes)
    confusion = classification_metrics(labels, probabilities, names)["confusion"]
    figure = figures.confusion_figure(confusion, names, "title")
    numbers = [int(text) for text in texts(figure.axes[0]) if re.fullmatch(r"\d+", text)]
    assert numbers == ([count for row in confusion for count in row] if classes <= 20 else [])
    figure.savefig(tmp_path / "confusion.png")
    features = np.concatenate([probabilities, probabilities**2], axis=1)
    figure = figures.tsne_figure(features, labels, names, "title")
    assert len(figure.axes[0].collections) == classes
    assert sum(len(each.get_offsets()) for each in figure.axes[0].collections) == 200
    figure.savefig(tmp_path / "tsne.png")
    assert_not_blank(tmp_path / "confusion.png")
    assert_not_blank(tmp_path / "tsne.png")


def test_cases_of_the_gallery():
    labels = np.array([0, 0, 1, 1, 1])
    sure = np.array([0.9, 0.6, 0.99, 0.2, 0.55])  # of the right class
    probabilities = np.where(labels[:, None] == np.arange(2), sure[:, None], 1 - sure[:, None])
    cases = figures.gallery_cases(labels, probabilities, each=2)
    assert list(cases.values()) == [[2, 0], [4, 1], [3]]


@pytest.fixture(scope="module")
def evaluated(finetuned, phantoms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation") / "eval"
    command = f"main_finetune.py --eval --resume {finetuned / 'checkpoint-last.pth'} {TINY_FINETUNE}"
    run_script(f"{command} --data_path {phantoms} --output_dir {folder}", folder.parent)
    return folder


def test_evaluation_leaves_pictures(evaluated, finetuned):
    for name in ("roc", "confusion", "reliability", "tsne", "attention"):
        assert_not_blank(evaluated / f"{name}.png")
    assert_not_blank(finetuned / "sheet-2.png")


def test_numbers_on_the_pictures_are_those_of_the_metrics(evaluated):
    """The pictures drawn anew from ``predictions.csv`` tell the figures of ``metrics.json``."""
    results = json.loads((evaluated / "metrics.json").read_text())
    classes = list(results["per_class"])
    with open(evaluated / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = np.array([classes.index(row["label"]) for row in rows])
    probabilities = np.array([[float(row[f"p({name})"]) for name in classes] for row in rows])
    legend = " ".join(texts(figures.roc_figure(labels, probabilities, classes, "title")))
    for name, row in results["per_class"].items():
        assert f"{name} (AUC {row['auc']:.4f})" in legend
    assert f"macro average (AUC {results['macro_auc']:.4f})" in legend
    counts = Counter((row["label"], row["prediction"]) for row in rows)
    assert results["confusion"] == [[counts[true, said] for said in classes] for true in classes]
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert results["top1"] == right / len(rows)


def test_picture_of_the_efficiency_shows_what_was_measured():
    content = json.loads((ROOT / "benchmarks" / "efficiency.json").read_text())
    figure = efficiency(content)
    figure.draw_without_rendering()  # which is when the names of the bars come
    shown = texts(figure)
    for row in content["rows"]:
        if row["part"].startswith("efficiency, "):
            assert f" {row['value']:.3g}" in shown and row["what"] in shown
    assert any(content["machine"]["processor"] in text for text in shown)


def test_report_holds_everything_and_needs_nothing(evaluated, pretrained, finetuned, tmp_path):
    output = tmp_path / "report.html"
    result = run_script(
        f"util/report/__main__.py {pretrained} {finetuned} {evaluated} --output {output}", tmp_path, PYTHONPATH=str(ROOT)
    )
    html = output.read_text()
    assert f"written: {output}" in result.stdout
    assert not re.search(r'(src|href)="(?!data:)', html) and "@import" not in html and "url(" not in html
    results = json.loads((evaluated / "metrics.json").read_text())
    for name in ("top1", "balanced_accuracy"):
        low, high = results["intervals"][name]
        assert f"{100 * results[name]:.2f} % ({100 * low:.2f} to {100 * high:.2f})" in html
    for name in ("macro_f1", "macro_auc"):
        assert f"{results[name]:.4f} (" in html
    assert "protocol: paper, except --model msmae_vit_micro_patch8 (paper: msmae_vit_base_patch16)" in html
    for row in results["per_class"].values():
        assert f"{row['auc']:.4f}" in html
    last = json.loads((finetuned / "log.txt").read_text().splitlines()[-1])
    assert f"{last['loss']:.4g}" in html and "mao2023msmae" in html and "main_pretrain.py" in html
    assert html.count("data:image/png") == 1 + 1 + 1 + 1 + 5  # curves and a sheet of each training, five of the evaluation


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_a_panel_without_a_curve_is_left_empty(panels):
    lines = [{"epoch": epoch, "loss": 1.0, "val_top1": 0.5, "map_gain": 2.0} for epoch in range(2)]
    names = ["epoch", "loss", "val_top1", "map_gain"][: panels + 1]
    axes = curves([{name: line[name] for name in names} for line in lines]).axes
    assert [bool(axis.lines) for axis in axes] == [axis.axison for axis in axes]
    assert sum(axis.axison for axis in axes) == panels


def test_report_of_a_folder_without_a_run(tmp_path):
    result = run_script(f"util/report/__main__.py {tmp_path}", tmp_path, check=False, PYTHONPATH=str(ROOT))
    assert result.returncode == 2 and "neither metrics.json" in result.stderr and len(result.stderr.splitlines()) == 1


def test_report_in_a_browser(evaluated, pretrained, tmp_path):
    """Phone width: nothing is wider than the screen; every picture is drawn."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    if not browser:
        pytest.skip("no Chromium here")
    output = tmp_path / "report.html"
    run_script(f"util/report/__main__.py {pretrained} {evaluated} --output {output}", tmp_path, PYTHONPATH=str(ROOT))
    probe = (
        "<script>addEventListener('load', () => { const wide = document.documentElement.scrollWidth, "
        "drawn = [...document.images].every(image => image.naturalWidth > 100); "
        "document.body.dataset.probe = `${wide} of ${innerWidth}, drawn ${drawn}` })</script>"
    )
    output.write_text(output.read_text().replace("</body>", probe + "</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--window-size=500,900", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    page = subprocess.run([browser, *flags, output.as_uri()], capture_output=True, text=True, timeout=120).stdout
    wide, width, drawn = re.search(r'data-probe="(\d+) of (\d+), drawn (\w+)"', page).groups()
    assert int(wide) <= int(width) and drawn == "true"


def test_one_image_in_a_script(pretrained, finetuned, phantoms):
    """The README's example, on both kinds of checkpoint; the reconstruction against the patches one by one."""
    path = str(next((phantoms / "val" / "ring").iterdir()))
    model = load_model(str(pretrained / "checkpoint-last.pth"))
    weights = explain.attention_map(model, path)
    assert weights.shape == (4, 4) and weights.min() >= 0 and weights.max() <= 1
    assert not torch.equal(explain.attention_map(model, path, "block3"), weights)
    assert torch.equal(*(explain.attention_map(model, path, source) for source in ("block6", "last")))
    split = explain.sam_split(weights)
    picture = explain.reconstruction(model, path, split)
    image = read_image(path).permute(1, 2, 0) / 255
    for n in range(16):
        top, left = n // 4 * 8, n % 4 * 8
        here, there = (each[top : top + 8, left : left + 8] for each in (picture, image))
        if n in split.visible:
            torch.testing.assert_close(here, there, atol=1e-5, rtol=0)
        elif n in split.thrown:
            assert (here == 0.5).all()
        else:
            assert (here - there).abs().max() > 0.01
    encoder = load_model(str(finetuned / "checkpoint-last.pth"))
    assert explain.attention_map(encoder, path, "relevance").shape == (4, 4)
    with pytest.raises(InputError, match="no decoder"):
        explain.reconstruction(encoder, path, split)
    with pytest.raises(InputError, match="no map source 'block13'"):
        explain.attention_map(encoder, path, "block13")


def test_a_checkpoint_of_mae_loads_as_a_model(tmp_path):
    source = create_autoencoder("msmae_vit_base_patch16", img_size=64, num_classes=0)
    torch.save({"model": source.state_dict()}, tmp_path / "mae.pth")
    model = load_model(str(tmp_path / "mae.pth"))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in source.state_dict().items())
