"""Damaged and malformed checkpoints: what loads is what was written, all else ends in one line."""

import random

import pytest
import torch
from conftest import TINY_PRETRAIN, content_of
from mutations import damage_bytes, damage_fields, of_routes, start, without_work

from util.system.errors import InputError
from util.system.text import one_line
from util.training import checkpoint

MODEL = {"cls_token": torch.zeros(1, 1, 4), "pos_embed": torch.rand(1, 5, 4), "head.weight": torch.rand(3, 4)}
CONTENT = {"phase": "pretrain", "epoch": 3, "classes": ["a", "b"], "args": {"lr": 0.1}, "model": MODEL}


def test_changed_bytes_are_found(tmp_path):
    """Of 300 files with a few other bytes, each loads what was written or is refused in one line."""
    refused, wrong = damage_bytes(CONTENT, tmp_path / "checkpoint-last.pth", 300, random.Random(0))
    assert not wrong and refused > 150


@pytest.mark.parametrize("route", ["pretrain --resume", "pretrain --finetune", "finetune --eval", "finetune --resume"])
def test_changed_fields_are_refused_or_valid(route, pretrained, finetuned, phantoms, tmp_path):
    """A script with such a checkpoint begins its work, the optimiser's first step included, or ends in one line."""
    phase = route.split()[0]
    path = tmp_path / "checkpoint-last.pth"
    main, command = of_routes(path, phantoms, phantoms, tmp_path / "out")[route]
    content = content_of({"pretrain": pretrained, "finetune": finetuned}[phase] / "checkpoint-last.pth")
    checkpoint.save(path, **content)
    with without_work():
        assert start(main, command) == (0, "")  # as it was, it is taken
    refused, wrong = damage_fields(content, path, 12, random.Random(len(route)), main, command)
    assert not wrong and refused


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
        "head.weight holds infinite values or NaN",
    ),
    "int8": ({"model": {**MODEL, "head.weight": torch.zeros(3, 4, dtype=torch.int8)}}, "torch.int8"),
    "complex": ({"model": {**MODEL, "head.weight": torch.zeros(3, 4, dtype=torch.complex64)}}, "torch.complex64"),
    "list": ({"model": {**MODEL, "head.weight": [1.0, 2.0]}}, "head.weight is no tensor"),
    "key": ({"model": {**MODEL, 7: torch.zeros(1)}}, "named 7"),
    "args": ({"args": ["lr"]}, "args is list"),
    "format": ({"format": "three"}, "format is str"),
    "classes": ({"classes": "ab"}, "classes is str"),
    "sparse": ({"model": {**MODEL, "head.weight": torch.ones(3, 4).to_sparse()}}, "sparse"),
    "endless": ({"model": {**MODEL, "head.weight": torch.ones(1, 1).expand(10**6, 10**6)}}, "more numbers than the file"),
    "step": ({"step": -1}, "with a step -1"),
    "best": ({"best": {"epoch": 1, "val_top1": "high"}}, "best is not"),
    "option": ({"args": {"lr": torch.zeros(2)}}, "not plain"),
    "control": ({"model": {**MODEL, "a\x1b[31m\n": 1}}, "is no tensor"),
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
    shown = one_line(str(error.value))  # as a script shows it
    assert words in shown and "other.pth" in shown and shown.isprintable()


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


RECORDED = {"lr": "fast", "epochs": [1], "masking": "all", "crop_scale": [0.2], "compile": "yes", "seed": 0.5, "keep": -1}


@pytest.mark.parametrize("name", RECORDED)
def test_an_option_that_no_command_line_could_give_is_named(name, call, pretrained, tmp_path):
    content = content_of(pretrained / "checkpoint-last.pth")
    content["args"] |= {"clip_grad": "0.5", name: RECORDED[name]}  # a number as text is read
    checkpoint.save(tmp_path / "other.pth", **content)
    status, _, err = call(f"main_pretrain.py --resume {tmp_path / 'other.pth'} --output_dir {tmp_path / 'out'}")
    assert status == 2 and f"was made with --{name} " in err and len(err.splitlines()) == 1
