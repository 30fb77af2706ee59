"""Models: names and counts, any size, and that hidden patches are really never touched."""

import argparse
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import content_of

from models_msmae import AUTOENCODERS, create_autoencoder
from models_vit import create_encoder, patchify, select, sincos_position_embedding
from util.masking import Split, split_patches
from util.system.errors import InputError
from util.training import checkpoint
from util.weights.into_model import load_encoder
from util.weights.sources import load_weights


def tiny(**kwargs):
    torch.manual_seed(0)
    return create_autoencoder("msmae_vit_tiny_patch16", patch_size=8, img_size=32, num_classes=3, **kwargs)


def example(batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, 32, 32, generator=generator)
    weights = torch.rand(batch, 16, generator=generator)
    noise = torch.rand(batch, 16, dtype=torch.float64, generator=generator)
    return images, split_patches(weights, noise, 0.45, 0.3), torch.arange(batch) % 3


def test_parameter_counts_of_the_published_models():
    model = create_autoencoder("msmae_vit_base_patch16", num_classes=4)
    assert sum(p.numel() for p in model.parameters()) == 111_910_916
    assert len(model.state_dict()) == 256
    for pool in ("avg", "token"):
        encoder = create_encoder("vit_base_patch16", num_classes=4, global_pool=pool)
        assert sum(p.numel() for p in encoder.parameters()) == 85_801_732
        assert ("fc_norm.weight" in encoder.state_dict(), "norm.weight" in encoder.state_dict()) == (
            pool == "avg",
            pool != "avg",
        )


def test_parameter_names_are_those_of_mae():
    names = {name.split(".")[0] for name in tiny().state_dict()}
    assert names == {
        *("cls_token", "pos_embed", "patch_embed", "blocks", "norm", "head"),
        *("decoder_embed", "mask_token", "decoder_pos_embed", "decoder_blocks", "decoder_norm", "decoder_pred"),
    }


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_every_model_can_be_built(name):
    with torch.device("meta"):  # shapes without memory
        model = create_autoencoder(name, num_classes=2)
        encoder = create_encoder(name.removeprefix("msmae_"), num_classes=2, global_pool="token")
    patch = int(name.rsplit("patch", 1)[1])
    assert model.patch_size == patch and model.grid_size == (224 // patch, 224 // patch)
    shapes = {key: value.shape for key, value in model.state_dict().items() if not key.startswith(("decoder", "mask_token"))}
    assert shapes == {key: value.shape for key, value in encoder.state_dict().items()}


@pytest.mark.parametrize("name", ["msmae_vit_tiny_patch16", "msmae_vit_small_patch16"])
def test_small_models_compute(name):
    model = create_autoencoder(name, img_size=32, num_classes=2)
    split = split_patches(torch.rand(1, 4), torch.rand(1, 4, dtype=torch.float64), 0.5, 0.25)
    assert math.isfinite(model(torch.randn(1, 3, 32, 32), split, torch.tensor([1])).reconstruction.item())


@pytest.mark.parametrize(("size", "patch"), [(30, 10), (48, 16), (28, 4), (21, 7)])
def test_any_size_and_patch(size, patch):
    model = create_autoencoder("msmae_vit_tiny_patch16", patch_size=patch, img_size=size, num_classes=5)
    cells = (size // patch) ** 2
    split = split_patches(torch.rand(2, cells), torch.rand(2, cells, dtype=torch.float64), 0.4, 0.3)
    output = model(torch.randn(2, 3, size, size), split, torch.tensor([4, 0]))
    assert output.logits.shape == (2, 5) and output.reconstruction.isfinite()
    assert model.attention_maps(torch.randn(2, 3, size, size)).shape == (2, 1, size // patch, size // patch)


def test_initialisation():
    model = tiny()
    block = model.blocks[3]
    limit = math.sqrt(6 / (192 + 768))
    assert 0.95 * limit < block.mlp.fc1.weight.abs().max() <= limit
    assert block.mlp.fc1.bias.abs().max() == 0 and block.attn.qkv.bias.abs().max() == 0
    limit = math.sqrt(6 / (192 + 3 * 64))
    assert 0.95 * limit < model.patch_embed.proj.weight.abs().max() <= limit
    assert 0.015 < model.cls_token.std() < 0.025 and 0.015 < model.mask_token.std() < 0.025
    assert not model.pos_embed.requires_grad and not model.decoder_pos_embed.requires_grad
    assert create_encoder("vit_tiny_patch16", img_size=32, num_classes=2).pos_embed.requires_grad
    assert model.blocks[0].norm1.eps == 1e-6


def test_position_embedding_is_the_two_dimensional_sine_cosine_table():
    table = sincos_position_embedding(16, (3, 5))[0]
    assert table[0].abs().max() == 0
    for row in range(3):
        for column in range(5):
            expected = []
            for position in (column, row):
                angles = position / 10000 ** (np.arange(4) / 4)
                expected += [*np.sin(angles), *np.cos(angles)]
            np.testing.assert_allclose(table[1 + row * 5 + column], expected, atol=1e-5)


def test_patchify_order():
    images = torch.randn(2, 3, 12, 8)
    patches = patchify(images, 4)
    assert patches.shape == (2, 6, 48)
    torch.testing.assert_close(patches[1, 3].reshape(3, 4, 4), images[1, :, 4:8, 4:8])


def test_pixels_of_masked_patches_are_in_the_order_of_mae():
    images, split, _ = example()
    pixels = tiny().pixels(images, split.masked)
    row, column = divmod(int(split.masked[1, 2]), 4)
    expected = images[1, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].permute(1, 2, 0)
    torch.testing.assert_close(pixels[1, 2].reshape(8, 8, 3), expected)


def test_embedding_of_visible_patches_is_the_convolution_at_their_places():
    model = tiny()
    images, split, _ = example()
    everything = model.patch_embed(images) + model.pos_embed[:, 1:]
    torch.testing.assert_close(model.embed(images, split.visible)[:, 1:], select(everything, split.visible))
    torch.testing.assert_close(model.embed(images)[:, 1:], everything)


def repaint(images, index, patch=8):
    """The images with the patches of ``index`` replaced by noise."""
    changed = images.clone()
    for image, patches in zip(changed, index, strict=True):
        for n in patches.tolist():
            top, left = n // 4 * patch, n % 4 * patch
            image[:, top : top + patch, left : left + patch] = torch.randn(3, patch, patch)
    return changed


def test_the_encoder_never_sees_hidden_patches_and_thrown_ones_change_nothing():
    model = tiny().eval()
    images, split, labels = example()
    features = model.forward_features(images, split.visible)
    hidden = torch.cat([split.masked, split.thrown], dim=1)
    assert torch.equal(model.forward_features(repaint(images, hidden), split.visible), features)
    before, after = model(images, split, labels), model(repaint(images, split.thrown), split, labels)
    assert before.reconstruction == after.reconstruction and before.classification == after.classification
    assert model(repaint(images, split.masked), split, labels).reconstruction != before.reconstruction
    assert model(repaint(images, split.visible), split, labels).classification != before.classification


def test_sizes_inside_the_forward_pass():
    """The encoder computes 1 + visible tokens, the decoder 1 + visible + masked, the pixel prediction masked ones only."""
    model = tiny()
    images, split, labels = example()
    sizes = {}
    for name in ("blocks.0", "decoder_blocks.0", "decoder_pred"):
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, __, name=name: sizes.update({name: inputs[0].shape[1]})
        )
    model(images, split, labels)
    visible, masked = split.visible.shape[1], split.masked.shape[1]
    assert sizes == {"blocks.0": 1 + visible, "decoder_blocks.0": 1 + visible + masked, "decoder_pred": masked}


def test_order_of_visible_patches_does_not_matter():
    model = tiny().eval()
    images, split, labels = example()
    turned = Split(split.visible.flip(1), split.masked.flip(1), split.thrown)
    a, b = model(images, split, labels), model(images, turned, labels)
    torch.testing.assert_close(a.reconstruction, b.reconstruction)
    torch.testing.assert_close(a.logits, b.logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_losses_equal_a_literal_implementation(norm_pix_loss):
    model = tiny(norm_pix_loss=norm_pix_loss).eval()
    images, split, labels = example(batch=3)
    output = model(images, split, labels)
    prediction = model.decode(model.forward_features(images, split.visible), split.visible, split.masked)
    errors = []
    for b in range(3):
        for n, patch in enumerate(split.masked[b].tolist()):
            top, left = patch // 4 * 8, patch % 4 * 8
            pixels = images[b, :, top : top + 8, left : left + 8].permute(1, 2, 0).flatten()
            if norm_pix_loss:
                mean = pixels.sum() / 192
                variance = ((pixels - mean) ** 2).sum() / 191
                pixels = (pixels - mean) / (variance + 1e-6) ** 0.5
            errors.append(((prediction[b, n] - pixels) ** 2).sum() / 192)
    torch.testing.assert_close(output.reconstruction, sum(errors) / len(errors))
    chances = [
        math.exp(row[label]) / sum(math.exp(x) for x in row)
        for row, label in zip(output.logits.tolist(), labels, strict=True)
    ]
    assert output.classification.item() == pytest.approx(-sum(map(math.log, chances)) / 3, rel=1e-5)


def test_decoder_equals_maes_unshuffled_one_when_nothing_is_thrown():
    """MAE fills mask tokens in, restores the image's order and decodes; without thrown patches ours must agree."""
    model = tiny().eval()
    images, _, _ = example()
    split = split_patches(torch.ones(2, 16), torch.rand(2, 16, dtype=torch.float64), 0.75)
    features = model.forward_features(images, split.visible)
    tokens = model.decoder_embed(features)
    full = model.mask_token.expand(2, 16, -1).clone()
    for b in range(2):
        full[b, split.visible[b]] = tokens[b, 1:]
    full = torch.cat([tokens[:, :1], full], dim=1) + model.decoder_pos_embed
    expected = model.decoder_pred(model.decoder_norm(model.decoder_blocks(full)))[:, 1:]
    ours = model.decode(features, split.visible, split.masked)
    torch.testing.assert_close(ours, select(expected, split.masked), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_pooling(pool):
    torch.manual_seed(1)
    model = create_encoder("vit_tiny_patch16", patch_size=8, img_size=32, num_classes=3, global_pool=pool).eval()
    images, split, _ = example()
    tokens = model.blocks(model.embed(images, split.visible))
    pooled = model.norm(tokens)[:, 0] if pool == "token" else model.fc_norm(tokens[:, 1:].mean(1))
    torch.testing.assert_close(model(images, split.visible), model.head(pooled))


def test_images_without_a_label_are_left_out_of_the_classification_loss():
    model = tiny().eval()
    images, split, labels = example(batch=3)
    some = model(images, split, torch.tensor([0, -100, 2]))
    kept = [0, 2]
    alone = model(images[kept], Split(*(part[kept] for part in split)), labels[kept])
    torch.testing.assert_close(some.classification, alone.classification)
    torch.testing.assert_close(some.reconstruction, model(images, split, labels).reconstruction)


def test_plain_and_fused_attention_agree():
    attention = tiny().blocks[0].attn
    x = torch.randn(2, 9, 192)
    fused = attention(x)
    attention.record = True
    torch.testing.assert_close(attention(x), fused, atol=1e-5, rtol=1e-4)
    reference = F.multi_head_attention_forward(
        *3 * [x.transpose(0, 1)], 192, 3, attention.qkv.weight, attention.qkv.bias, None, None, False, 0.0,
        attention.proj.weight, attention.proj.bias, need_weights=False,
    )[0].transpose(0, 1)  # fmt: skip
    torch.testing.assert_close(fused, reference, atol=1e-5, rtol=1e-4)


def test_published_checkpoints_load(tmp_path):
    """MAE's files hold an argparse.Namespace and no head; the decoder is left aside in fine-tuning."""
    source = tiny()
    state = {name: value for name, value in source.state_dict().items() if not name.startswith("head.")}
    torch.save(
        {"model": state, "optimizer": {}, "epoch": 799, "args": argparse.Namespace(mask_ratio=0.75)}, tmp_path / "mae.pth"
    )
    content = content_of(tmp_path / "mae.pth")
    assert content["args"] == {"mask_ratio": 0.75}
    model = create_encoder("vit_tiny_patch16", patch_size=8, img_size=32, num_classes=7, global_pool="token")
    account = load_encoder(model, load_weights(tmp_path / "mae.pth"), new_head=True)
    assert torch.equal(model.blocks[5].attn.qkv.weight, source.blocks[5].attn.qkv.weight)
    assert torch.equal(model.norm.weight, source.norm.weight)
    assert "newly initialised: head" in account and "decoder_blocks" in account


def held(model):
    """A checkpoint of a model, as if it had been read from a file."""
    return checkpoint.Checkpoint("x", {"model": model.state_dict()})


def test_position_embedding_is_resampled_to_another_grid():
    source, model = tiny(), create_encoder("vit_tiny_patch16", patch_size=8, img_size=48, num_classes=3)
    load_encoder(model, held(source), new_head=True)
    assert model.pos_embed.shape == (1, 37, 192) and model.pos_embed[:, 0].abs().max() == 0
    near = sincos_position_embedding(192, (4, 4))[0, 1:].reshape(4, 4, 192)[1, 1]
    table = model.pos_embed[0, 1:].reshape(6, 6, 192)
    distance = (table - near).norm(dim=-1)
    assert divmod(distance.argmin().item(), 6) in {(1, 1), (2, 2), (1, 2), (2, 1)}


def test_other_architecture_is_refused():
    with pytest.raises(InputError, match="another architecture: width 192"):
        other = create_encoder("vit_small_patch16", patch_size=8, img_size=32, num_classes=3)
        load_encoder(other, held(tiny()), new_head=True)
