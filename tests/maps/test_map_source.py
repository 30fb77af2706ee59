"""Map sources against slow literal computations."""

import pytest
import torch

import main_pretrain
from models_vit import create_encoder
from util.maps import sources
from util.maps.attention import average_heads


def encoder(pool="token"):
    torch.manual_seed(0)
    shape = {"patch_size": 8, "img_size": 32, "num_classes": 3}
    model = create_encoder("vit_tiny_patch16", global_pool=pool, **shape).eval()
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
    found = sources.map_of(sources.View(model, images), "consensus")
    torch.testing.assert_close(found.double(), (expected - low) / (high - low), rtol=1e-4, atol=1e-5)
    maps = torch.full((1, 12, 4, 4), 0.2)
    maps[:, :, 1, 2] = 0.9
    maps[:, 5] = torch.eye(4)
    view = sources.View(model, images)
    view.blocks = lambda: maps
    assert sources.consensus(view).flatten().argmax() == 6


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_relevance(pool):
    """Whole matrices of relevance, one image after another, gradients from ``backward``."""
    model, images = encoder(pool), torch.randn(3, 3, 32, 32)
    expected = []
    for image in images:
        logits, kept = literal_forward(model, image[None])
        logits.max().backward()
        relevance = torch.eye(1 + 16)
        for attention in kept:
            weighted = torch.stack([(a * g).clamp(min=0) for a, g in zip(attention[0], attention.grad[0], strict=True)])
            relevance = relevance + weighted.mean(0) @ relevance
        row = relevance[0, 1:] if pool == "token" else (relevance - torch.eye(len(relevance)))[1:, 1:].mean(0)
        row = row.detach()
        expected.append(((row - row.min()) / (row.max() - row.min())).reshape(4, 4))
    found = model.relevance_map(images)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-3, atol=1e-4)
    assert all(parameter.grad is None for parameter in encoder().parameters())


def test_every_source_by_its_name():
    model, images = encoder(), torch.randn(2, 3, 32, 32)
    maps = {name: sources.map_of(sources.View(model, images), name) for name in sources.names(12)}
    assert list(maps) == [*(f"block{number}" for number in range(1, 12)), "last", "consensus", "relevance"]
    torch.testing.assert_close(maps["last"], model.attention_maps(images)[:, 0])
    torch.testing.assert_close(maps["block3"], model.attention_maps(images, (3,))[:, 0])
    torch.testing.assert_close(maps["relevance"], model.relevance_map(images))
    assert torch.equal(sources.map_of(sources.View(model, images), "block12"), maps["last"])
    assert all(each.shape == (2, 4, 4) and each.min() >= 0 and each.max() <= 1 for each in maps.values())


def test_a_view_computes_each_block_once(monkeypatch):
    model, images = encoder(), torch.randn(2, 3, 32, 32)
    calls, compute = [], model.attention_maps
    monkeypatch.setattr(
        model, "attention_maps", lambda pixels, blocks: calls.append(tuple(blocks)) or compute(pixels, blocks)
    )
    view = sources.View(model, images)
    view.blocks()
    for name in sources.names(12):
        sources.map_of(view, name)
    assert calls == [tuple(range(1, 13))]


def test_a_new_source_is_one_function(monkeypatch):
    """The option, its help and the list of names know it at once."""
    monkeypatch.setattr(sources, "SOURCES", dict(sources.SOURCES))

    @sources.source("centre", "the middle of the image")
    def centre(view):
        return torch.ones(len(view.pixels), 4, 4)

    args = main_pretrain.get_args(["--data_path", "DIR", "--map", "centre"])
    assert args.map == "centre" and "centre: the middle of the image" in sources.help_text()
    assert sources.names(2) == ["block1", "last", "consensus", "relevance", "centre"]
    assert sources.map_of(sources.View(encoder(), torch.zeros(1, 3, 32, 32)), "centre").shape == (1, 4, 4)
