"""What a user can do wrong: one clear line, exit status 2, no traceback, before any work."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY_FINETUNE, TINY_PRETRAIN, run_here, run_script


@pytest.fixture(scope="module")
def wrong_folders(phantoms, tmp_path_factory):
    """Damaged copies of the data set, by name."""
    root = tmp_path_factory.mktemp("wrong")
    folders = {
        name: shutil.copytree(phantoms, root / name) for name in ("noval", "empty", "differ", "broken", "text", "bare")
    }
    shutil.rmtree(folders["noval"] / "val")
    for path in (folders["empty"] / "train" / "ring").iterdir():
        path.unlink()
    (folders["differ"] / "val" / "ring").rename(folders["differ"] / "val" / "rong")
    next((folders["broken"] / "val" / "skull").iterdir()).write_bytes(b"\x89PNG broken")
    next((folders["text"] / "train" / "none").iterdir()).write_text("no image")
    shutil.rmtree(folders["bare"] / "train")
    (folders["bare"] / "train").mkdir()
    return folders


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("missing", ["--data_path", "no such folder"]),
        ("noval", ["no val/"]),
        ("empty", ["ring", "train"]),
        ("differ", ["only in train: ring", "only in val: rong"]),
        ("broken", ["val/skull/", "cannot read image"]),
        ("text", ["train/none/", "cannot read image"]),
        ("bare", ["train", "class"]),
    ],
)
@pytest.mark.parametrize("script", ["main_pretrain.py", "main_finetune.py"])
def test_wrong_folders(script, folder, words, call, wrong_folders, tmp_path):
    data = wrong_folders.get(folder, tmp_path / "missing")
    tiny = TINY_PRETRAIN if "pre" in script else f"{TINY_FINETUNE} --input_size 32 --patch_size 8"
    expect_one_line(call(f"{script} {tiny} --data_path {data} --output_dir {tmp_path / 'out'}"), words)
    assert not list((tmp_path / "out").glob("*"))


def expect_one_line(result, words):
    status, _, err = result
    assert status == 2, err
    assert len(err.strip().splitlines()) == 1 and err.startswith("error: ") and "Traceback" not in err
    assert all(word in err for word in words), err


PRETRAIN_ERRORS = [
    ("--mask_ratio 1.0", ["--mask_ratio", "[0, 1)"]),
    ("--mask_ratio -0.1", ["--mask_ratio", "[0, 1)"]),
    ("--throw_ratio 1.5", ["--throw_ratio"]),
    ("--mask_ratio 0.6 --throw_ratio 0.4", ["--mask_ratio and --throw_ratio", "below 1"]),
    ("--mask_ratio 0.9 --throw_ratio 0.1", ["below 1"]),
    ("--mask_ratio 0.01", ["no patch of 16 would be masked"]),
    ("--mask_ratio 0 --throw_ratio 0.5", ["no patch of 16 would be masked"]),
    ("--random_mask_ratio 0", ["--random_mask_ratio", "masked"]),
    ("--input_size 33", ["--input_size 33", "multiple", "8"]),
    ("--model msmae_vit_gigantic_patch16", ["--model", "msmae_vit_base_patch16"]),
    ("--num_classes 3", ["--num_classes 3", "4 classes"]),
    ("--nb_classes 5", ["--num_classes 5", "4 classes"]),
    ("--batch_size 25", ["--batch_size 25", "24 training images"]),
    ("--batch_size 8 --accum_iter 4", ["--accum_iter 4", "24 training images"]),
    ("--batch_size 0", ["--batch_size"]),
    ("--batch_size many", ["--batch_size", "whole number"]),
    ("--epochs 0", ["--epochs"]),
    ("--lr nan", ["--lr"]),
    ("--device tpu7", ["--device tpu7"]),
    ("--device mps", ["--device mps", "cuda and cpu"]),
    ("--crop_scale 0.9 0.2", ["--crop_scale", "first"]),
    ("--resume nowhere.pth", ["nowhere.pth", "no such file"]),
    ("--resume auto --overwrite", ["--resume", "--overwrite"]),
    ("--start_epoch 300", ["--start_epoch 300", "--epochs 300"]),
    ("--masking none", ["--masking"]),
    ("--amp int8", ["--amp"]),
    ("--lesion_masks nowhere", ["--lesion_masks nowhere"]),
    ("--lern_rate 1", ["--lern_rate"]),
    ("--save_every 0", ["--save_every", "'0'", "500steps"]),
    ("--save_every 5minutes", ["--save_every", "5minutes"]),
    ("--keep 0", ["--keep"]),
    ("--on_bad_image ignore", ["--on_bad_image", "skip"]),
    ("--cache disk", ["--cache", "ram"]),
    ("--num_workers -1", ["--num_workers"]),
    ("--loc_interval 0", ["--loc_interval"]),
    ("--sam_epoch -1", ["--sam_epoch"]),
    ("--sam_epoch 1.5", ["--sam_epoch", "whole number"]),
    ("--print_freq 0", ["--print_freq"]),
    ("--seed -1", ["--seed"]),
    ("--seed 4294967296", ["--seed", "[0, 4294967295]"]),
    ("--warmup_epochs inf", ["--warmup_epochs", "inf is outside"]),
    ("--blr inf", ["--blr", "inf is outside"]),
    ("--clip_grad inf", ["--clip_grad", "inf is outside"]),
    ("--resume=", ["--resume", "empty"]),
    ("--output_dir=", ["--output_dir", "empty"]),
    ("--output_dir {odd}", ["--output_dir", "o\\xffd", "not UTF-8"]),
    ("--class_weight -1", ["--class_weight"]),
    ("--weight_decay -0.1", ["--weight_decay"]),
    ("--clip_grad 0", ["--clip_grad"]),
    ("--patch_size 0", ["--patch_size"]),
    ("--patch_size 5", ["--patch_size"]),
    ("--warmup_epochs -1", ["--warmup_epochs"]),
    ("--min_lr small", ["--min_lr"]),
    ("--crop_scale 0.5", ["--crop_scale", "2"]),
    ("--crop_scale 0 1", ["--crop_scale"]),
    ("--device cuda:99", ["--device cuda:99"]),
    ("--log_dir {file}", ["--log_dir"]),
    ("--map head", ["--map", "blockN"]),
    ("--map block0", ["--map", "block0"]),
    ("--map block13", ["--map block13", "6 blocks"]),
    ("--map relevance --class_weight 0", ["--map relevance", "--class_weight 0"]),
    ("--map_temperature 0", ["--map_temperature"]),
    ("--map_uniform 0.2", ["--map_uniform", "did not help", "c10a737"]),
    ("--map auto", ["--map", "'auto'", "consensus"]),
    ("--random_share 1", ["--random_share"]),
    ("--random_share 0.01", ["--random_share 0.01", "--batch_size 8"]),
    ("--registers 4", ["--registers", "did not help", "c10a737"]),
    ("--init nowhere.pth", ["nowhere.pth", "no such file"]),
    ("--init {file}", ["file is empty"]),
    ("--init timm:vit_base_patch16_siglip_224", ["timm:vit_base_patch16_siglip_224", "no class token"]),
]


@pytest.mark.parametrize(("options", "words"), PRETRAIN_ERRORS)
def test_wrong_options_of_pretraining(options, words, call, phantoms, tmp_path):
    (tmp_path / "file").write_text("")
    options = options.format(file=tmp_path / "file", odd=os.fsdecode(bytes(tmp_path / "o") + b"\xffd"))
    expect_one_line(
        call(f"main_pretrain.py {TINY_PRETRAIN} --data_path {phantoms} --output_dir {tmp_path} {options}"), words
    )
    assert not list(tmp_path.glob("checkpoint*"))


FINETUNE_ERRORS = [
    ("--finetune nowhere.pth", ["nowhere.pth", "no such file"]),
    ("--finetune=", ["--finetune", "empty"]),
    ("--finetune {text}", ["text.pth", "no checkpoint"]),
    ("--finetune {other}", ["other.pth", "no ViT encoder"]),
    ("--model vit_small_patch16 --finetune {pretrained}", ["another architecture", "width 128", "width 384"]),
    ("--patch_size 5 --finetune {pretrained}", ["--input_size 32", "patch size 5"]),
    ("--resume {pretrained}", ["checkpoint-last.pth", "--finetune"]),
    ("--eval", ["--eval needs --resume"]),
    ("--eval --resume {pretrained} --finetune {pretrained}", ["--finetune"]),
    ("--eval --resume {text}", ["text.pth", "no checkpoint"]),
    ("--eval --resume auto", ["--eval needs --resume CHECKPOINT"]),
    ("--eval --resume {pretrained} --global_pool", ["lacks fc_norm", "--global_pool"]),
    ("--eval --resume {pretrained} --model vit_small_patch16", ["another architecture"]),
    ("--aa flip-everything", ["--aa flip-everything"]),
    ("--batch_size 7 --mixup 0.8", ["--batch_size 7", "even"]),
    ("--mask_ratio 0.5 --throw_ratio 0.5", ["below 1"]),
    ("--drop_path 1", ["--drop_path"]),
    ("--layer_decay 0", ["--layer_decay"]),
    ("--cls_token --global_pool", ["--global_pool", "--cls_token"]),
    ("--mixup -1", ["--mixup"]),
    ("--cutmix_minmax 0.5", ["--cutmix_minmax"]),
    ("--cutmix_minmax 0.8 0.2", ["--cutmix_minmax 0.8 0.2", "first"]),
    ("--smoothing 1", ["--smoothing"]),
    ("--reprob 2", ["--reprob"]),
    ("--remode black", ["--remode"]),
    ("--recount 0", ["--recount"]),
    ("--mixup_mode row", ["--mixup_mode"]),
    ("--mixup_prob 1.5", ["--mixup_prob"]),
    ("--color_jitter -0.1", ["--color_jitter"]),
    ("--visible_end high", ["--visible_end", "did not help"]),
    ("--unmasked_epochs 101", ["--unmasked_epochs 101", "--epochs 100"]),
    ("--map relevance", ["--map relevance", "--finetune"]),
    ("--map relevance --finetune {headless}", ["--map relevance", "headless.pth", "no head"]),
    ("--finetune {registers}", ["registers.pth", "register tokens", "c10a737"]),
]


@pytest.fixture(scope="module")
def checkpoints(pretrained, tmp_path_factory):
    """A pre-training's checkpoint, and others that are none or lack something, by name."""
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {name: folder / f"{name}.pth" for name in ("registers", "headless", "text", "other")}
    paths["text"].write_text("no checkpoint")
    torch.save({"model": {"layer.weight": torch.zeros(2)}}, paths["other"])
    content = torch.load(pretrained / "checkpoint-last.pth")
    content["model"] = {name: value for name, value in content["model"].items() if not name.startswith("head.")}
    torch.save(content, paths["headless"])
    torch.save({"model": {**content["model"], "reg_token": torch.zeros(1, 4, 128)}}, paths["registers"])
    return {**paths, "pretrained": pretrained / "checkpoint-last.pth"}


@pytest.mark.parametrize(("options", "words"), FINETUNE_ERRORS)
def test_wrong_options_of_fine_tuning(options, words, call, phantoms, checkpoints, tmp_path):
    command = f"main_finetune.py {TINY_FINETUNE} --input_size 32 --data_path {phantoms} --output_dir {tmp_path / 'out'}"
    expect_one_line(call(f"{command} {options.format(**checkpoints)}"), words)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("checkpoint*"))


USE_ERRORS = [
    ("--predict {data}", ["--predict needs --resume CHECKPOINT"]),
    ("--predict {data} --resume auto", ["--predict needs --resume CHECKPOINT"]),
    ("--predict --resume {finetuned}", ["--predict"]),
    ("--predict {data} --resume {finetuned} --eval", ["--eval", "--predict", "one of them"]),
    ("--predict {data} --resume {finetuned} --data_path {data}", ["--predict", "leave --data_path out"]),
    ("--predict {data} --resume {finetuned} --finetune {finetuned}", ["leave --finetune out"]),
    ("--predict {data} --resume {finetuned} --split val", ["--split is for --eval"]),
    ("--predict {data} --resume {finetuned} --calibrate", ["--calibrate is for --eval"]),
    ("--predict {data} --resume {finetuned} --num_classes 3", ["--num_classes 3", "4 classes"]),
    ("--predict {data} --resume nowhere.pth", ["nowhere.pth", "no such file"]),
    ("--predict {data} --resume {finetuned} --cls_token", ["checkpoint-last.pth", "--cls_token"]),
    ("--eval --data_path {data} --resume {finetuned} --overlays", ["--overlays is for --predict"]),
    ("--data_path {data} --features", ["--features is for --eval and --predict"]),
    ("--data_path {data} --sensitivity 0.9", ["--sensitivity is for --eval"]),
    ("--eval --data_path {data} --resume {finetuned} --youden", ["--positive", "base, none, ring, skull"]),
    ("--eval --data_path {data} --resume {finetuned} --youden --positive rung", ["rung", "--positive", "base, none"]),
    ("--eval --data_path {data} --resume {finetuned} --positive ring", ["--positive", "--sensitivity S"]),
    ("--eval --data_path {data} --resume {finetuned} --prevalence 0.1", ["--prevalence", "has none"]),
    ("--eval --data_path {data} --resume {finetuned} --calibrate --prevalence 0.1", ["--prevalence", "has none"]),
    ("--eval --data_path {data} --resume {finetuned} --prevalence 0", ["--prevalence", "(0, 1)"]),
    ("--eval --data_path {data} --resume {finetuned} --sensitivity 1.5", ["--sensitivity", "(0, 1]"]),
    ("--eval --data_path {data} --resume {finetuned} --youden --specificity 0.9", ["--specificity", "--youden"]),
    ("--eval --data_path {data} --resume {finetuned} --calibrate --input_size 64", ["--input_size 64", "32"]),
    ("--eval --data_path {noval} --resume {finetuned} --calibrate", ["noval", "no val/"]),
    ("--eval --data_path {noring} --resume {finetuned} --youden --positive ring", ["ring", "0 of 9"]),
]


@pytest.mark.parametrize(("options", "words"), USE_ERRORS)
def test_wrong_options_of_evaluation_and_prediction(options, words, call, phantoms, finetuned, tmp_path):
    paths = {"data": phantoms, "finetuned": finetuned / "checkpoint-last.pth"}
    paths |= {name: tmp_path / name for name in ("noval", "noring")}
    shutil.copytree(phantoms / "val", paths["noval"] / "test")
    shutil.copytree(phantoms / "val", paths["noring"] / "val")
    shutil.rmtree(paths["noring"] / "val" / "ring")
    before = [sorted(folder.rglob("*")) for folder in (tmp_path, finetuned)]
    options = f"--device cpu --num_workers 0 --output_dir {tmp_path / 'out'} {options.format(**paths)}"
    expect_one_line(call(f"main_finetune.py {options}"), words)
    assert [sorted(folder.rglob("*")) for folder in (tmp_path, finetuned)] == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu(call, phantoms):
    expect_one_line(
        call(f"main_pretrain.py --data_path {phantoms} --batch_size 8 --device cuda"), ["--device cuda", "--device cpu"]
    )


def test_evaluation_of_other_classes(call, finetuned, phantoms, tmp_path):
    """A class that the model does not know is named; one that the data lacks is left out of the averages."""
    command = f"main_finetune.py --eval --resume {finetuned / 'checkpoint-last.pth'} --device cpu --output_dir {tmp_path}"
    data = shutil.copytree(phantoms / "val", tmp_path / "data" / "val").parent
    (data / "val" / "ring").rename(data / "val" / "rong")
    expect_one_line(call(f"{command} --data_path {data}"), ["rong", "the checkpoint knows 4: base, none, ring, skull"])
    shutil.rmtree(data / "val" / "rong")
    status, out, err = call(f"{command} --data_path {data}")
    assert status == 0 and "no image of ring: left out of the averages" in out, err


def test_the_process_itself_ends_with_status_2(phantoms, tmp_path):
    result = run_script(f"main_pretrain.py --data_path {phantoms} --mask_ratio 2", tmp_path, check=False)
    assert result.returncode == 2 and result.stdout == "" and len(result.stderr.splitlines()) == 1


def test_output_that_nobody_reads_ends_a_script_without_a_word(tmp_path):
    """As with ``| head -1``, whose reader leaves before the script has said all."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, str(ROOT / "util" / "phantom.py"), "phantoms", "--train", "4", "--val", "4", "--size", "32"]
    result = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


def test_tools_answer_in_one_line(tmp_path):
    for tool in ("compare", "cross_validate", "export", "phantom", "prepare", "probe", "report", "split"):
        result = run_here(f"-m util.{tool}", ROOT, check=False)
        assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and "required" in result.stderr


def test_a_message_is_one_line_whatever_a_file_is_called(call, phantoms, tmp_path):
    data = shutil.copytree(phantoms, tmp_path / "data")
    os.rename(next((data / "val" / "ring").iterdir()), bytes(data / "val" / "ring") + b"/a\nb\x1b\xff.png")
    next((data / "val" / "ring").glob("a*")).write_text("no image")
    result = call(f"main_pretrain.py {TINY_PRETRAIN} --data_path {data} --output_dir {tmp_path / 'out'}")
    expect_one_line(result, ["a\\nb\\x1b\\xff.png", "cannot read image"])


def test_unwritable_folder(call, phantoms, tmp_path):
    (tmp_path / "file").write_text("")
    command = f"main_pretrain.py {TINY_PRETRAIN} --data_path {phantoms} --output_dir {tmp_path / 'file' / 'out'}"
    expect_one_line(call(command), ["--output_dir", "cannot be written"])
