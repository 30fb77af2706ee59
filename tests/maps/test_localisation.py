"""Figures of merit against counts by hand; localisation on maps whose answer is known."""

import numpy as np
import pytest
import torch
from PIL import Image

from util.data.folders import open_splits
from util.data.images import Images
from util.evaluation.intervals import intervals
from util.evaluation.metrics import classification_metrics
from util.evaluation.table import metrics_table
from util.maps.localisation import find_masks, localisation, measure
from util.system.errors import InputError


def test_figures_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 2])
    probabilities = np.full((6, 3), 0.1)
    probabilities[np.arange(6), predicted] = 0.8
    results = classification_metrics(labels, probabilities, ["a", "b", "c"])
    assert results["top1"] == pytest.approx(4 / 6)
    assert results["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert results["per_class"]["a"]["sensitivity"] == pytest.approx(2 / 3)
    assert results["per_class"]["a"]["specificity"] == pytest.approx(2 / 3)
    assert results["per_class"]["b"]["specificity"] == pytest.approx(3 / 4)
    f1 = [2 * 2 / (3 + 3), 2 * 1 / (2 + 2), 1.0]
    assert results["macro_f1"] == pytest.approx(np.mean(f1))
    assert results["per_class"]["c"]["auc"] == 1.0
    assert results["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    lines = metrics_table(results, intervals(labels, probabilities, ["a", "b", "c"]))
    assert "top-1               66.67 % (" in lines and "6 images; in brackets 95 % intervals" in lines


def test_two_classes():
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    results = classification_metrics(np.array([0, 0, 1, 1]), np.stack([1 - scores, scores], axis=1), ["no", "yes"])
    assert results["macro_auc"] == pytest.approx(0.75)
    yes = results["per_class"]["yes"]
    assert [yes[name] for name in ("images", "sensitivity", "specificity", "auc")] == [2, 0.5, 1.0, pytest.approx(0.75)]


def test_localisation_of_known_maps():
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    masks[:2, 8:16, 16:24] = True  # the third image has no lesion and does not count
    uniform = localisation(torch.ones(3, 4, 4), masks)
    assert uniform["gain"] == pytest.approx(1) and uniform["images"] == 2
    assert uniform["chance"] == pytest.approx(64 / 1024)
    hit = torch.zeros(3, 4, 4)
    hit[:, 1, 2] = 1
    found = localisation(hit, masks)
    assert found["pointing"] == 1 and found["gain"] > 6
    miss = localisation(hit.roll((2, 2), (1, 2)), masks)
    assert miss["pointing"] == 0 and miss["gain"] < 0.2
    assert (found["average_precision"], uniform["average_precision"]) == (1, pytest.approx(1 / 16))


def test_average_precision_counts_a_patch_by_the_share_that_is_lesion():
    """Against a literal curve over pixels, each pixel having its patch's score."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(1, 32, 32, generator=generator) < 0.2
    scores = torch.rand(1, 4, 4, generator=generator)
    pixels = scores.repeat_interleave(8, 1).repeat_interleave(8, 2)
    hits = total = area = 0.0
    for score in scores.flatten().sort(descending=True).values:
        patch = mask[pixels == score]
        hits, total = hits + patch.sum().item(), total + len(patch)
        area += patch.sum().item() / mask.sum().item() * hits / total
    assert localisation(scores, mask)["average_precision"] == pytest.approx(area, rel=1e-5)


def test_masks_are_found_beside_the_data_or_where_the_option_says(phantoms, tmp_path):
    images = Images(open_splits(str(phantoms), ("val",))[0], "ram")
    masks = find_masks(images, None)
    assert sum(mask is not None for mask in masks) == 9
    assert all((mask is None) == ("none" in path) for mask, path in zip(masks, images.paths, strict=True))
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("L", (32, 32), 255).save(flat / f"{images.paths[0].split('/')[-1].split('.')[0]}.png")
    chosen = find_masks(images, str(flat))
    assert [mask is not None for mask in chosen] == [True] + [False] * 11
    figures = measure({"even": torch.ones(1, 4, 4)}, [mask for mask in chosen if mask], 32)
    assert figures["images"] == 1 and figures["sources"]["even"]["gain"] == pytest.approx(1)
    with pytest.raises(InputError, match="--lesion_masks"):
        find_masks(images, str(tmp_path))
