"""Image and map stay aligned: a map painted from an image's brightness must agree with its patches after augmentation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing

from util.data.augment import Augment, PolicyAugment, denormalize, mix_batch, normalize
from util.data.map_geometry import patch_weights
from util.phantom import smooth_noise
from util.system.errors import InputError
from util.system.seeds import seed_everything
from util.variant import MAE

GRID, PATCH, SIZE = 14, 8, 112


def smooth_image(seed, height=150, width=130):
    """A grey image of broad structures ``[3, H, W]`` uint8, and its brightness as a map on the patch grid."""
    noise = smooth_noise(np.random.default_rng(seed), 160, 2)[:height, :width]
    grey = torch.from_numpy(np.clip(128 + 50 * noise, 0, 255)).float()
    grid_map = F.interpolate(grey[None, None], (GRID, GRID), mode="bilinear", antialias=True)[0, 0] / 255
    return grey.round().byte().expand(3, -1, -1).contiguous(), grid_map


def correlation(weights, image, where=None):
    brightness = patch_weights(image[0].float(), PATCH)
    chosen = slice(None) if where is None else where
    return torch.corrcoef(torch.stack([weights[chosen], brightness[chosen]]))[0, 1].item()


@pytest.mark.parametrize("seed", range(8))
def test_crop_and_flip_move_the_map_with_the_image(seed):
    image, grid_map = smooth_image(seed)
    seed_everything(seed)
    augmented, weights = Augment(SIZE, PATCH)(image, grid_map)
    assert augmented.shape == (3, SIZE, SIZE) and augmented.dtype == torch.uint8
    assert correlation(weights, augmented) > 0.97
    flipped = weights.unflatten(0, (GRID, GRID)).flip(-1).flatten()
    assert correlation(flipped, augmented) < 0.9  # so that a map flipped by mistake would be noticed


def test_weights_are_values_times_pixels():
    image, grid_map = smooth_image(0)
    seed_everything(0)
    augmented, weights = Augment(SIZE, PATCH)(image, grid_map)
    brightness = patch_weights(augmented[0].float() / 255, PATCH)
    torch.testing.assert_close(weights, brightness, atol=0.05 * PATCH**2, rtol=0)


@pytest.mark.parametrize("operation", ["rand-m9-n3-mstd0.5-inc1", "original", "v0"])
def test_policies_move_the_map_with_the_image(operation):
    scores = []
    for seed in range(30):
        image, grid_map = smooth_image(seed)
        seed_everything(seed)
        moved_image, moved_map = PolicyAugment(operation, 128)(image, _pixels(grid_map, image))
        inside = F.avg_pool2d((moved_map > 0.02).float()[None], 16)[0].flatten() == 1  # not what the policy filled in
        blocks_image = F.avg_pool2d(moved_image[0].float()[None], 16)[0].flatten()
        blocks_map = F.avg_pool2d(moved_map[None], 16)[0].flatten()
        if inside.sum() > 20 and blocks_image[inside].std() > 5:
            scores.append(torch.corrcoef(torch.stack([blocks_image[inside], blocks_map[inside]]))[0, 1].abs())
    # colour operations may bend or invert brightness, so not every image agrees in value; most must
    assert len(scores) > 15 and torch.stack(scores).median() > 0.97


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "TranslateYRel"])
def test_each_geometric_operation_moves_image_and_map_alike(name):
    policy = PolicyAugment("rand-m9-n1", 128)
    for transform in (policy.on_image, policy.on_map):
        transform.ops = [op for op in transform.ops if op.name == name]
        transform.ops[0].prob = 1.0
    for seed in range(5):
        image, grid_map = smooth_image(seed)
        pixels = _pixels(grid_map, image)
        seed_everything(seed)
        moved_image, moved_map = policy(image, pixels)
        assert not torch.equal(moved_image, image)
        known = moved_map > 0
        off = (moved_image[0].float() / 255 - moved_map)[known].abs()
        assert off.mean() < 0.02 and known.float().mean() > 0.4
        assert off.mean() < 0.3 * (moved_image[0].float() / 255 - pixels)[known].abs().mean()


def _pixels(grid_map, image):
    return F.interpolate(grid_map[None, None], image.shape[-2:], mode="bilinear")[0, 0]


def test_policy_does_not_recolour_the_map():
    policy = PolicyAugment("rand-m9-n1", 128)
    for transform in (policy.on_image, policy.on_map):
        transform.ops = [op for op in transform.ops if op.name == "Invert"]
        transform.ops[0].prob = 1.0
    image, grid_map = smooth_image(1)
    moved_image, moved_map = policy(image, _pixels(grid_map, image))
    assert torch.equal(moved_image, 255 - image)
    torch.testing.assert_close(moved_map, _pixels(grid_map, image))


@pytest.mark.parametrize("name", sorted({op.name for op in PolicyAugment("rand-m9-mstd0.5-inc1", 64).on_image.ops}))
def test_every_operation_works_at_every_magnitude(name):
    """timm's magnitudes reach values that current Pillow refuses."""
    for config in ("rand-m9-mstd0.5-inc1-n1", "rand-m9-mstd0.5-n1"):
        policy = PolicyAugment(config, 64)
        ops = [op for op in policy.on_image.ops if op.name.replace("Increasing", "") == name.replace("Increasing", "")]
        for op in ops:
            op.prob, op.magnitude_std = 1.0, 9  # clipped at the largest, often
        policy.on_image.ops = ops
        for seed in range(30):
            seed_everything(seed)
            image, _ = policy(torch.full((3, 64, 64), 99, dtype=torch.uint8), torch.ones(64, 64))
            assert image.shape == (3, 64, 64)


def test_unknown_policy_is_named():
    with pytest.raises(InputError, match="--aa nonsense"):
        PolicyAugment.check("nonsense")


def test_color_jitter_leaves_the_map():
    image, grid_map = smooth_image(2)
    results = []
    for jitter in (0.0, 0.4):
        seed_everything(5)
        results.append(Augment(SIZE, PATCH, color_jitter=jitter)(image, grid_map))
    assert not torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_normalize_and_back():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(
        denormalize(normalize(images, MAE.mean, MAE.std), MAE.mean, MAE.std), images / 255, atol=1e-5, rtol=0
    )
    white = normalize(torch.full((3, 1, 1), 255, dtype=torch.uint8), MAE.mean, MAE.std).flatten()
    torch.testing.assert_close(white, (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225]))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_mixing_moves_the_maps_alike(mixup, cutmix, mode):
    seed_everything(3)
    grids = torch.rand(6, 4, 4)
    grey = grids.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
    images = grey[:, None].expand(-1, 3, -1, -1).contiguous()
    weights = patch_weights(grey, PATCH)
    mixer = Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=6, mode=mode)
    mixed, mixed_weights, targets = mix_batch(mixer, images.clone(), weights, torch.arange(6))
    assert not torch.allclose(mixed, images)
    torch.testing.assert_close(mixed_weights, patch_weights(mixed[:, 0], PATCH), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(targets.sum(1), torch.ones(6))


def test_random_erasing_works_on_a_batch():
    images = torch.zeros(8, 3, 32, 32)
    erased = RandomErasing(1.0, mode="pixel", device="cpu")(images.clone())
    assert (erased != 0).flatten(1).any(1).all()
