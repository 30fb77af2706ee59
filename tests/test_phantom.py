"""Phantoms: a class can be read from the lesion and from nothing else."""

import numpy as np
import pytest
from conftest import ROOT, run_here
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from util.phantom import CLASSES, draw_phantom, write_phantoms

SIZE, TRAIN, TEST = 32, 1200, 1200


def features(lesion: bool):
    """Pixels, quantiles and moments, row and column means, and the spectrum of phantoms as ``write_phantoms`` seeds them."""
    rows, labels = [], []
    for split, count in ((0, TRAIN), (1, TEST)):
        for index in range(count):
            image, _ = draw_phantom(CLASSES[index % 4], (0, split, index), SIZE, lesion)
            image = image.astype(float) / 255
            spectrum = np.log(np.abs(np.fft.rfft2(image))[:8, :8] + 1e-3).ravel()
            statistics = [image.mean(), image.std(), *np.quantile(image, np.linspace(0, 1, 11))]
            rows.append(np.concatenate([image.ravel(), statistics, image.mean(0), image.mean(1), spectrum]))
            labels.append(index % 4)
    return np.array(rows), np.array(labels)


def held_out_accuracy(lesion: bool) -> float:
    x, y = features(lesion)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    return model.fit(x[:TRAIN], y[:TRAIN]).score(x[TRAIN:], y[TRAIN:])


def test_without_lesions_a_class_is_not_readable():
    assert abs(held_out_accuracy(lesion=False) - 0.25) < 0.05


def test_with_lesions_it_is():
    """The same regression on the same phantoms with their lesions: the test above could fail."""
    assert held_out_accuracy(lesion=True) > 0.40


def test_without_its_lesion_the_class_leaves_no_trace():
    images = [draw_phantom(kind, (3, 0, 7), 64, lesion=False)[0] for kind in CLASSES]
    assert all(np.array_equal(images[0], image) for image in images[1:])


def test_only_the_lesion_differs():
    healthy, _ = draw_phantom("none", (3, 0, 7), 64)
    for kind in ("ring", "skull", "base"):
        image, mask = draw_phantom(kind, (3, 0, 7), 64)
        changed = np.abs(image.astype(int) - healthy) > 12
        around = np.pad(mask, 2)
        grown = np.max([np.roll(around, (i, j), (0, 1))[2:-2, 2:-2] for i in (-2, 0, 2) for j in (-2, 0, 2)], axis=0)
        assert mask.any() and changed[mask].mean() > 0.5
        assert not changed[~grown.astype(bool)].any()


@pytest.mark.parametrize("kind", ["ring", "skull", "base"])
def test_lesions_are_of_sensible_size(kind):
    areas = [draw_phantom(kind, (0, 0, seed), 64)[1].mean() for seed in range(60)]
    assert min(areas) > 0.001 and max(areas) < 0.12


def test_files(tmp_path):
    write_phantoms(tmp_path, train=8, val=4, size=24, seed=1)
    for split, count in (("train", 2), ("val", 1)):
        for kind in CLASSES:
            images = sorted((tmp_path / split / kind).iterdir())
            assert len(images) == count and Image.open(images[0]).size == (24, 24)
            masks = tmp_path / "masks" / split / kind
            assert masks.exists() == (kind != "none")
            if kind != "none":
                assert [p.name for p in sorted(masks.iterdir())] == [p.name for p in images]
                assert set(np.unique(np.array(Image.open(masks / images[0].name)))) == {0, 255}


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for words, said in (([tmp_path / "file"], "is a file"), ([tmp_path / "new", "--test", "-3"], "--test")):
        result = run_here(["-m", "util.phantom", *map(str, words)], ROOT, check=False)
        assert result.returncode == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1


def test_files_for_segmentation(tmp_path):
    write_phantoms(tmp_path, train=3, val=3, size=24, seed=1, segmentation=True)
    for split in ("train", "val"):
        folders = tmp_path / split / "images", tmp_path / split / "masks" / "0"
        names = [[path.name for path in sorted(folder.iterdir())] for folder in folders]
        assert len(names[0]) == 3 and names[0] == names[1]
        assert all(np.array(Image.open(path)).max() == 255 for path in folders[1].iterdir())


def test_the_same_seed_gives_the_same_phantom():
    assert np.array_equal(draw_phantom("ring", (1, 0, 2), 32)[0], draw_phantom("ring", (1, 0, 2), 32)[0])
    assert not np.array_equal(draw_phantom("ring", (1, 0, 2), 32)[0], draw_phantom("ring", (2, 0, 2), 32)[0])
