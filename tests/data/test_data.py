"""Data: order, worker-count independence, caching, whole images, shards."""

import shutil

import pytest
import torch
from PIL import Image

from util.data.augment import Augment
from util.data.folders import open_splits
from util.data.images import Images, read_image
from util.data.loading import TrainingImages, loader_workers, resize_whole, training_loader, whole_batches
from util.system import cores
from util.system.errors import InputError


@pytest.fixture(scope="module")
def images(phantoms):
    return Images(open_splits(str(phantoms), ("train",))[0], "ram")


def batches(images, num_workers, epochs=2, policy=None, seed=0):
    dataset = TrainingImages(images, Augment(32, 8, policy=policy), torch.ones(24, 4, 4).share_memory_(), seed)
    loader = training_loader(dataset, 4, num_workers, False)
    result = []
    for epoch in range(epochs):
        dataset.maps.copy_(torch.rand(dataset.maps.shape, generator=torch.Generator().manual_seed(epoch)))
        dataset.set_epoch(epoch)
        loader.sampler.set_epoch(epoch)
        result += list(loader)
    return result


@pytest.mark.parametrize("policy", [None, "rand-m9-mstd0.5-inc1"])
def test_the_number_of_workers_changes_nothing(images, policy):
    """Also shows that workers which outlive an epoch see the new epoch and the new maps."""
    expected = batches(images, 0, policy=policy)
    for workers in (1, 3):
        for a, b in zip(expected, batches(images, workers, policy=policy), strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "asked, device, decoded, usable, expected",
    [
        (None, "cpu", True, 2, 0),
        (None, "cpu", True, 1, 0),
        (None, "cpu", False, 2, 2),  # decoding is worth a process
        (None, "cpu", True, 4, 4),
        (None, "cuda", True, 2, 2),
        (None, "cuda", True, 64, 10),
        (0, "cuda", False, 8, 0),
        (3, "cpu", True, 2, 3),
    ],
)
def test_loader_workers_suit_the_machine_unless_asked_for(monkeypatch, asked, device, decoded, usable, expected):
    monkeypatch.setattr(cores, "usable", lambda: usable)
    assert loader_workers(asked, torch.device(device), decoded=decoded) == expected


def test_a_new_order_and_new_crops_every_epoch_and_seed(images):
    first, second = (torch.cat([b["index"] for b in part]) for part in (batches(images, 0)[:6], batches(images, 0)[6:]))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(24))
    assert first.tolist() != second.tolist()
    other = torch.cat([b["index"] for b in batches(images, 0, 1, seed=1)])
    assert other.tolist() != first.tolist()
    pictures = [{i.item(): x for b in part for i, x in zip(b["index"], b["image"], strict=True)} for part in
                (batches(images, 0)[:6], batches(images, 0)[6:])]  # fmt: skip
    assert not any(torch.equal(pictures[0][i], pictures[1][i]) for i in range(24))


def test_noise_is_uniform_and_new(images):
    noise = torch.cat([b["noise"] for b in batches(images, 0)]).flatten()
    assert noise.dtype == torch.float64 and len(noise.unique()) == len(noise)
    assert noise.min() >= 0 and noise.max() < 1 and abs(noise.mean() - 0.5) < 0.05


def test_last_incomplete_batch_is_dropped(images):
    loader = training_loader(TrainingImages(images, Augment(32, 8), torch.ones(24, 4, 4), 0), 7, 0, False)
    assert [len(b["label"]) for b in loader] == [7, 7, 7]


def test_cache_changes_nothing(phantoms):
    folder = open_splits(str(phantoms), ("train",))[0]
    kept, read = Images(folder, "ram"), Images(folder, "off")
    assert read.decoded is None and len(kept.decoded) == 24
    assert all(torch.equal(kept[i], read[i]) for i in range(24))


def test_cache_auto_follows_the_memory(phantoms, monkeypatch):
    folder = open_splits(str(phantoms), ("train",))[0]
    assert Images(folder, "auto").decoded is not None
    monkeypatch.setattr("util.data.images.available_memory", lambda: 3 * 24 * 32 * 32 * 3)  # just not enough
    assert Images(folder, "auto").decoded is None


def test_whole_images_cover_the_set_in_order(images):
    found = list(whole_batches(images, 16, 5))
    assert [len(batch) for batch in found] == [5, 5, 5, 5, 4]
    expected = torch.stack([resize_whole(images[i], 16) for i in range(24)])
    assert torch.equal(torch.cat(found), expected) and expected.shape == (24, 3, 16, 16)
    (batch,) = whole_batches(images, 16, 5, chosen=[20, 3])
    assert torch.equal(batch, expected[[20, 3]])


def test_shards_of_processes_cover_the_set_once(images, monkeypatch):
    expected = torch.stack([resize_whole(images[i], 16) for i in range(24)])
    trained = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        assert torch.equal(torch.cat(list(whole_batches(images, 16, 5))), expected[rank::3])
        trained += list(
            training_loader(TrainingImages(images, Augment(32, 8), torch.ones(24, 4, 4), 0), 2, 0, False).sampler
        )
    assert sorted(trained) == list(range(24))


def test_grey_palette_and_alpha_images_become_rgb(tmp_path):
    for mode in ("L", "P", "RGBA", "1", "CMYK"):
        Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(
            tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}"
        )
    for path in tmp_path.iterdir():
        image = read_image(str(path))
        assert image.shape == (3, 4, 5) and image.dtype == torch.uint8 and image.min() == 255, path


def test_unreadable_image_is_named(phantoms, tmp_path):
    copy = shutil.copytree(phantoms, tmp_path / "data")
    victim = next((copy / "train" / "ring").iterdir())
    victim.write_bytes(victim.read_bytes()[:200])
    for cache in ("ram", "off", "auto"):
        with pytest.raises(InputError, match=victim.name):
            Images(open_splits(str(copy), ("train",))[0], cache)
