"""The map: heads to map, the class token's row against the full softmax, the map under a crop."""

import pytest
import torch
import torch.nn.functional as F

from models_vit import create_encoder
from util.data.map_geometry import crop_map, patch_weights
from util.maps.attention import average_heads, relative_entropy


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return create_encoder("vit_tiny_patch16", patch_size=8, img_size=40, num_classes=3).eval()


def slow_map(model, images):
    """The map from the complete softmax attention of the last block, head by head."""
    last = model.blocks[-1].attn
    last.record = True
    model(images)
    last.record = False
    attention = last.attn
    assert attention.shape == (len(images), last.num_heads, 26, 26)
    maps = []
    for image in attention:
        total = torch.zeros(25)
        for head in image:
            row = head[0, 1:]
            total += (row - row.min()) / (row.max() - row.min())
        maps.append(total / len(image))
    return torch.stack(maps).reshape(-1, 5, 5)


def test_map_equals_that_of_the_full_softmax(encoder):
    images = torch.randn(3, 3, 40, 40)
    with torch.no_grad():
        expected = slow_map(encoder, images)
    torch.testing.assert_close(encoder.attention_maps(images)[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_attention_is_kept_only_on_request(encoder):
    images = torch.randn(2, 3, 40, 40)
    attention = encoder.blocks[-1].attn
    assert attention.attn is None
    encoder(images)
    encoder.attention_maps(images)
    encoder.relevance_map(images)
    assert all(block.attn.attn is None for block in encoder.blocks)
    attention.record = True
    encoder(images)
    kept = attention.attn
    torch.testing.assert_close(kept.sum(-1), torch.ones(2, 3, 26))
    assert all(block.attn.attn is None for block in encoder.blocks[:-1])


def test_recording_does_not_change_the_result(encoder):
    images = torch.randn(2, 3, 40, 40)
    plain = encoder(images)
    for block in encoder.blocks:
        block.attn.record = True
    torch.testing.assert_close(encoder(images), plain, rtol=1e-4, atol=1e-5)


def test_heads_are_scaled_one_by_one_and_a_constant_head_counts_as_zero():
    rows = torch.tensor([[[0.1, 0.3, 0.2], [0.5, 0.5, 0.5], [2.0, 0.0, 1.0]]])
    torch.testing.assert_close(average_heads(rows), torch.tensor([[1.0, 1.0, 1.0]]) / 3)


def test_whole_image_as_crop_is_the_resized_map():
    grid = torch.rand(7, 5)
    expected = F.interpolate(grid[None, None], (64, 64), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(crop_map(grid, (0, 0, 90, 70), (90, 70), 64), expected)


def test_crop_of_the_map_is_the_crop_of_the_map_resized_to_the_image():
    grid = torch.rand(6, 6)
    image_size, box = (96, 120), (13, 40, 32, 32)
    resized = F.interpolate(grid[None, None], image_size, mode="bilinear", align_corners=False)[0, 0]
    expected = resized[13:45, 40:72]
    torch.testing.assert_close(crop_map(grid, box, image_size, 32), expected)


def test_patch_weights_are_sums_over_pixels():
    pixel_map = torch.rand(24, 32)
    expected = [[pixel_map[8 * i : 8 * i + 8, 8 * j : 8 * j + 8].sum() for j in range(4)] for i in range(3)]
    torch.testing.assert_close(patch_weights(pixel_map, 8), torch.tensor(expected).flatten())


def test_relative_entropy():
    one_hot = torch.zeros(16)
    one_hot[3] = 0.7
    assert relative_entropy(torch.ones(16)).item() == pytest.approx(1)
    assert relative_entropy(one_hot).item() == pytest.approx(0)
    half = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert relative_entropy(half).item() == pytest.approx(0.5)


@pytest.mark.parametrize("box", [(0, 0, 90, 70), (13, 5, 40, 61)])
def test_patch_weights_of_a_crop_are_sums_over_its_pixels(box):
    grid = torch.rand(7, 5)
    pixels = crop_map(grid, box, (90, 70), 48)
    torch.testing.assert_close(crop_map(grid, box, (90, 70), 48, cell=16).flatten(), patch_weights(pixels, 16))
