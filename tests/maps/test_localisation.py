"""Where maps look: localisation on maps whose answer is known, and which mask belongs to which image."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from util.data.folders import open_splits
from util.data.images import Images
from util.maps.localisation import find_masks, localisation, measure, read_masks
from util.system.errors import InputError


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
    images.paths[1] = images.paths[0].replace(".png", ".jpg")
    with pytest.raises(InputError, match=r"flat/\S+\.png is the mask of \S+\.png and of \S+\.jpg"):
        find_masks(images, str(flat))


def test_a_mask_of_two_images_beside_the_data_is_of_neither(phantoms, tmp_path, capsys):
    data = shutil.copytree(phantoms, tmp_path / "data")
    image = next((data / "val" / "ring").iterdir())
    shutil.copy(image, image.with_suffix(".bmp"))
    images = Images(open_splits(str(data), ("val",))[0], "ram")
    masks = find_masks(images, None)
    assert len(masks) == 13 and sum(mask is not None for mask in masks) == 8
    told = capsys.readouterr().out
    assert f"ring/{image.stem}.png is the mask of" in told and told.endswith(", so of neither\n")


def test_masks_of_0_and_1_and_in_colour(tmp_path):
    half = np.zeros((32, 32), np.uint8)
    half[:, 16:] = 1
    green = np.zeros((32, 32, 3), np.uint8)
    green[:, 16:, 1] = 255
    paths = []
    for name, pixels in (("ones", half), ("usual", 255 * half), ("green", green)):
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(pixels).save(paths[-1])
    assert (read_masks(paths, 16) == torch.arange(16).ge(8)).all()


def test_masks_without_a_lesion_are_no_figures(call, finetuned, phantoms, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for path in (phantoms / "val").glob("*/*.png"):
        (folder / path.parent.name).mkdir(exist_ok=True)
        Image.new("L", (32, 32)).save(folder / path.parent.name / path.name)
    options = f"--eval --resume {finetuned / 'checkpoint-last.pth'} --data_path {phantoms} --lesion_masks {folder}"
    status, out, err = call(f"main_finetune.py {options} --device cpu --output_dir {tmp_path / 'eval'}")
    assert status == 0 and "none of the 12 lesion masks of val has a lesion in it" in out, err
    assert "localisation" not in json.loads((tmp_path / "eval" / "metrics.json").read_text())
