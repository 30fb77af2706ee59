"""Weights of timm, DINOv2 and MAE's kin: the same features as in the library that made the file, or one line."""

import json

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from stress import hostile_checkpoints
from timm.models import save_for_hf
from weights.made_up import SHAPE, difference, images, randomised

from models_msmae import load_model
from util.system.errors import InputError
from util.weights.sources import load_weights

PLAIN, SCALED, NO_CLASS_POSITION, CLIP = (
    *("vit_tiny_patch16_224", "vit_small_patch14_dinov2", "deit3_small_patch16_224", "vit_base_patch16_clip_224"),
)


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


FILES = {
    "bare.pth": lambda state: state,
    "bare.safetensors": lambda state: state,
    "pytorch_model.bin": lambda state: {"model": state, "epoch": 3},
    "parallel.pth": lambda state: {"state_dict": prefixed(state, "module."), "epoch": 3, "arch": "vit"},
    "compiled.pth": lambda state: prefixed(state, "_orig_mod."),
    "teacher.pth": lambda state: {"teacher": {**prefixed(state, "backbone."), "dino_head.mlp.0.weight": torch.ones(2, 2)}},
}


@pytest.mark.parametrize("architecture", [PLAIN, SCALED, NO_CLASS_POSITION, CLIP])
def test_each_architecture_gives_timms_features(architecture, tmp_path):
    model = randomised(timm.create_model(architecture, num_classes=5, **SHAPE))
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    assert difference(tmp_path / "vit.pth", model.forward_features) < 1e-5
    with torch.no_grad():
        logits = load_model(tmp_path / "vit.pth").classify(images())
        torch.testing.assert_close(logits, model(images()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FILES)
def test_each_kind_of_file_is_read(name, tmp_path):
    model = randomised(timm.create_model(SCALED, **SHAPE))
    content = FILES[name](model.state_dict())
    (save_file if name.endswith("safetensors") else torch.save)(content, tmp_path / name)
    assert difference(tmp_path / name, model.forward_features) < 1e-5


def test_blocks_in_chunks_and_an_old_layer_scale(tmp_path):
    """As DINOv2's training and DeiT III name them."""
    model, state = randomised(timm.create_model(SCALED, **SHAPE)), {}
    for name, value in model.state_dict().items():
        parts = name.split(".")
        chunked = [parts[0], str(int(parts[1]) // 3), *parts[1:]] if parts[0] == "blocks" else parts
        state[".".join(chunked).replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")] = value
    assert "blocks.1.5.gamma_2" in state
    torch.save({"teacher": prefixed(state, "backbone.")}, tmp_path / "teacher.pth")
    assert difference(tmp_path / "teacher.pth", model.forward_features) < 1e-5


@pytest.mark.parametrize(("pooling", "head"), [("avg", 3), ("token", 0)])
def test_a_folder_as_timm_writes_it(pooling, head, tmp_path):
    """QuickGELU, eps and normalisation, which no tensor tells, come from its config.json."""
    architecture, options = "vit_base_patch16_clip_quickgelu_224", {**SHAPE, "global_pool": pooling, "num_classes": head}
    model = randomised(timm.create_model(architecture, **options))
    save_for_hf(model, tmp_path / "clip", model_args={name: options[name] for name in SHAPE})
    source = load_weights(tmp_path / "clip")
    assert source.variant.act_layer == "quick_gelu" and source.variant.pre_norm and source.variant.norm_eps == 1e-5
    assert source.variant.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert difference(tmp_path / "clip", model.forward_features) < 1e-5
    file = load_weights(tmp_path / "clip" / "pytorch_model.bin")  # the folder's file is the folder
    assert (file.variant, file.classes, file.outputs) == (source.variant, source.classes, head)


@pytest.mark.parametrize(
    "odd",
    [
        {"global_pool": "max"},
        {"global_pool": "avgmax"},
        {"global_pool": "avg", "fc_norm": False},
        {"global_pool": "token", "fc_norm": True},
        {"global_pool": "avg", "pool_include_prefix": True},
        {"global_pool": "map"},
    ],
)
def test_a_head_that_reads_otherwise_is_left_behind(odd, tmp_path, capsys):
    model = randomised(timm.create_model("vit_tiny_patch16_224", **SHAPE, **odd, num_classes=3))
    save_for_hf(model, tmp_path / "odd", model_args=SHAPE | odd)
    source = load_weights(tmp_path / "odd")
    assert source.outputs == 0 and "only its encoder is taken" in capsys.readouterr().out
    assert difference(tmp_path / "odd", model.forward_features) < 1e-5


def test_an_older_config_says_mean_and_deviation_at_its_top(tmp_path):
    save_for_hf(timm.create_model("vit_tiny_patch16_224", **SHAPE), tmp_path / "old", model_args=SHAPE)
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    (tmp_path / "old" / "config.json").write_text(json.dumps({**config.pop("pretrained_cfg"), **config}))
    assert load_weights(tmp_path / "old").variant.mean == (0.5, 0.5, 0.5)


def in_cache(monkeypatch, folder, name, state):
    """Put a file into a hub's cache, as huggingface_hub lays it out."""
    hub = timm.get_pretrained_cfg(name).hf_hub_id
    snapshot = folder / f"models--{hub.replace('/', '--')}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    save_file(state, snapshot / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))


def test_a_model_of_timm_by_name(monkeypatch, tmp_path):
    name = "vit_tiny_patch16_224"
    model = randomised(timm.create_model(name))
    in_cache(monkeypatch, tmp_path, name, model.state_dict())
    assert difference(f"timm:{name}", model.forward_features, side=224) < 1e-5
    source = load_weights(f"timm:{name}")
    assert source.variant.mean == (0.5, 0.5, 0.5) and source.variant.num_heads == 3 and source.outputs == 1000


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vit_tiny_patch16_224", "not in the local cache; fetch them by python -c"),
        ("vit_tiny_patch16_224.nothing", "nothing"),
        ("vit_of_nobody", "no model of this name"),
        ("vit_base_patch16_siglip_224", "no class token"),
        ("vit_small_patch14_reg4_dinov2", "register tokens"),
        ("deit_tiny_distilled_patch16_224", "distillation token"),
        ("vit_giant_patch14_dinov2", "other blocks"),
        ("beit_base_patch16_224", "another architecture"),
    ],
)
def test_a_model_of_timm_that_is_not_there_or_not_built(name, words, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=f"timm:{name}.*{words}"):
        load_weights(f"timm:{name}")


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("vit_base_patch16_siglip_224", "no class token"),
        ("vit_small_patch14_reg4_dinov2", "register tokens"),
        ("deit_tiny_distilled_patch16_224", "distillation token"),
        ("vit_giant_patch14_dinov2", "blocks.0.mlp.fc1"),
        ("resnet18", "no ViT encoder"),
    ],
)
def test_a_file_of_another_architecture_is_refused_by_name(architecture, words, tmp_path):
    shape = {} if architecture == "resnet18" else SHAPE
    torch.save(timm.create_model(architecture, **shape).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match=rf"other\.pth.*({words})") as error:
        load_model(tmp_path / "other.pth")
    assert "\n" not in str(error.value)


def test_a_folder_of_nothing_and_a_hostile_one(tmp_path):
    with pytest.raises(InputError, match=r"without config\.json"):
        load_weights(tmp_path)
    trace = tmp_path / "it-ran"
    hostile_checkpoints(tmp_path, trace)[0].rename(tmp_path / "pytorch_model.bin")
    for config in ('{"architecture": "vit_tiny_patch16_224", "model_args": [1]}', '{"model_type": []}', "[]"):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(InputError, match=tmp_path.name):
            load_weights(tmp_path)
    for config in ('{"model_type": "vit"}', '{"architecture": "vit_tiny_patch16_224"}'):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(InputError, match="loaded safely"):
            load_weights(tmp_path)
    assert not trace.exists()
