"""Weights into a model: what is resampled, what is refused, and what the steps after it keep."""

import sys

import pytest
import timm
import torch
from conftest import TINY_FINETUNE, TINY_PRETRAIN, content_of
from weights.made_up import SHAPE, images, randomised

from models_msmae import create_autoencoder, load_model
from models_vit import create_encoder
from util.system.errors import InputError, run_script
from util.training import checkpoint
from util.variant import Variant
from util.weights.into_model import load_encoder
from util.weights.sources import load_weights

ODD = Variant(norm_eps=1e-5, layer_scale=True, pre_norm=True, act_layer="quick_gelu", num_heads=2, mean=(0.1, 0.2, 0.3))


def saved(tmp_path, architecture="vit_tiny_patch16_224", **changes):
    """A timm ViT with random weights and its file."""
    model = randomised(timm.create_model(architecture, num_classes=0, **SHAPE, **changes))
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    return model, tmp_path / "vit.pth"


@pytest.mark.parametrize(("size", "patch"), [(48, 8), (32, 4), (64, 16), (32, 16)])
def test_other_sizes_are_resampled_as_timm_does_it(size, patch, tmp_path):
    """The reference is timm's own conversion when it loads the file into a model of that size."""
    _, path = saved(tmp_path)
    shape, file = {**SHAPE, "img_size": size, "patch_size": patch}, {"file": str(path), "custom_load": False}
    theirs = timm.create_model("vit_tiny_patch16_224", pretrained=True, pretrained_cfg_overlay=file, num_classes=0, **shape)
    ours = create_encoder("vit_micro_patch8", patch, img_size=size, num_classes=0, global_pool="token").eval()
    account = load_encoder(ours, load_weights(path), new_head=True)
    assert ("patch projection resampled from 8 to" in account) == (patch != 8)
    assert ("position embedding interpolated from 4 x 4 to" in account) == (size // patch != 4)
    with torch.no_grad():
        pixels = images(side=size)
        torch.testing.assert_close(ours.forward_features(pixels), theirs.eval().forward_features(pixels), atol=1e-5, rtol=0)


@pytest.mark.parametrize("oblong", [(32, 64), (16, 64)])  # as many patches as the file's square, or not
def test_oblong_grids(oblong, tmp_path):
    _, path = saved(tmp_path)
    model = create_encoder("vit_micro_patch8", img_size=oblong, num_classes=0, global_pool="token")
    assert f"from 4 x 4 to {oblong[0] // 8} x {oblong[1] // 8}" in load_encoder(model, load_weights(path), new_head=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: {name: value for name, value in state.items() if "blocks" not in name or "norm1" in name}, "lacks"),
        (lambda state: {**state, "blocks.2.attn.extra": torch.ones(2)}, r"blocks\.2\.attn\.extra"),
        (
            lambda state: {name: value for name, value in state.items() if name != "blocks.3.attn.qkv.bias"},
            "blocks.3.attn.qkv",
        ),
        (lambda state: {name: value for name, value in state.items() if name != "blocks.3.ls2.gamma"}, "blocks.3.ls2.gamma"),
        (lambda state: {name: value for name, value in state.items() if name != "cls_token"}, "no class token"),
        (lambda state: {**state, "blocks.0.mlp.fc1.weight": torch.ones(256, 128)}, "blocks.0.mlp.fc1.weight is"),
        (lambda state: {name: value for name, value in state.items() if not name.startswith("norm.")}, "lacks norm"),
    ],
)
def test_a_tensor_too_few_or_too_many_is_named(change, words, tmp_path):
    model, path = saved(tmp_path, "vit_small_patch14_dinov2")
    torch.save(change(model.state_dict()), path)
    with pytest.raises(InputError, match=rf"vit\.pth .*{words}"):
        load_model(path)


def test_a_decoder_is_loaded_whole_or_left_aside(tmp_path):
    torch.manual_seed(0)
    source = randomised(create_autoencoder("msmae_vit_micro_patch8", img_size=32, num_classes=2))
    torch.save({"model": source.state_dict()}, tmp_path / "mae.pth")
    loaded = load_weights(tmp_path / "mae.pth")
    same = create_autoencoder("msmae_vit_micro_patch8", img_size=48, num_classes=3)
    account = load_encoder(same, loaded, new_head=True)
    assert torch.equal(same.decoder_pred.weight, source.decoder_pred.weight) and "newly initialised: head\n" in account
    other = create_autoencoder("msmae_vit_micro_patch8", img_size=32, num_classes=3, decoder_embed_dim=64)
    fresh = other.mask_token.clone()
    account = load_encoder(other, loaded, new_head=True)
    assert torch.equal(other.mask_token, fresh) and "left aside: decoder_blocks" in account


def test_every_step_keeps_what_the_source_says(phantoms, tmp_path, call, monkeypatch):
    """Pre-training from odd weights, fine-tuning, evaluation and segmentation: one variant, and it is used."""
    torch.manual_seed(0)
    model = create_autoencoder("msmae_vit_micro_patch8", img_size=32, num_classes=2, variant=ODD)
    torch.save({"model": model.state_dict(), "variant": ODD.plain()}, tmp_path / "odd.pth")
    data = f"--data_path {phantoms} --epochs 1 --warmup_epochs 0 --output_dir {tmp_path}"
    start = f"--init {tmp_path / 'odd.pth'}"
    tiny = TINY_PRETRAIN.replace("--model msmae_vit_micro_patch8 --input_size 32 --patch_size 8", "")
    status, out, err = call(f"main_pretrain.py {tiny} {start} {data}/pre --lr 0")
    assert status == 0 and "newly initialised: head\n" in out and "quick_gelu, pixel mean 0.1 0.2 0.3" in out, err
    pretrained = tmp_path / "pre" / "checkpoint-last.pth"
    assert checkpoint.load(pretrained).variant == ODD
    assert torch.equal(content_of(pretrained)["model"]["decoder_pred.weight"], model.decoder_pred.weight)

    status, _, err = call(f"main_pretrain.py {tiny} --resume {pretrained} --epochs 2 {data.replace('--epochs 1', '')}/pre")
    assert status == 0 and checkpoint.load(pretrained).variant == ODD, err

    seen = []
    from util.data import augment, inference

    def watched(pixels, mean, std):
        seen.append(mean)
        return augment.normalize(pixels, mean, std)

    monkeypatch.setattr(inference, "normalize", watched)
    monkeypatch.setattr("util.training.epoch.normalize", watched)
    status, _, err = call(f"main_finetune.py {TINY_FINETUNE} --finetune {pretrained} --masking none {data}/fine")
    finetuned = tmp_path / "fine" / "checkpoint-last.pth"
    assert status == 0 and load_model(finetuned).variant == ODD, err
    status, _, err = call(f"main_finetune.py --eval --resume {finetuned} --device cpu {data}/eval --cls_token")
    assert status == 2 and "lacks norm" in err  # the head reads the mean of the patches
    status, _, err = call(f"main_finetune.py --eval --resume {finetuned} --device cpu {data}/eval")
    assert status == 0 and set(seen) == {ODD.mean}, err


def test_segmentation_keeps_it_too(tmp_path, monkeypatch, capsys):
    from segmentation import train
    from util.phantom import write_phantoms

    write_phantoms(tmp_path / "data", train=4, val=2, size=32, seed=0, segmentation=True)
    model = create_encoder("vit_micro_patch8", img_size=32, num_classes=0, global_pool="token", variant=ODD)
    torch.save({"model": model.state_dict(), "variant": ODD.plain()}, tmp_path / "odd.pth")
    common = f"--root {tmp_path / 'data'} --device cpu --num_workers 0 --output_dir {tmp_path}"
    for options in (f"--checkpoint {tmp_path / 'odd.pth'} --patch_size 16 --epochs 1 -b 2 {common}/seg",
                    f"--evaluate {tmp_path / 'seg' / 'checkpoint-last.pth'} {common}/eval"):  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["train.py", *options.split()])
        run_script(train.main)
    assert "patch projection resampled from 8 to 16" in capsys.readouterr().out
    assert checkpoint.load(tmp_path / "seg" / "checkpoint-last.pth").variant == ODD


@pytest.mark.parametrize(
    "values",
    [{"norm_eps": "small"}, {"norm_eps": 2.0}, {"std": [0, 1, 1]}, {"mean": [0.5]}, {"act_layer": "eval"}, {"gate": True}],
)
def test_a_variant_that_makes_no_sense_is_named(values, tmp_path):
    torch.save({"model": {"w": torch.ones(1)}, "variant": values}, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=rf"odd\.pth.*{next(iter(values))}"):
        checkpoint.load(tmp_path / "odd.pth")
