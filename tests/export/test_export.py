"""Exports, read by the libraries that they are for: equal outputs, equal pre-processing, a card that says what is known."""

import json
import re
import sys
from importlib.util import find_spec

import pytest
import timm
import torch
from conftest import ROOT
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from weights.made_up import images, randomised

from models_msmae import create_autoencoder, load_model
from models_vit import create_encoder
from util.data.reading import Reading
from util.explain import attention_map, network_input
from util.export.__main__ import main
from util.masking import Split
from util.system.errors import run_script
from util.training import checkpoint
from util.variant import MAE, Variant
from util.weights.sources import load_weights

ECOSYSTEM = "pip install -r tests/requirements-ecosystem.txt"
CLASSES = ["benign", "malignant", "normal"]
OTHER = {"mean": (0.5, 0.4, 0.3), "std": (0.3, 0.2, 0.1)}
SCALED, EPS = Variant(layer_scale=True, num_heads=2, **OTHER), Variant(norm_eps=1e-12, **OTHER)
CLIP = Variant(norm_eps=1e-5, pre_norm=True, act_layer="quick_gelu")


@pytest.fixture
def export(capsys, monkeypatch):
    """Call ``python -m util.export`` in this process; give exit status, standard output and standard error."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["util.export", *map(str, arguments)])
        status = 0
        try:
            run_script(main)
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def written(path, model, phase="finetune"):
    """A checkpoint of a model, as a run writes it."""
    options = {"model": "vit_micro_patch8", "protocol": "paper", "blr": 1e-3, "data_path": "/home/a/busi", "device": "cpu"}
    options["norm_pix_loss"] = getattr(model, "norm_pix_loss", False)
    about = {"phase": phase, "epoch": 9, "classes": CLASSES, "args": options, "variant": model.variant.plain()}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, model=model.state_dict(), **about)
    return path


def classifier(folder, pool="avg", variant=MAE):
    """A classifier with random weights, and its checkpoint."""
    model = create_encoder("vit_micro_patch8", img_size=32, num_classes=3, global_pool=pool, variant=variant)
    return randomised(model), written(folder / "run" / "checkpoint-last.pth", model)


def autoencoder(folder, variant=MAE):
    model = create_autoencoder("msmae_vit_micro_patch8", img_size=32, num_classes=3, norm_pix_loss=True, variant=variant)
    return randomised(model), written(folder / "run" / "checkpoint-last.pth", model, "pretrain")


def scan(folder):
    """An image file, 50 x 40 pixels in colours, and its path."""
    pixels = torch.rand(10, 8, 3, generator=torch.Generator().manual_seed(2)) * 255
    image = Image.fromarray(pixels.to(torch.uint8).numpy()).resize((50, 40))
    image.save(folder / "scan.png")
    return image, str(folder / "scan.png")


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("pool", "variant"), [("avg", MAE), ("token", SCALED), ("token", CLIP)])
def test_timm_loads_it(pool, variant, export, tmp_path):
    """By the call that the card shows, and as a folder with all that it takes, the transform included."""
    model, path = classifier(tmp_path, pool, variant)
    status, out, err = export(path, "--to", "timm", tmp_path / "out")
    assert status == 0 and "checked with timm" in out, err
    folder = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code.replace('"model.safetensors"', repr(str(tmp_path / "out" / "model.safetensors"))), names)
    with torch.no_grad():
        same(model(images()), names["model"](images()))
        same(model(images()), folder(images()))
    image, file = scan(tmp_path)
    transform = create_transform(**resolve_model_data_config(folder), is_training=False)
    assert (transform(image) - network_input(model, file)[0]).abs().max() < 2 / 255 / min(variant.std)


def test_an_encoder_without_a_head(export, tmp_path):
    model = randomised(create_encoder("vit_micro_patch8", img_size=32, num_classes=0, global_pool="token"))
    torch.save(model.state_dict(), tmp_path / "encoder.pth")
    status, _, err = export(tmp_path / "encoder.pth", "--to", "timm", tmp_path / "out")
    assert status == 0 and "an encoder" in (tmp_path / "out" / "README.md").read_text(), err
    folder = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    with torch.no_grad():
        same(model(images()), folder(images()))


def test_the_commands_of_the_page(export, tmp_path):
    """docs/weights.md, but for ONNX, whose command :func:`test_onnx_runtime_computes_alike_for_any_batch` runs."""
    page = (ROOT / "docs" / "weights.md").read_text()
    commands = re.findall(r"^    python -m util\.export CHECKPOINT (--to (\w+) DIR.*)$", page, re.M)
    assert [to for _, to in commands] == ["timm", "hf", "onnx", "safetensors"]
    _, path = classifier(tmp_path)
    for options, to in commands:
        if to in ("timm", "safetensors") or (to == "hf" and find_spec("transformers")):
            status, _, err = export(path, *options.replace("DIR", str(tmp_path / "out")).split())
            assert status == 0 and (tmp_path / f"out-{to}" / "README.md").exists(), err


def test_timm_by_the_call_alone_where_its_config_cannot_say_it(export, tmp_path):
    model, path = classifier(tmp_path, "avg", EPS)
    status, out, err = export(path, "--to", "timm", tmp_path / "out")
    assert status == 0 and "eps, 1e-12 here" in out and not (tmp_path / "out" / "config.json").exists(), err
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code.replace('"model.safetensors"', repr(str(tmp_path / "out" / "model.safetensors"))), names)
    with torch.no_grad():
        same(model(images()), names["model"](images()))
    assert names["model"].fc_norm.eps == 1e-12
    assert load_weights(tmp_path / "out" / "model.safetensors").variant == EPS  # from the file's metadata


@pytest.mark.parametrize("make", [classifier, autoencoder])
def test_safetensors_come_back_as_they_were(make, export, tmp_path):
    model, path = make(tmp_path, variant=SCALED)
    status, _, err = export(path, "--to", "safetensors", tmp_path / "out")
    assert status == 0, err
    again, source = load_model(tmp_path / "out" / "model.safetensors"), load_weights(tmp_path / "out" / "model.safetensors")
    assert again.variant == SCALED and source.classes == CLASSES and source.options["blr"] == 1e-3
    assert "data_path" not in source.options
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("pool", "variant", "kind"),
    [
        ("token", EPS, "ViTForImageClassification"),
        ("avg", MAE, "BeitForImageClassification"),
        ("token", SCALED, "BeitForImageClassification"),
        ("avg", SCALED, "BeitForImageClassification"),
    ],
)
def test_hugging_face_classifies_alike(pool, variant, kind, export, tmp_path):
    transformers = pytest.importorskip("transformers", reason=ECOSYSTEM)
    model, path = classifier(tmp_path, pool, variant)
    status, _, err = export(path, "--to", "hf", tmp_path / "out")
    assert status == 0, err
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    assert type(theirs).__name__ == kind and theirs.config.id2label == dict(enumerate(CLASSES))
    with torch.no_grad():
        same(model(images()), theirs(images()).logits)
    image, file = scan(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    assert (pixels - network_input(model, file)).abs().max() < 2 / 255 / min(variant.std)


def test_hugging_face_reconstructs_alike(export, tmp_path):
    transformers = pytest.importorskip("transformers", reason=ECOSYSTEM)
    model, path = autoencoder(tmp_path, EPS)
    status, out, err = export(path, "--to", "hf", tmp_path / "out")
    assert status == 0 and "the head is left out" in out, err
    theirs, noise = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path / "out").eval(), torch.rand(2, 16)
    order = noise.argsort(1)
    split = Split(visible=order[:, :4], masked=order[:, 4:], thrown=order[:, :0])
    with torch.no_grad():
        whole = theirs(images(), noise=noise)
        ours = model.decode(model.forward_features(images(), split.visible), split.visible, split.masked)
        loss = model(images(), split, torch.zeros(2, dtype=torch.int64)).reconstruction
    same(ours, whole.logits.gather(1, split.masked[..., None].expand(-1, -1, 192)))
    same(loss, whole.loss)
    again = load_weights(tmp_path / "out")  # and our own scripts take it
    assert torch.equal(again.parameters["blocks.5.attn.qkv.bias"], model.blocks[5].attn.qkv.bias)


@pytest.mark.parametrize(("source", "variant"), [(None, SCALED), ("last", CLIP)])
def test_onnx_runtime_computes_alike_for_any_batch(source, variant, export, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason=ECOSYSTEM)
    pytest.importorskip("onnxscript", reason=ECOSYSTEM)
    model, path = classifier(tmp_path, "token", variant)
    status, out, err = export(path, "--to", "onnx", tmp_path / "out", *(("--with_map", source) if source else ()))
    assert status == 0 and "checked with onnxruntime" in out, err
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    assert [output.name for output in session.get_outputs()] == (["logits", "map"] if source else ["logits"])
    for count in (1, 3):
        results = session.run(None, {"pixel_values": images(count).numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(results[0]), model(images(count)), atol=1e-4, rtol=0)
    if source:
        _, file = scan(tmp_path)
        pixels = network_input(model, file)
        found = session.run(["map"], {"pixel_values": pixels.numpy()})[0][0]
        torch.testing.assert_close(torch.from_numpy(found), attention_map(model, file, source), atol=1e-4, rtol=0)


def test_the_card_tells_what_is_known(export, tmp_path):
    _, path = classifier(tmp_path)
    metrics = {"checkpoint": str(path), "split": "test", "images": 80, "top1": 0.9, "macro_auc": 0.95, "remarks": ["few"]}
    metrics["intervals"] = {"top1": [0.81, 0.955], "macro_auc": [0.9, 0.98]}
    (path.parent / "metrics.json").write_text(json.dumps(metrics))
    assert export(path, "--to", "timm", tmp_path / "out")[0] == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for words in (
        *("| top-1 | 90.00 % (81.00 to 95.50) |", "On the 80 images of `test/`", "Note: few.", "data set `busi`"),
        *("benign, malignant, normal", "--blr 0.001", "not a medical device", "MIT licence", "library_name: timm"),
    ):
        assert words in card, words
    assert "/home/a" not in card and "--device" not in card


def test_a_temperature_is_told(export, tmp_path):
    _, path = classifier(tmp_path)
    content = checkpoint.load(path).content
    checkpoint.save(path, **{**content, "decision": {"temperature": 1.5, "cutoff": None}})
    status, out, err = export(path, "--to", "safetensors", tmp_path / "out")
    assert status == 0 and "divide them by the temperature 1.5" in out, err
    assert "divide them by the temperature 1.5" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("to", ["safetensors", "timm", "hf"])
def test_how_images_are_read_comes_along(to, export, tmp_path):
    """Else the same scan would be another picture, and of another class."""
    if to == "hf":
        pytest.importorskip("transformers", reason=ECOSYSTEM)
    _, path = classifier(tmp_path, "token")
    content = checkpoint.load(path).content
    content["args"] |= {"intensity_range": [0.0, 4095.0], "slice": [2, "middle"]}
    checkpoint.save(path, **content)
    status, out, err = export(path, "--to", to, tmp_path / "out")
    assert status == 0 and "0 becomes 0, 4095 becomes 255" in out and "slice middle along axis 2" in out, err
    assert "4095 becomes 255" in (tmp_path / "out" / "README.md").read_text()
    again = tmp_path / "out" / "model.safetensors" if to == "safetensors" else tmp_path / "out"
    assert load_model(again).reading == Reading(intensity_range=(0.0, 4095.0), slice=(2, "middle"))


def test_figures_of_another_checkpoint_are_not_taken(export, tmp_path):
    _, path = classifier(tmp_path)
    metrics = {"checkpoint": str(written(tmp_path / "b" / "checkpoint-best.pth", load_model(path))), "images": 80, "top1": 1}
    (path.parent / "metrics.json").write_text(json.dumps(metrics))
    status, out, _ = export(path, "--to", "timm", tmp_path / "out")
    assert status == 0 and "the model card has no figures" in out
    assert "no evaluation on record" in (tmp_path / "out" / "README.md").read_text()
    status, _, err = export(path, "--to", "timm", tmp_path / "two", "--metrics", path.parent / "metrics.json")
    assert status == 2 and "checkpoint-best.pth, not of" in err and not (tmp_path / "two").exists()


def test_figures_of_what_the_checkpoint_was_before_are_not_taken(export, tmp_path):
    _, path = classifier(tmp_path)
    metrics = {"checkpoint": str(path), "checkpoint_sha256": checkpoint.load(path).sha256, "images": 80, "top1": 1}
    (path.parent / "metrics.json").write_text(json.dumps(metrics))
    assert "figures of the model card:" in export(path, "--to", "timm", tmp_path / "out")[1]
    checkpoint.save(path, **{**checkpoint.load(path).content, "epoch": 7})  # it was trained on
    status, out, _ = export(path, "--to", "timm", tmp_path / "two")
    assert status == 0 and "as it was before: the model card has no figures" in out


def test_the_file_of_weights_in_an_exported_folder_is_taken_too(export, tmp_path):
    model, path = classifier(tmp_path)
    assert export(path, "--to", "timm", tmp_path / "out")[0] == 0
    again = load_weights(tmp_path / "out" / "model.safetensors")
    same(model.state_dict()["patch_embed.proj.weight"], again.parameters["patch_embed.proj.weight"])


def test_the_current_folder_can_be_the_place(export, tmp_path, monkeypatch):
    _, path = classifier(tmp_path)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    status, out, err = export(path, "--to", "safetensors", ".")
    assert status == 0 and "written in .: " in out and (tmp_path / "out" / "model.safetensors").is_file(), err
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(export, tmp_path):
    _, path = classifier(tmp_path, "token", CLIP)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    segmenter = written(tmp_path / "seg" / "checkpoint-last.pth", load_model(path), "segmentation")
    cases = [
        ((path, "--to", "timm", tmp_path / "full"), "is there already"),
        ((path, "--to", "timm", tmp_path / "out", "--with_map"), "--with_map is for --to onnx"),
        ((tmp_path / "none.pth", "--to", "timm", tmp_path / "out"), "no such file"),
        ((segmenter, "--to", "timm", tmp_path / "out"), "segmentation"),
        ((path, "--to", "timm", tmp_path / "out", "--metrics", tmp_path / "none.json"), "--metrics"),
    ]
    if find_spec("transformers"):
        cases.append(((path, "--to", "hf", tmp_path / "out"), "norm before the blocks"))
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        cases.append(((path, "--to", "onnx", tmp_path / "out", "--with_map", "relevance"), "gradients"))
        cases.append(((path, "--to", "onnx", tmp_path / "out", "--with_map", "block9"), "--with_map block9"))
    for arguments, words in cases:
        status, _, err = export(*arguments)
        assert status == 2 and words in err and len(err.splitlines()) == 1, (arguments, err)
    assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("to", ["hf", "onnx"])
def test_a_missing_package_is_named(to, export, tmp_path, monkeypatch):
    _, path = classifier(tmp_path)
    monkeypatch.setattr("util.export.exported.find_spec", lambda name: None)
    status, _, err = export(path, "--to", to, tmp_path / "out")
    assert status == 2 and "pip install -r requirements-export.txt" in err and not (tmp_path / "out").exists()
