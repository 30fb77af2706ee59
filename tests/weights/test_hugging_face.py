"""Folders of Hugging Face, made by transformers itself: the same features and reconstructions, or one line."""

import json

import pytest
import torch
from weights.made_up import HF_DECODER, HF_SHAPE, difference, images, randomised

from models_msmae import create_autoencoder, load_model
from util.masking import Split
from util.system.errors import InputError
from util.weights.into_model import load_encoder
from util.weights.sources import load_weights

transformers = pytest.importorskip("transformers", reason="pip install -r tests/requirements-ecosystem.txt")


def saved(kind, folder, **options):
    """A model of transformers with random weights, saved; ``kind`` as in ViTModel."""
    config = getattr(transformers, f"{kind.removesuffix('Model').split('For')[0]}Config")(**HF_SHAPE, **options)
    model = randomised(getattr(transformers, kind)(config))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(("kind", "eps"), [("ViTModel", 1e-12), ("ViTModel", 1e-3), ("Dinov2Model", 1e-6)])
def test_an_encoder_gives_the_librarys_features(kind, eps, tmp_path):
    model = saved(kind, tmp_path, layer_norm_eps=eps)
    assert difference(tmp_path, lambda pixels: model(pixels).last_hidden_state) < 1e-5
    assert load_weights(tmp_path / "model.safetensors").variant == load_weights(tmp_path).variant
    assert load_model(tmp_path).variant.norm_eps == eps


@pytest.mark.parametrize("kind", ["ViTForImageClassification", "Dinov2ForImageClassification"])
def test_a_classifier(kind, tmp_path):
    """DINOv2's head reads the class token and the mean of the patches, which no head here does: it is left aside."""
    model = saved(kind, tmp_path, id2label={0: "no", 1: "yes", 2: "unsure"}, label2id={"no": 0, "yes": 1, "unsure": 2})
    ours = load_model(tmp_path)
    if kind.startswith("ViT"):
        with torch.no_grad():
            torch.testing.assert_close(ours.classify(images()), model(images()).logits, atol=1e-5, rtol=0)
        assert load_weights(tmp_path).classes == ["no", "yes", "unsure"]
    else:
        assert difference(tmp_path, lambda pixels: model.dinov2(pixels).last_hidden_state) < 1e-5
        assert "left aside: classifier" in load_encoder(ours, load_weights(tmp_path), new_head=True)


@pytest.mark.parametrize("published", [False, True])
def test_an_autoencoder_reconstructs_as_the_librarys(published, tmp_path):
    """The decoder's blocks have other names in published folders than in those that transformers 5.24 writes."""
    model = saved("ViTMAEForPreTraining", tmp_path, **HF_DECODER)
    if published:
        from safetensors.torch import load_file, save_file

        state = load_file(tmp_path / "model.safetensors")
        state = {name.replace("decoder_encoder.layer.", "decoder_layers."): value for name, value in state.items()}
        assert any(".decoder_layers." in name for name in state)
        save_file(state, tmp_path / "model.safetensors")
    ours, noise = load_model(tmp_path), torch.rand(2, 16)
    order = noise.argsort(1)
    split = Split(visible=order[:, :4], masked=order[:, 4:], thrown=order[:, :0])
    with torch.no_grad():
        theirs = model(images(), noise=noise).logits.gather(1, split.masked[..., None].expand(-1, -1, 192))
        reconstructed = ours.decode(ours.forward_features(images(), split.visible), split.visible, split.masked)
    torch.testing.assert_close(reconstructed, theirs, atol=1e-5, rtol=0)
    fresh = create_autoencoder("msmae_vit_micro_patch8", img_size=32, num_classes=2, variant=ours.variant)
    account = load_encoder(fresh, load_weights(tmp_path), new_head=True)
    assert torch.equal(fresh.decoder_blocks[1].mlp.fc2.weight, ours.decoder_blocks[1].mlp.fc2.weight)
    assert "left aside: none; newly initialised: head\n" in account


def test_normalisation_is_that_of_the_folder(tmp_path):
    saved("ViTModel", tmp_path)
    assert load_weights(tmp_path).variant.mean == (0.485, 0.456, 0.406)
    transformers.ViTImageProcessor(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]).save_pretrained(tmp_path)
    variant = load_weights(tmp_path).variant
    assert (variant.mean, variant.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": [0, 0, 0]}')
    with pytest.raises(InputError, match="mean of its encoder"):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "swin"}, "'swin' of Hugging Face's; vit, vit_mae, dinov2"),
        ({"model_type": "dinov2_with_registers"}, "register tokens"),
        ({"use_swiglu_ffn": True}, "SwiGLU"),
        ({"qkv_bias": False}, "no bias of queries"),
        ({"num_attention_heads": 3}, "3 attention heads do not divide the width 128"),
        ({"hidden_act": "silu"}, "activation 'silu'"),
        ({"num_hidden_layers": None}, "config.json: "),
        ({"num_hidden_layers": 5}, "no encoder that is known|another architecture|has blocks"),
    ],
)
def test_what_is_not_built_is_refused_by_name(changes, words, tmp_path):
    saved("Dinov2Model", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InputError, match=words) as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)
