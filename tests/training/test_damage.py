"""Damaged and malformed checkpoints: what loads is what was written, all else ends in one line."""

import random

import pytest
import torch
from conftest import TINY_PRETRAIN

from util.system.errors import InputError
from util.training import checkpoint

MODEL = {"cls_token": torch.zeros(1, 1, 4), "pos_embed": torch.rand(1, 5, 4), "head.weight": torch.rand(3, 4)}
CONTENT = {"phase": "pretrain", "epoch": 3, "classes": ["a", "b"], "args": {"lr": 0.1}, "model": MODEL}


def test_changed_bytes_are_found(tmp_path):
    """Of 300 files with a few other bytes, each loads the tensors that were written or is refused in one line."""
    path, rng, refused = tmp_path / "checkpoint-last.pth", random.Random(0), 0
    checkpoint.save(path, **CONTENT)
    written = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(written)
        start = rng.randrange(len(written))
        for offset in range(start, min(start + rng.choice((1, 1, 8, 64)), len(written))):
            damaged[offset] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error) and str(error).isprintable()
        else:
            assert all(torch.equal(loaded.parameters[name], value) for name, value in MODEL.items())
            assert loaded.options == CONTENT["args"] and loaded.classes == CONTENT["classes"]
    assert refused > 150


def test_a_half_overwritten_tensor_is_neither_resumed_nor_taken_for_the_newest(call, phantoms, pretrained, tmp_path):
    last, other = tmp_path / "checkpoint-last.pth", tmp_path / "checkpoint-2.pth"
    content = bytearray((pretrained / "checkpoint-last.pth").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 100_000] = bytes(100_000)
    last.write_bytes(content)
    other.write_bytes((pretrained / "checkpoint-2.pth").read_bytes())
    status, _, err = call(f"main_finetune.py --eval --resume {last} --data_path {phantoms} --output_dir {tmp_path / 'e'}")
    assert status == 2 and "checkpoint-last.pth is damaged: the checksum of" in err and len(err.splitlines()) == 1
    command = f"main_pretrain.py {TINY_PRETRAIN} --epochs 3 --sam_epoch 2 --data_path {phantoms} --output_dir {tmp_path}"
    status, out, err = call(f"{command} --resume auto")
    assert status == 0 and "skipped: " in out and "is damaged" in out and f"resuming {other}" in out, err


MALFORMED = {
    "nan": (
        {"model": {**MODEL, "head.weight": torch.full((3, 4), float("nan"))}},
        "head.weight holds infinite values or none",
    ),
    "int8": ({"model": {**MODEL, "head.weight": torch.zeros(3, 4, dtype=torch.int8)}}, "torch.int8"),
    "complex": ({"model": {**MODEL, "head.weight": torch.zeros(3, 4, dtype=torch.complex64)}}, "torch.complex64"),
    "list": ({"model": {**MODEL, "head.weight": [1.0, 2.0]}}, "head.weight is no tensor"),
    "key": ({"model": {**MODEL, 7: torch.zeros(1)}}, "named 7"),
    "args": ({"args": ["lr"]}, "args is list"),
    "format": ({"format": "three"}, "format is str"),
    "classes": ({"classes": "ab"}, "classes is str"),
    "class": ({"classes": ["a", 3]}, "a class has a name that is no text"),
    "epoch": ({"epoch": None}, "epoch is NoneType"),
    "position": ({"model": {**MODEL, "pos_embed": torch.zeros(4)}}, "pos_embed is (4,)"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_fields_are_named(name, tmp_path):
    changed, words = MALFORMED[name]
    torch.save({**CONTENT, **changed}, tmp_path / "other.pth")
    with pytest.raises(InputError) as error:
        checkpoint.load(tmp_path / "other.pth")
    assert words in str(error.value) and "other.pth" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["epoch", "classes", "args"])
def test_missing_fields_are_named(missing, tmp_path):
    torch.save({name: value for name, value in CONTENT.items() if name != missing}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=f"lacks {missing}"):
        checkpoint.load(tmp_path / "other.pth")


OTHER_FILES = {
    "empty": (b"", "is empty"),
    "page": (b"<!DOCTYPE html><html>404</html>", "is a web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_files_that_are_no_checkpoint_are_told_apart(name, tmp_path):
    content, words = OTHER_FILES[name]
    (tmp_path / "other.pth").write_bytes(content)
    with pytest.raises(InputError, match=words):
        checkpoint.load(tmp_path / "other.pth")


def test_a_whole_pickled_model_is_refused_without_advice_to_load_it(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(InputError, match="would run code, such as a whole pickled model") as error:
        checkpoint.load(tmp_path / "model.pth")
    assert "weights_only" not in str(error.value)


def test_a_grid_that_is_no_square_is_named(tmp_path):
    shape = {"patch_embed.proj.weight": torch.zeros(4, 3, 8, 8), "blocks.0.norm1.weight": torch.ones(4)}
    torch.save({"model": {**MODEL, **shape, "pos_embed": torch.zeros(1, 7, 4)}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="6 patches, which form no square"):
        _ = checkpoint.load(tmp_path / "other.pth").input_size
