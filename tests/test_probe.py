"""``python -m util.probe``: the features that the head reads, two classifiers on them, against slow ones; seeded."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import engine_finetune
from models_msmae import create_autoencoder
from models_vit import create_encoder
from util import probe
from util.data.folders import open_splits
from util.data.images import Images
from util.data.inference import Inference
from util.split import take
from util.system.device import Precision
from util.system.errors import run_script
from util.training import checkpoint

FP32 = Precision(torch.device("cpu"), "fp32")
SHAPE = {"img_size": 32, "num_classes": 3}


@pytest.fixture(scope="module")
def shades(tmp_path_factory):
    """Dark, middling and bright noise, 20 + 8 + 8 images of each: random features tell them apart."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("shades") / "data"
    for split, count in (("train", 20), ("val", 8), ("test", 8)):
        for name, level in (("bright", 190), ("dark", 20), ("middling", 105)):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = (level + rng.integers(0, 60, (32, 32))).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


def save(model, path, **content):
    checkpoint.save(path, model=model.state_dict(), **content)
    return path


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    torch.manual_seed(0)
    model = create_autoencoder("msmae_vit_micro_patch8", **SHAPE)
    return save(model, tmp_path_factory.mktemp("probe") / "checkpoint-last.pth", args={"model": "msmae_vit_micro_patch8"})


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["probe", *map(str, words), "--device", "cpu"])
    status = 0
    try:
        run_script(probe.main)
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()


def test_what_a_user_sees(pretrained, shades, monkeypatch, capsys):
    status, out, err = run(monkeypatch, capsys, pretrained, "--data_path", shades)
    written = pretrained.with_name("checkpoint-last-probe-data-test.json")
    assert status == 0 and f"written: {written}" in out, err
    results = json.loads(written.read_text())
    assert (results["split"], results["pool"], results["images"], results["training_images"]) == ("test", "token", 24, 60)
    assert results["k_nn"]["top1"] > 0.9 and results["linear"]["top1"] > 0.9 and results["largest_class"] == 1 / 3
    for key, title in (("k_nn", "20-NN"), ("linear", "linear probe")):
        low, high = results[key]["intervals"]["top1"]
        line = next(line for line in out.splitlines() if line.startswith(title))
        assert f"{100 * results[key]['top1']:.2f} % ({100 * low:.2f} to {100 * high:.2f})" in line and low < high <= 1
    assert results["linear"]["C"] in probe.STRENGTHS and "does not say which images it was trained on" in out
    first = written.read_text()
    run(monkeypatch, capsys, pretrained, "--data_path", shades)
    assert written.read_text() == first
    options = ("--split", "val", "--pool", "avg", "--neighbours", 3, "--seed", 1, "--output", pretrained.parent / "own.json")
    status, out, err = run(monkeypatch, capsys, pretrained, "--data_path", shades, *options)
    assert status == 0 and "the mean of the patches, 128 features" in out and "\n3-NN " in out, err
    own = json.loads((pretrained.parent / "own.json").read_text())
    assert (own["split"], own["pool"], own["seed"], own["neighbours"]) == ("val", "avg", 1, 3)
    status, out, err = run(monkeypatch, capsys, pretrained, "--data_path", shades, *options[:-2])
    assert "checkpoint-last-probe-data-val-avg-k3-seed1.json" in out and written.read_text() == first, err


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_features_are_what_the_head_reads(pool, shades, tmp_path):
    torch.manual_seed(1)
    source = save(create_encoder("vit_micro_patch8", global_pool=pool, **SHAPE), tmp_path / "c.pth", args={})
    model = probe.load_model(source)
    (files,) = open_splits(str(shades), ("test",))
    images, inference = Images(files), Inference(32, 5, FP32)
    found = probe.features_of(model, images, inference, model.global_pool)
    assert model.global_pool == pool
    assert np.allclose(found, engine_finetune.outputs(model, images, inference)[1].numpy(), atol=1e-6)
    other = probe.features_of(model, images, inference, "avg" if pool == "token" else "token")
    assert abs(found - other).max() > 0.1


def test_neighbours_vote_by_cosine():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=80)
    features = rng.normal(size=(80, 5)) + 2 * np.eye(5)[labels]
    features *= rng.uniform(0.1, 10, size=(80, 1))  # a length says nothing to a cosine
    asked = rng.normal(size=(15, 5)) + 1
    found = probe.probabilities_of(probe.nearest_neighbours(features, labels, 7), asked, 4)
    assert found.shape == (15, 4) and (found[:, 3] == 0).all()
    for row, one in zip(found, asked, strict=True):
        distance = 1 - features @ one / (np.linalg.norm(features, axis=1) * np.linalg.norm(one))
        nearest = distance.argsort()[:7]
        votes = np.bincount(labels[nearest], weights=1 / distance[nearest], minlength=4)
        assert row == pytest.approx(votes / votes.sum())
    assert probe.nearest_neighbours(features[:4], labels[:4], 20).n_neighbors == 4


def test_the_linear_probe_chooses_its_regularisation_on_training_images_alone():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 2
    features = rng.normal(size=(300, 200))  # a fit without regularisation learns noise by heart
    features[:, 0] += labels
    chosen, strength = probe.linear_probe(features, labels, ["a", "b"], None, seed=0)
    asked = rng.normal(size=(2000, 200))
    asked[:, 0] += np.arange(2000) % 2
    loose = probe.make_pipeline(probe.StandardScaler(), probe.LogisticRegression(C=100, max_iter=5000)).fit(features, labels)
    truth = np.arange(2000) % 2
    assert strength < 1 and chosen.score(asked, truth) > loose.score(asked, truth)
    assert probe.linear_probe(features, labels, ["a", "b"], None, seed=0)[1] == strength


def test_what_is_held_back_is_of_other_patients(monkeypatch):
    rng, parts = np.random.default_rng(0), []

    def recorded(*arguments):
        parts.append(take(*arguments))
        return parts[-1]

    monkeypatch.setattr(probe, "take", recorded)
    owners, labels = np.arange(60).repeat(5).astype(str), (np.arange(60) % 2).repeat(5)
    probe.linear_probe(rng.normal(size=(300, 8)), labels, ["a", "b"], owners, seed=0)
    assert len(parts[0]) == 60 and not set(owners[parts[0]]) & set(np.delete(owners, parts[0]))


def test_a_class_of_one_patient_or_image_costs_no_result(capsys):
    rng, labels = np.random.default_rng(0), np.arange(40) // 20
    features, classes = rng.normal(size=(40, 4)) + np.eye(4)[labels], ["bright", "dark"]
    owners = np.array([f"{label}-{index % 3 if label else 0}" for index, label in enumerate(labels)])
    assert probe.linear_probe(features, labels, classes, owners, seed=0)[1] in probe.STRENGTHS
    assert "chosen on images of any patient: class bright has too few patients" in capsys.readouterr().out
    classifier, strength = probe.linear_probe(features[:21], labels[:21], classes, None, seed=0)
    assert strength == 1 and classifier.classes_.tolist() == [0, 1]
    told = "note: C of the linear probe is 1, as it cannot be chosen: class dark has too few images for these shares"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("nowhere.pth --data_path {data}", ["nowhere.pth", "no such file"]),
        ("{checkpoint} --data_path nowhere", ["--data_path nowhere", "no such folder or table"]),
        ("{checkpoint} --data_path {data} --neighbours 0", ["--neighbours", "0 is outside [1, inf)"]),
        ("{checkpoint} --data_path {data} --output nowhere/x.json", ["--output nowhere/x.json", "cannot be written"]),
        ("{few} --data_path {data}", ["few.pth", "holds no ViT encoder"]),
    ],
)
def test_what_is_refused(words, told, pretrained, shades, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint.save(tmp_path / "few.pth", model={"x": torch.zeros(1)}, args={})
    words = words.format(data=shades, checkpoint=pretrained, few=tmp_path / "few.pth").split()
    status, _, err = run(monkeypatch, capsys, *words)
    assert status == 2 and all(word in err for word in told) and err.startswith("error: ") and len(err.splitlines()) == 1, (
        err
    )
