"""Map sources against slow literal computations, and the rule that chooses one on models whose answer is known."""

from types import SimpleNamespace

import pytest
import torch

from models_vit import create_encoder
from util import map_source
from util.attention_map import average_heads


def encoder(pool="token", **kwargs):
    torch.manual_seed(0)
    shape = {"patch_size": 8, "img_size": 32, "num_classes": 3}
    model = create_encoder("vit_tiny_patch16", global_pool=pool, **shape, **kwargs).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


def literal_forward(model, images):
    """Logits and every block's attention, block by block in plain products."""
    tokens, kept = model.embed(images), []
    for block in model.blocks:
        layer, normal = block.attn, block.norm1(tokens)
        q, k, v = layer.qkv(normal).chunk(3, dim=-1)
        heads = []
        for h in range(layer.num_heads):
            part = slice(64 * h, 64 * h + 64)
            heads.append((q[..., part] @ k[..., part].transpose(1, 2) / 8).softmax(-1))
        attention = torch.stack(heads, dim=1)
        attention.retain_grad()
        kept.append(attention)
        mixed = torch.cat([attention[:, h] @ v[..., 64 * h : 64 * h + 64] for h in range(layer.num_heads)], dim=-1)
        tokens = tokens + layer.proj(mixed)
        tokens = tokens + block.mlp(block.norm2(tokens))
    return model.forward_head(model.norm(tokens)), kept


@pytest.mark.parametrize("block", [2, 3, 12])
def test_attention_of_any_block(block):
    model, images = encoder(), torch.randn(2, 3, 32, 32)
    expected = average_heads(literal_forward(model, images)[1][block - 1][:, :, 0, 1:]).unflatten(1, (4, 4))
    torch.testing.assert_close(model.attention_maps(images, (block,))[:, 0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.attention_maps(images, (1, block))[:, 1], expected, rtol=1e-4, atol=1e-5)


def test_consensus():
    """The twelfth root of a product, patch by patch; a block that disagrees is outvoted."""
    model, images = encoder(), torch.randn(2, 3, 32, 32)
    expected = torch.ones(2, 4, 4, dtype=torch.float64)
    for block in range(1, 13):
        expected *= model.attention_maps(images, (block,))[:, 0].double() + 0.001
    expected = expected ** (1 / 12)
    low, high = expected.amin((1, 2), keepdim=True), expected.amax((1, 2), keepdim=True)
    found = map_source.map_of(model, images, "consensus")
    torch.testing.assert_close(found.double(), (expected - low) / (high - low), rtol=1e-4, atol=1e-5)
    maps = torch.full((1, 12, 4, 4), 0.2)
    maps[:, :, 1, 2] = 0.9
    maps[:, 5] = torch.eye(4)
    assert map_source.consensus(maps).flatten().argmax() == 6


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("of", ["prediction", "label"])
def test_relevance(pool, of, registers):
    """Whole matrices of relevance, one image after another, gradients from ``backward``."""
    model, images, labels = encoder(pool, registers=registers), torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])
    first = 1 + registers
    expected = []
    for image, label in zip(images, labels, strict=True):
        logits, kept = literal_forward(model, image[None])
        logits[0, label if of == "label" else logits.argmax()].backward()
        relevance = torch.eye(first + 16)
        for attention in kept:
            weighted = torch.stack([(a * g).clamp(min=0) for a, g in zip(attention[0], attention.grad[0], strict=True)])
            relevance = relevance + weighted.mean(0) @ relevance
        row = relevance[0, first:] if pool == "token" else (relevance - torch.eye(len(relevance)))[first:, first:].mean(0)
        row = row.detach()
        expected.append(((row - row.min()) / (row.max() - row.min())).reshape(4, 4))
    found = model.relevance_map(images, labels if of == "label" else None)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-3, atol=1e-4)
    assert all(parameter.grad is None for parameter in encoder().parameters())


def test_all_maps_are_in_the_order_of_their_names():
    model, images, labels = encoder(), torch.randn(2, 3, 32, 32), torch.tensor([2, 1])
    maps = dict(zip(map_source.names(12), map_source.all_maps(model, images, labels).unbind(1), strict=True))
    torch.testing.assert_close(maps["last"], model.attention_maps(images)[:, 0])
    torch.testing.assert_close(maps["block3"], model.attention_maps(images, (3,))[:, 0])
    torch.testing.assert_close(maps["consensus"], map_source.map_of(model, images, "consensus"))
    torch.testing.assert_close(maps["relevance"], model.relevance_map(images))
    torch.testing.assert_close(maps["label"], model.relevance_map(images, labels))


def test_fall_of_confidence():
    model, images = encoder(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = map_source.fall_of_confidence(model, images)
        assert found.shape == (2, 14)
        for i, image in enumerate(images):
            before, predicted = model(image[None]).softmax(-1)[0].max(-1)
            ranking = model.attention_maps(image[None], (3,)).flatten().argsort(descending=True).tolist()
            after = []
            for share in map_source.DELETED_SHARES:
                left = torch.tensor([ranking[int(16 * share) :]])
                after.append(model(image[None], left).softmax(-1)[0, predicted])
            torch.testing.assert_close(found[i, 2], before - sum(after) / len(after), rtol=1e-4, atol=1e-5)


class Oracle(torch.nn.Module):
    """Is sure of its class as long as it sees patch 5; only the second of its three blocks looks there."""

    blocks = (None, None, None)

    def attention_maps(self, pixels, numbers):
        maps = torch.zeros(len(pixels), 3, 4, 4)
        maps[:, 0, 0, 0] = maps[:, 1, 1, 1] = maps[:, 2, 3, 3] = 1
        return maps

    def relevance_map(self, pixels):
        return torch.eye(4).flip(0).expand(len(pixels), -1, -1)

    def classify(self, pixels, visible=None):
        sees = torch.ones(len(pixels), dtype=bool) if visible is None else (visible == 5).any(1)
        return torch.stack([torch.zeros(len(pixels)), torch.where(sees, 5.0, 0.0)], dim=1)


def test_the_rule_finds_what_the_head_looks_at():
    falls = map_source.fall_of_confidence(Oracle(), torch.zeros(3, 3, 32, 32))
    assert falls.shape == (3, 5) and falls.argmax(1).tolist() == [1, 1, 1]
    assert falls[0, 1] == pytest.approx(torch.tensor(5.0).sigmoid().item() - 0.5, rel=1e-5)


def test_the_rule_averages_over_images(monkeypatch):
    table = torch.tensor([[0.9, 0.0, 0.2, 0.1, 0.1], [0.0, 0.6, 0.2, 0.1, 0.1], [0.0, 0.6, 0.2, 0.1, 0.1]])
    monkeypatch.setattr(map_source, "over_images", lambda *_: table)
    name, falls = map_source.choose(Oracle(), [None] * 3, SimpleNamespace(), None)
    assert name == "block2" and falls["last"] == pytest.approx(0.2) and falls["block1"] == pytest.approx(0.3)
