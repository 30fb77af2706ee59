"""The paper by default, what we tuned by one word, and what a checkpoint settles when the command line leaves it open."""

import json
import re
import shlex
import shutil

import pytest
import torch
from conftest import ROOT, content_of

import main_finetune
import main_pretrain
import models_vit
from util.options import pretraining, protocol
from util.system.errors import InputError
from util.training import checkpoint

DATA = ["--data_path", "DIR"]
SAM = {"masking": "attention", "mask_ratio": 0.45, "throw_ratio": 0.3, "map": "last", "map_temperature": 1}
PRETRAINING = {
    **SAM,
    **{"random_mask_ratio": 0.75, "sam_epoch": 41, "loc_interval": 40, "random_share": 0, "class_weight": 0.1},
    **{"epochs": 300, "batch_size": 64, "accum_iter": 1, "blr": 1e-3, "lr": None, "min_lr": 0, "warmup_epochs": 40},
    **{"weight_decay": 0.05, "clip_grad": None, "crop_scale": (0.2, 1), "norm_pix_loss": False},
    **{"input_size": 224, "patch_size": 16, "model": "msmae_vit_base_patch16", "protocol": "paper"},
}
FINETUNING = {
    **SAM,
    **{"unmasked_epochs": 0, "loc_interval": 20, "epochs": 100, "batch_size": 256, "accum_iter": 1, "protocol": "paper"},
    **{"blr": 1e-3, "lr": None, "min_lr": 1e-6, "warmup_epochs": 5, "weight_decay": 0.05, "layer_decay": 0.75},
    **{"drop_path": 0.1, "smoothing": 0.1, "crop_scale": (0.2, 1), "clip_grad": None, "model": "vit_base_patch16"},
    **{"aa": None, "color_jitter": 0, "reprob": 0, "mixup": 0, "cutmix": 0, "cutmix_minmax": None, "pool": "avg"},
    **{"input_size": 224, "patch_size": 16},
}


def papers_commands() -> list[list[str]]:
    """The command lines of the paper's README, as ours has them under "The paper's command lines"."""
    readme = (ROOT / "README.md").read_text().replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in re.findall(r"^ +(python main_\w+\.py .*--mask_ratio.*)$", readme, re.M)][:2]


def test_the_papers_command_lines_are_the_papers_settings():
    """All of them, in both phases."""
    pretraining, finetuning = papers_commands()
    assert pretraining[0] == "main_pretrain.py" and finetuning[0] == "main_finetune.py"
    args = vars(main_pretrain.get_args(pretraining[1:]))
    assert {name: args[name] for name in PRETRAINING} == PRETRAINING and args["num_classes"] == 4
    shape = {"model": "vit_base_patch16", "input_size": 224, "patch_size": 16}  # of the checkpoint
    args = vars(main_finetune.get_args(finetuning[1:], recorded=shape))
    assert {name: args[name] for name in FINETUNING} == FINETUNING and args["finetune"] == "CHECKPOINT"


def test_the_papers_command_lines_mask_every_image_by_the_last_blocks_map(call, phantoms, tmp_path):
    pretraining, finetuning = (" ".join(command) for command in papers_commands())
    small = f"--input_size 32 --patch_size 8 --batch_size 8 --epochs 3 --device cpu --num_workers 0 --output_dir {tmp_path}"
    pretraining = pretraining.replace("base", "tiny").replace("DIR", str(phantoms))
    status, out, err = call(f"{pretraining} {small}/p --sam_epoch 1 --loc_interval 1")
    assert status == 0, err
    assert "protocol: paper, except --model msmae_vit_tiny_patch16 (paper: msmae_vit_base_patch16), --input_size 32" in out
    finetuning = finetuning.replace("base", "tiny").replace("DIR", str(phantoms))
    finetuning = finetuning.replace("CHECKPOINT", str(tmp_path / "p" / "checkpoint-last.pth"))
    status, out, err = call(f"{finetuning} {small}/f --warmup_epochs 1")
    assert status == 0, err
    assert "note: fine-tuning on SAM's visible patches, as in the paper" in out and "--protocol tuned" in out
    for folder, first in (("p", 1), ("f", 0)):
        for line in map(json.loads, (tmp_path / folder / "log.txt").read_text().splitlines()):
            shares = [line.get(f"map_on_{part}") for part in ("masked", "thrown", "visible")]
            assert (line.get("map_source") == "last" and sum(shares) == pytest.approx(1)) == (line["epoch"] >= first)
    run = json.loads((tmp_path / "f" / "run.json").read_text())
    assert run["protocol"]["name"] == "paper" and run["protocol"]["departures"]["epochs"] == [3, 100]
    assert not {"mask_ratio", "masking", "map", "data_path", "num_workers"} & set(run["protocol"]["departures"])


@pytest.mark.parametrize(
    ("script", "tuned"),
    [
        (main_pretrain, {"map": "consensus", "map_temperature": 0.4, "random_share": 0.5}),
        (main_finetune, {"map": "consensus", "masking": "none"}),
    ],
)
def test_tuned_differs_where_it_says_so_and_nowhere_else(script, tuned):
    paper, ours = (vars(script.get_args([*DATA, *options])) for options in ([], ["--protocol", "tuned"]))
    assert {name: ours[name] for name in paper if paper[name] != ours[name]} == {"protocol": "tuned", **tuned}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--crop_scale 0.2 1 --clip_grad 1", "paper, except --clip_grad 1 (paper: none)"),
        ("--norm_pix_loss --lr 0.0001", "paper, except --norm_pix_loss (paper: off), --lr 0.0001 (paper: none)"),
        ("--protocol tuned --crop_scale 0.5 1", "tuned, except --crop_scale 0.5 1 (tuned: 0.2 1)"),
        ("--protocol tuned --map_temperature 1 --no_pin_mem", "tuned, except --map_temperature 1 (tuned: 0.4)"),
    ],
)
def test_departures_read_as_one_types_them(options, line):
    """What equals the protocol's value is no departure, typed or not."""
    args = main_pretrain.get_args([*DATA, *options.split()])
    departures = protocol.departures(args, pretraining.protocol_of(args))
    assert protocol.describe(args.protocol, departures) == f"protocol: {line}"


@pytest.mark.parametrize("options", ["--protocol tuned --map block3", "--map block3 --protocol=tuned"])
def test_given_options_go_before_the_protocol(options):
    assert main_pretrain.get_args([*DATA, *options.split()]).map == "block3"


@pytest.mark.parametrize(
    ("options", "masking", "source"),
    [
        ("", "attention", "last"),
        ("--masking none", "none", "last"),
        ("--protocol tuned", "none", "consensus"),
        ("--protocol tuned --mask_ratio 0.4", "attention", "last"),
        ("--protocol tuned --throw_ratio 0", "attention", "last"),
        ("--protocol tuned --masking attention", "attention", "last"),
        ("--protocol tuned --mask_ratio 0.4 --masking random", "random", "consensus"),
    ],
)
def test_what_masks_in_fine_tuning(options, masking, source):
    """Under "tuned" nothing, unless SAM is asked for; SAM draws by the last block's map at temperature 1 under both."""
    args = main_finetune.get_args([*DATA, *options.split()])
    assert (args.masking, args.map, args.map_temperature) == (masking, source, 1)


def test_the_former_name_of_tuned_is_answered(call):
    status, _, err = call("main_finetune.py --data_path DIR --protocol measured")
    assert status == 2 and "'measured' is called 'tuned' now" in err and len(err.splitlines()) == 1


def test_random_share_needs_a_batch_to_split_only_where_sam_runs():
    main_pretrain.get_args([*DATA, "--protocol", "tuned", "--masking", "random", "--batch_size", "1"])
    with pytest.raises(InputError, match=r"--random_share 0\.5 cannot split --batch_size 1"):
        main_pretrain.get_args([*DATA, "--protocol", "tuned", "--batch_size", "1"])
    with pytest.raises(InputError, match="--unmasked_epochs"):
        main_finetune.get_args([*DATA, "--masking", "none", "--unmasked_epochs", "3"])


def test_the_first_preview_falls_where_the_first_maps_are_made():
    args = main_pretrain.get_args(DATA)
    assert [epoch for epoch in range(300) if main_pretrain.preview_due(args, epoch)] == [*range(40, 300, 40), 299]
    args = main_pretrain.get_args([*DATA, "--preview_every", "100"])
    assert [epoch for epoch in range(300) if main_pretrain.preview_due(args, epoch)] == [99, 199, 299]


RETIRED = [
    "--resplit",
    "--world_size 2",
    "--local_rank 0",
    "--dist_on_itp",
    "--dist_url env://",
    "--dist_eval",
    "--cfg a.yaml",
]


@pytest.mark.parametrize("option", RETIRED)
@pytest.mark.parametrize("script", ["main_pretrain.py", "main_finetune.py"])
def test_options_of_the_released_scripts_that_are_not_needed(script, option, call):
    status, _, err = call(f"{script} --data_path DIR {option}")
    assert status == 2 and err.startswith(f"error: {option.split()[0]}: ") and len(err.splitlines()) == 1
    assert "leave it out" in err or "command line" in err


def test_no_pin_mem():
    assert not main_pretrain.get_args([*DATA, "--no_pin_mem"]).pin_mem and main_finetune.get_args(DATA).pin_mem


def test_a_checkpoint_settles_model_and_sizes_but_neither_classes_nor_masking(call, pretrained, phantoms, tmp_path):
    """Fine-tuning of a ViT-Tiny at 32 pixels, without --model; its pooling is fine-tuning's own."""
    start = f"--finetune {pretrained / 'checkpoint-last.pth'} --masking none"
    small = "--device cpu --num_workers 0 --batch_size 8 --epochs 1 --warmup_epochs 0"
    status, _, err = call(f"main_finetune.py {start} {small} --data_path {phantoms} --output_dir {tmp_path / 'f'}")
    assert status == 0, err
    args = content_of(tmp_path / "f" / "checkpoint-last.pth")["args"]
    assert [args[name] for name in ("model", "input_size", "patch_size")] == ["vit_micro_patch8", 32, 8]
    assert [args[name] for name in ("pool", "masking", "map")] == ["avg", "none", "last"]


def test_evaluation_takes_pooling_map_and_masking_from_the_checkpoint(call, finetuned, phantoms, tmp_path):
    copied = checkpoint.load(finetuned / "checkpoint-last.pth").content
    copied["args"] |= {"map": "block2", "mask_ratio": 0.3}
    checkpoint.save(tmp_path / "other.pth", **copied)
    status, _, err = call(
        f"main_finetune.py --eval --resume {tmp_path / 'other.pth'} --data_path {phantoms} --device cpu "
        f"--output_dir {tmp_path / 'e'}"
    )
    assert status == 0, err
    options = json.loads((tmp_path / "e" / "run.json").read_text())["options"]
    assert [options[name] for name in ("map", "masking", "mask_ratio", "input_size", "model", "pool")] == [
        *("block2", "attention", 0.3, 32, "vit_micro_patch8", "avg")
    ]
    figures = json.loads((tmp_path / "e" / "metrics.json").read_text())
    used, alone = figures["map_gain"], figures["localisation"]["sources"]["block2"]["gain"]
    assert used == pytest.approx(alone)  # at temperature 1


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_a_run_goes_on_with_the_options_it_began_with(phase, call, pretrained, finetuned, tmp_path):
    """Nothing but the checkpoint has to be named; options given now go first."""
    content = content_of({"pretrain": pretrained / "checkpoint-2.pth", "finetune": finetuned / "checkpoint-1.pth"}[phase])
    content["args"] |= {
        "protocol": "measured",
        "weight_decay": 0.07,
        "look_every": None,
        "registers": 0,
        "visible_end": "low",
    }
    (tmp_path / "run").mkdir()
    checkpoint.save(tmp_path / "run" / "checkpoint-last.pth", **content)
    command = f"main_{phase}.py --resume {tmp_path / 'run' / 'checkpoint-last.pth'}"
    status, out, err = call(f"{command} --clip_grad 5")
    assert status == 0, err
    notes = [line for line in out.splitlines() if " was " in line]
    assert notes == ["note: --clip_grad was None in the resumed run and is 5.0 now"]
    args = content_of(tmp_path / "run" / "checkpoint-last.pth")["args"]
    assert [args[name] for name in ("protocol", "weight_decay", "map", "batch_size")] == ["tuned", 0.07, "last", 8]
    content["args"]["visible_end"] = "high"
    checkpoint.save(tmp_path / "run" / "checkpoint-last.pth", **content)
    status, _, err = call(command)
    assert status == 2 and "--visible_end high" in err and "c10a737" in err and len(err.splitlines()) == 1


def test_a_run_from_before_says_that_validation_images_are_resized_otherwise(call, finetuned, tmp_path):
    content = content_of(finetuned / "checkpoint-last.pth")
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "checkpoint-last.pth"
    checkpoint.save(path, **{**content, "format": 2})
    status, out, err = call(f"main_finetune.py --resume {path}")
    assert status == 0 and "bilinearly now" in out, err
    status, out, err = call(
        f"main_finetune.py --resume {shutil.copytree(finetuned, tmp_path / 'whole') / 'checkpoint-last.pth'}"
    )
    assert status == 0 and "bilinearly" not in out and "nothing to do" in out


def test_encoders_of_equal_width_and_depth_are_not_confused(monkeypatch):
    twin = {**models_vit.ENCODERS["vit_tiny_patch16"], "num_heads": 6}
    monkeypatch.setitem(models_vit.ENCODERS, "vit_twin_patch16", twin)
    state = models_vit.create_encoder("vit_tiny_patch16", patch_size=8, img_size=32, num_classes=2).state_dict()
    named = checkpoint.Checkpoint("a.pth", {"model": state, "args": {"model": "msmae_vit_twin_patch16"}})
    assert named.encoder_name(models_vit.ENCODERS) == "vit_twin_patch16"
    with pytest.raises(InputError, match=r"a\.pth may hold vit_tiny_patch16 or vit_twin_patch16.*--model"):
        checkpoint.Checkpoint("a.pth", {"model": state}).encoder_name(models_vit.ENCODERS)
    with pytest.raises(InputError, match="no encoder that is known here"):
        checkpoint.Checkpoint("a.pth", {"model": {**state, "pos_embed": torch.zeros(1, 17, 10)}}).encoder_name({})
