"""Segmentation's command line: the two protocols, the authors' command lines, and what a checkpoint settles."""

import argparse
import sys

import pytest
import torch
from conftest import content_of
from test_errors import expect_one_line

from models_vit import create_encoder
from segmentation import train
from segmentation.options import get_args
from segmentation.protocol import PROTOCOLS, departures
from util.options.parsed import plain
from util.options.protocol import describe
from util.system.errors import InputError
from util.system.errors import run_script as run_main
from util.training import checkpoint

AUTHORS = "--name setr --batch_size 8 --arch setr --input_w 224 --input_h 224 --dataset busi --img_ext .png --mask_ext .png"
COMMON = {
    **{"epochs": 200, "batch_size": 8, "lr": 1e-4, "min_lr": 1e-5, "weight_decay": 1e-4, "optimizer": "Adam"},
    **{"scheduler": "cosine", "warmup_epochs": 0, "loss": "BCEDiceLoss", "flips": False, "crop_scale": (1, 1)},
    **{"model": "vit_base_patch16", "patch_size": 16, "input_w": 224, "input_h": 224, "deep_supervision": False},
}
RELEASED = {
    **{"final_norm": False, "align_corners": True, "antialias": False, "encoder_init": "truncated_normal"},
    **{"turn_probability": 0.5, "schedule_step": "epoch", "best_by": "batch_iou", "protocol": "paper"},
}
BEFORE = {
    **{"final_norm": True, "align_corners": False, "antialias": True, "encoder_init": "xavier"},
    **{"turn_probability": 1, "schedule_step": "iteration", "best_by": "image_iou", "protocol": "tuned"},
}


def parsed(text: str) -> dict:
    return vars(get_args(["--root", "DIR", *text.split()]))


def call(text, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--root", "DIR", *text.split()])
    with pytest.raises(SystemExit) as stop:
        run_main(train.main)
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A pre-training's checkpoint of a tiny encoder on 6 x 6 patches of 8 px."""
    path = tmp_path_factory.mktemp("encoder") / "checkpoint-last.pth"
    model = create_encoder("vit_tiny_patch16", 8, img_size=48, num_classes=3)
    options = argparse.Namespace(model="msmae_vit_tiny_patch16", num_classes=3, epochs=7, batch_size=32)
    checkpoint.save(path, epoch=0, phase="pretrain", args=vars(options), model=model.state_dict(), classes=["a", "b", "c"])
    return path


def segmenter(path, options: dict):
    """A segmentation checkpoint that holds these options."""
    args = plain(argparse.Namespace(**options))
    checkpoint.save(path, epoch=0, phase="segmentation", args=args, model={"x": torch.zeros(1)}, classes=["0"])
    return path


@pytest.mark.parametrize(
    ("option", "expected"), [("", RELEASED), ("--protocol paper", RELEASED), ("--protocol tuned", BEFORE)]
)
def test_protocols(option, expected):
    args = parsed(option)
    assert {name: args[name] for name in COMMON | expected} == COMMON | expected
    assert departures(argparse.Namespace(**args)) == {}


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        *[(f"--{name}", name, True) for name in ("final_norm", "antialias", "flips", "deep_supervision")],
        ("--no-align_corners", "align_corners", False),
        ("--encoder_init xavier", "encoder_init", "xavier"),
        ("--turn_probability 0.25", "turn_probability", 0.25),
        ("--schedule_step iteration", "schedule_step", "iteration"),
        ("--best_by image_iou", "best_by", "image_iou"),
        ("--crop_scale 0.5 1", "crop_scale", (0.5, 1)),
    ],
)
def test_one_option_by_hand_is_the_one_departure(option, name, value):
    args = get_args(["--root", "DIR", *option.split()])
    assert vars(args) == vars(get_args(["--root", "DIR"])) | {name: value}
    assert departures(args) == {name: (value, PROTOCOLS["paper"][name])}
    assert describe("paper", departures(args)).startswith(f"protocol: paper, except {option} (paper: ")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (f"{AUTHORS} --epochs 200", COMMON | RELEASED),
        ("-b 4 -a setr --learning_rate 0.002", {"batch_size": 4, "arch": "setr", "lr": 0.002}),
        ("--scheduler CosineAnnealingLR", {"scheduler": "cosine"}),
        ("--scheduler ReduceLROnPlateau --factor 0.5", {"scheduler": "plateau", "factor": 0.5}),
        ("--scheduler MultiStepLR --milestones 1,2", {"scheduler": "multistep", "milestones": (1, 2)}),
        ("--scheduler ConstantLR --milestones 1 2,3", {"scheduler": "constant", "milestones": (1, 2, 3)}),
        ("--deep_supervision False --nesterov False", {"deep_supervision": False, "nesterov": False}),
        ("--deep_supervision True --nesterov --flips", {"deep_supervision": True, "nesterov": True, "flips": True}),
        ("--early_stopping -1 --no_pin_mem", {"early_stopping": None, "pin_mem": False}),
        ("--crop_scale 1 1", {"crop_scale": (1, 1)}),
        ("--no-turns", {"turn_probability": 0}),
        ("--turns", {"turn_probability": 1}),
    ],
)
def test_command_lines_of_the_authors_and_older_ones(option, expected):
    args = parsed(option)
    assert {name: args[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--input_channels x", ["--input_channels", "read as RGB", "leave it out"]),
        ("--cfg x", ["--cfg", "did nothing", "command line"]),
        ("--resplit", ["--resplit", "did nothing", "leave it out"]),
        ("--batch_size_up 256", ["--batch_size_up", "--batch_size"]),
        *[(f"{name} 0", [name, "torchrun"]) for name in ("--world_size", "--dist_url", "--local_rank")],
        ("--local-rank=1", ["--local-rank", "torchrun"]),
        *[(name, [name, "leave it out"]) for name in ("--dist_on_itp", "--dist_eval")],
        ("--milestones 1,x", ["--milestones", "'x'"]),
        ("--deep_supervision perhaps", ["--deep_supervision", "True nor False"]),
        ("--early_stopping 0", ["--early_stopping", "[1, inf)"]),
        ("--turn_probability 1.5", ["--turn_probability", "[0, 1]"]),
        ("--scheduler plateau --warmup_epochs 5", ["--warmup_epochs", "--scheduler cosine"]),
        ("--encoder_init xavier --checkpoint x.pth", ["--encoder_init", "leave it or the checkpoint out"]),
    ],
)
def test_what_is_refused(option, words, capsys, monkeypatch):
    expect_one_line(call(option, capsys, monkeypatch), words)


@pytest.mark.parametrize("option", ["--checkpoint", "--resume", "--evaluate"])
@pytest.mark.parametrize("place", ["", "model", "state_dict"])
def test_the_authors_setr_is_refused_by_name(option, place, tmp_path, capsys, monkeypatch):
    parameters = {"VIT.pos_embed": torch.zeros(1, 5, 8), "Head.Head11.cls_seg.weight": torch.zeros(1, 8, 3, 3)}
    torch.save({place: parameters} if place else parameters, tmp_path / "setr.pth")
    words = [f"{tmp_path / 'setr.pth'} is a SETR", "VIT.*, Head.*", "scaled twice", "red and blue swapped", "qkv bias"]
    expect_one_line(call(f"{option} {tmp_path / 'setr.pth'}", capsys, monkeypatch), words)


def test_an_encoder_settles_model_and_sizes_and_nothing_else(encoder):
    settled = {"model": "vit_tiny_patch16", "patch_size": 8, "input_w": 48, "input_h": 48, "checkpoint": str(encoder)}
    assert parsed(f"--checkpoint {encoder}") == parsed("") | settled
    by_hand = parsed(f"--checkpoint {encoder} --input_w 64 --model vit_tiny_patch16")
    assert (by_hand["input_w"], by_hand["input_h"], by_hand["patch_size"]) == (64, 48, 8)


def test_an_encoder_without_options_is_known_by_its_shape(encoder, tmp_path):
    torch.save(content_of(encoder)["model"], tmp_path / "bare.pth")
    args = parsed(f"--checkpoint {tmp_path / 'bare.pth'}")
    assert (args["model"], args["patch_size"], args["input_h"]) == ("vit_tiny_patch16", 8, 48)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--model vit_small_patch16", ["--model vit_small_patch16 contradicts", "vit_tiny_patch16 (width 192, 12 blocks"]),
        ("--input_w 50", ["--input_w 50", "patch size 8"]),
    ],
)
def test_what_contradicts_an_encoder(option, words, encoder, capsys, monkeypatch):
    expect_one_line(call(f"--checkpoint {encoder} {option}", capsys, monkeypatch), words)


def test_an_encoder_of_no_known_model(tmp_path):
    model = create_encoder("vit_tiny_patch16", 8, img_size=16, num_classes=0, depth=3)
    torch.save({"model": model.state_dict()}, tmp_path / "own.pth")
    with pytest.raises(InputError, match=r"own\.pth holds no encoder that is known here \(width 192, 3 blocks"):
        parsed(f"--checkpoint {tmp_path / 'own.pth'}")


@pytest.mark.parametrize("protocol", ["paper", "tuned"])
def test_a_run_goes_on_and_is_evaluated_with_its_own_options(protocol, tmp_path):
    other = {"paper": "--no-antialias --final_norm", "tuned": "--antialias --no-final_norm"}[protocol]
    begun = parsed(
        f"--protocol {protocol} {other} --epochs 30 -b 4 --input_w 96 --milestones 5 7 --crop_scale 0.5 1 --seed 3"
    )
    path = segmenter(tmp_path / "checkpoint-last.pth", begun)
    resumed = parsed(f"--resume {path}")
    assert resumed == begun | {"resume": str(path), "crop_scale": (0.5, 1)}
    assert parsed(f"--output_dir {tmp_path} --resume auto")["final_norm"] is (protocol == "paper")
    assert parsed(f"--resume {path} --epochs 40 --turn_probability 0.1")["epochs"] == 40
    evaluated = parsed(f"--evaluate {path}")
    names = PROTOCOLS[protocol].keys() | {"protocol"}
    assert {name: evaluated[name] for name in names} == {name: resumed[name] for name in names}
    assert evaluated["seed"] == 0


@pytest.mark.parametrize("start", ["--resume", "--evaluate"])
@pytest.mark.parametrize("option", ["--protocol tuned", "--final_norm", "--no-align_corners", "--antialias", "--input_w 96"])
def test_a_model_is_never_used_the_other_way(start, option, tmp_path):
    path = segmenter(tmp_path / "checkpoint-last.pth", parsed(""))
    with pytest.raises(InputError, match=f"{option} contradicts .*leave the option out"):
        parsed(f"{start} {path} {option}")


def test_another_optimiser_cannot_go_on_with_the_state_of_the_first(tmp_path):
    path = segmenter(tmp_path / "checkpoint-last.pth", parsed(""))
    with pytest.raises(InputError, match=r"--optimizer SGD contradicts .*with --optimizer Adam; leave the option out"):
        parsed(f"--resume {path} --optimizer SGD")
    assert parsed(f"--evaluate {path} --optimizer SGD")["optimizer"] == "SGD"  # nothing is trained there


@pytest.mark.parametrize("turns", [True, False])
def test_older_checkpoints_are_tuned(turns, tmp_path):
    recorded = {name: value for name, value in parsed("--protocol tuned --epochs 9").items() if name not in BEFORE}
    path = segmenter(tmp_path / "checkpoint-last.pth", recorded | {"turns": turns, "registers": 0})
    for option in ("--evaluate", "--resume"):
        args = parsed(f"{option} {path}")
        assert {name: args[name] for name in BEFORE} == BEFORE | {"turn_probability": float(turns)}
        assert args["epochs"] == 9 and "turns" not in args
