"""Pictures: made, not blank, and telling the numbers of ``metrics.json``."""

import csv
import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_FINETUNE
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks.pictures import efficiency
from models_msmae import create_autoencoder, load_model
from util import explain
from util.data.images import read_image
from util.evaluation import pictures as figures
from util.evaluation.metrics import classification_metrics
from util.evaluation.painting import stripes
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


def test_evaluation_leaves_pictures(evaluated, finetuned):
    for name in ("roc", "confusion", "reliability", "tsne", "attention"):
        assert_not_blank(evaluated / f"{name}.png")
    assert_not_blank(finetuned / "sheet-2.png")


def test_an_evaluation_in_another_format_leaves_no_picture_of_the_one_before(call, evaluated, finetuned, phantoms, tmp_path):
    folder = shutil.copytree(evaluated, tmp_path / "eval")
    command = f"main_finetune.py --eval --resume {finetuned / 'checkpoint-0.pth'} {TINY_FINETUNE} --data_path {phantoms}"
    status, _, err = call(f"{command} --output_dir {folder} --overwrite --figure_format svg")
    assert status == 0, err
    names = ("attention", "confusion", "reliability", "roc", "tsne")
    pictures = [path.name for path in folder.iterdir() if path.suffix in (".png", ".pdf", ".svg")]
    assert sorted(pictures) == [f"{name}.svg" for name in names]


def test_evaluation_names_no_file_in_its_pictures(evaluated, phantoms):
    for name in ("roc", "confusion", "reliability", "tsne", "attention"):
        assert (evaluated / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        words = " ".join(re.findall(r">([^<>]+)</(?:text|tspan)>", (evaluated / f"{name}.svg").read_text()))
        assert "val: 12 images, top-1" in words
        assert "checkpoint" not in words and evaluated.name not in words and phantoms.name not in words
        assert not any(path.stem in words for path in (phantoms / "val").rglob("*.png"))


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


def test_what_a_script_asks_and_has_no_answer(pretrained, phantoms):
    path = str(next((phantoms / "val" / "ring").iterdir()))
    for shares, words in (((0.9, 0.3), "add up to 1.2"), ((0, 0), "no patch of 16 would be masked")):
        with pytest.raises(InputError, match=words):
            explain.sam_split(torch.ones(4, 4), *shares)
    headless = create_autoencoder("msmae_vit_micro_patch8", img_size=32, num_classes=0)
    with pytest.raises(InputError, match="relevance needs a head"):
        explain.attention_map(headless, path, "relevance")


@pytest.mark.filterwarnings("error")
def test_roc_of_one_class_is_an_empty_picture():
    assert not figures.roc_figure(np.zeros(4, dtype=int), np.full((4, 2), 0.5), ["a", "b"], "one class").legends


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
            assert torch.equal(here, stripes(8))
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
