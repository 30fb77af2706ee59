"""Both scripts as a user runs them: files, logs, schedule, evaluation, options."""

import csv
import json
import math
import os
import shutil

import pytest
import torch
from conftest import (
    FINETUNE_SCHEDULE,
    PRETRAIN_SCHEDULE,
    TINY_FINETUNE,
    TINY_PRETRAIN,
    content_of,
    log_of,
    run_here,
    run_script,
    same_weights,
)
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch._dynamo.utils import counters

from util.maps.sources import names
from util.phantom import write_phantoms
from util.sizes import AUTOENCODERS


def test_files_of_a_pretraining(pretrained):
    names = {path.name for path in pretrained.glob("checkpoint*")}
    assert names == {"checkpoint-0.pth", "checkpoint-2.pth", "checkpoint-3.pth", "checkpoint-last.pth"}
    assert same_weights(pretrained / "checkpoint-3.pth", pretrained / "checkpoint-last.pth")
    assert (pretrained / "sheet-3.png").stat().st_size > 20_000
    assert not list(pretrained.glob(".*"))
    content = content_of(pretrained / "checkpoint-last.pth")
    assert content["classes"] == ["base", "none", "ring", "skull"] and content["args"]["mask_ratio"] == 0.45
    assert content["maps"].shape == (24, 4, 4) and content["maps"].min() >= 0 and content["maps"].max() <= 1


def test_log_of_a_pretraining(pretrained):
    lines = log_of(pretrained)
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    for line in lines:
        assert line["loss"] == pytest.approx(line["loss_pixels"] + 0.1 * line["loss_class"], rel=1e-5)
        sam = line["epoch"] >= 2
        assert ("map_on_masked" in line, "map_entropy" in line) == (sam, sam)
    shares = [lines[3][f"map_on_{part}"] for part in ("masked", "thrown", "visible")]
    assert sum(shares) == pytest.approx(1, abs=1e-5) and shares[0] > 7 / 16
    assert 0 < lines[3]["map_entropy"] < 1
    assert "map_gain" in lines[3] and 0 <= lines[3]["map_pointing"] <= 1 and 0 <= lines[3]["val_top1"] <= 1
    assert lines[3]["loss_pixels"] < lines[0]["loss_pixels"]


def test_maps_before_sam_are_not_in_the_checkpoint(pretrained):
    assert content_of(pretrained / "checkpoint-0.pth")["maps"] is None


def test_schedule_and_scalars_in_tensorboard(phantoms, tmp_path):
    command = f"main_pretrain.py {TINY_PRETRAIN} --print_freq 1 --epochs 5 --warmup_epochs 2 --blr 3e-3 --sam_epoch 9"
    result = run_here(f"{command} --data_path {phantoms} --output_dir o --log_dir tb", tmp_path)
    assert "SAM never starts" in result.stdout
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    rates = [(event.step, event.value) for event in events.Scalars("step/lr")]
    assert [step for step, _ in rates] == list(range(15))
    peak = 3e-3 * 8 / 256
    for step, rate in rates:
        epoch = step / 3
        expected = peak * epoch / 2 if epoch < 2 else peak * 0.5 * (1 + math.cos(math.pi * (epoch - 2) / 3))
        assert rate == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert "epoch/loss_pixels" in events.Tags()["scalars"] and "sheet" in events.Tags()["images"]
    run_here(f"{command} --data_path {phantoms} --output_dir o --log_dir tb --epochs 6 --resume auto", tmp_path)
    events = EventAccumulator(str(tmp_path / "tb")).Reload()  # what went before is kept
    assert [event.step for event in events.Scalars("epoch/loss_pixels")] == [3 * epoch + 2 for epoch in range(6)]


def test_images_in_one_folder_pretrain_without_labels(phantoms, tmp_path):
    for split in ("train", "val"):
        folder = tmp_path / "data" / split / "all"
        folder.mkdir(parents=True)
        for image in (phantoms / split).glob("*/*.png"):
            (folder / f"{image.parent.name}-{image.name}").symlink_to(image)
    command = f"main_pretrain.py {TINY_PRETRAIN} --warmup_epochs 0 --class_weight 0 --masking random --data_path data"
    result = run_here(f"{command} --output_dir o --epochs 1", tmp_path)
    assert "12 validation images of 1 class;" in result.stdout
    run_here(f"{command} --output_dir o --epochs 2 --resume auto", tmp_path)
    assert [line["loss_class"] for line in log_of(tmp_path / "o")] == [0, 0]
    finetune = f"main_finetune.py {TINY_FINETUNE} --epochs 1 --warmup_epochs 0 --finetune o/checkpoint-last.pth"
    run_here(f"{finetune} --output_dir f --data_path {phantoms}", tmp_path)
    with_labels = run_here(f"{command} --class_weight 0.1 --epochs 1", tmp_path, check=False)
    assert with_labels.returncode == 2 and "only one label, all; at least two are needed" in with_labels.stderr


def test_files_and_log_of_a_fine_tuning(finetuned):
    names = {path.name for path in finetuned.glob("checkpoint*")}
    assert names == {f"checkpoint-{name}.pth" for name in ("0", "1", "2", "last", "best")}
    lines = log_of(finetuned)
    top1 = [line["val_top1"] for line in lines]
    best = content_of(finetuned / "checkpoint-best.pth")
    assert best["epoch"] == top1.index(max(top1)) and best["best"]["val_top1"] == max(top1)
    assert all(
        line["map_on_masked"] + line["map_on_thrown"] + line["map_on_visible"] == pytest.approx(1, abs=1e-5)
        for line in lines
    )


def test_evaluation(finetuned, phantoms, tmp_path):
    command = f"main_finetune.py --eval --resume {finetuned / 'checkpoint-last.pth'} --num_classes 4"
    result = run_here(f"{command} --data_path {phantoms}", tmp_path)
    folder = tmp_path / "output_dir" / "eval-phantoms"
    figures = json.loads((folder / "metrics.json").read_text())
    with open(folder / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    classes = ["base", "none", "ring", "skull"]
    labels = [row["label"] for row in rows]
    chances = torch.tensor([[float(row[f"p({name})"]) for name in classes] for row in rows]).double()
    chances = (chances / chances.sum(1, keepdim=True)).numpy()
    guesses = [row["prediction"] for row in rows]
    assert len(rows) == 12 and all(os.path.exists(row["file"]) for row in rows)
    assert figures["top1"] == pytest.approx(accuracy_score(labels, guesses))
    assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, guesses))
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, guesses, average="macro"))
    assert figures["macro_auc"] == pytest.approx(roc_auc_score(labels, chances, multi_class="ovr"), abs=0.02)
    where = figures["localisation"]
    assert where["images"] == 9 and list(where["sources"]) == names(6)
    assert (
        figures["map_gain"] == pytest.approx(where["sources"]["last"]["gain"], rel=1e-5)
        and f"{figures['map_gain']:.2f}" in result.stdout
    )
    assert f"top-1               {100 * figures['top1']:.2f} % (" in result.stdout and "relevance" in result.stdout
    assert figures["top1"] == pytest.approx(log_of(finetuned)[-1]["val_top1"])
    squares = (chances - (torch.tensor([classes.index(name) for name in labels])[:, None] == torch.arange(4)).numpy()) ** 2
    assert figures["calibration"]["brier_score"] == pytest.approx(squares.sum(1).mean(), rel=1e-4)
    assert f"Brier score {figures['calibration']['brier_score']:.4f}" in result.stdout and "quadratic_kappa" not in figures
    assert (folder / "reliability.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """As many training phantoms as ever, of validation one of each class: less to measure and to draw."""
    folder = tmp_path_factory.mktemp("few") / "phantoms"
    write_phantoms(folder, train=24, val=4, size=32, seed=0)
    return folder


def run_once(call, script, options, phantoms, folder):
    common = {"main_pretrain.py": TINY_PRETRAIN, "main_finetune.py": f"{TINY_FINETUNE} --input_size 32 --patch_size 8"}[
        script
    ]
    command = f"{script} {common} --epochs 1 --warmup_epochs 0 --data_path {phantoms} --output_dir {folder} --overwrite"
    status, _, err = call(f"{command} {options}")
    assert status == 0, err
    return content_of(folder / "checkpoint-last.pth")["model"]


@pytest.fixture(scope="module")
def baselines():
    return {}


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("main_pretrain.py", "--masking random --random_mask_ratio 0.5"),
        ("main_pretrain.py", "--sam_epoch 0"),
        ("main_pretrain.py", "--sam_epoch 0 --mask_ratio 0.3 --throw_ratio 0.2"),
        ("main_pretrain.py", "--norm_pix_loss"),
        ("main_pretrain.py", "--class_weight 0"),
        ("main_pretrain.py", "--accum_iter 2"),
        ("main_pretrain.py", "--clip_grad 0.01"),
        ("main_pretrain.py", "--weight_decay 0.5"),
        ("main_pretrain.py", "--crop_scale 0.8 1"),
        ("main_pretrain.py", "--lr 1e-3"),
        ("main_pretrain.py", "--amp fp16"),
        ("main_pretrain.py", "--start_epoch 0 --seed 3"),
        *(("main_pretrain.py", f"--sam_epoch 0 --map {source}") for source in ("block3", "consensus", "relevance")),
        ("main_pretrain.py", "--sam_epoch 0 --map_temperature 3"),
        ("main_pretrain.py", "--sam_epoch 0 --random_share 0.5"),
        ("main_finetune.py", "--masking random"),
        ("main_finetune.py", "--masking none"),
        ("main_finetune.py", "--cls_token"),
        ("main_finetune.py", "--map block2"),
        ("main_finetune.py", "--map_temperature 3"),
        ("main_finetune.py", "--unmasked_epochs 1"),
        ("main_finetune.py", "--mixup 0.8"),
        ("main_finetune.py", "--cutmix 1.0"),
        ("main_finetune.py", "--mixup 0.8 --cutmix 1.0 --mixup_mode elem --mixup_switch_prob 0.3 --mixup_prob 0.9"),
        ("main_finetune.py", "--cutmix_minmax 0.2 0.8 --mixup_mode pair"),
        ("main_finetune.py", "--aa rand-m9-mstd0.5-inc1"),
        ("main_finetune.py", "--aa original"),
        ("main_finetune.py", "--color_jitter 0.4"),
        ("main_finetune.py", "--reprob 1 --remode const --recount 2"),
        ("main_finetune.py", "--smoothing 0"),
        ("main_finetune.py", "--drop_path 0.5"),
        ("main_finetune.py", "--layer_decay 0.5"),
        ("main_finetune.py", "--clip_grad 0.001"),
        ("main_finetune.py", "--accum_iter 3"),
        ("main_finetune.py", "--min_lr 1e-4"),
        ("main_finetune.py", "--warmup_epochs 1"),
        ("main_finetune.py", "--amp fp16 --mixup 0.8"),
    ],
)
def test_every_option_has_an_effect(script, options, call, few, tmp_path, baselines):
    """The run ends well, and its weights differ from those of a run without the option."""
    if script not in baselines:
        baselines[script] = run_once(call, script, "--amp fp32", few, tmp_path / "plain")
    changed = run_once(call, script, "--amp fp32 " + options, few, tmp_path / "changed")
    plain = baselines[script]
    assert plain.keys() != changed.keys() or any(not torch.equal(plain[name], changed[name]) for name in plain)


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_runs_with_better_maps(phase, call, pretrained, phantoms, tmp_path):
    """The log names the source; maps before fine-tuning come from the pre-trained head."""
    options = f"--map relevance --data_path {phantoms} --output_dir {tmp_path / 'run'}"
    if phase == "pretrain":
        command = f"main_pretrain.py {TINY_PRETRAIN} {PRETRAIN_SCHEDULE} --random_share 0.5 {options}"
    else:
        start = f"--finetune {pretrained / 'checkpoint-last.pth'} --unmasked_epochs 1"
        command = f"main_finetune.py {TINY_FINETUNE} {FINETUNE_SCHEDULE} {start} {options}"
    status, _, err = call(command)
    assert status == 0, err
    lines, first = log_of(tmp_path / "run"), {"pretrain": 2, "finetune": 0}[phase]
    sam = lines[first : {"pretrain": 4, "finetune": 2}[phase]]
    assert all(line["map_source"] == "relevance" and "map_on_masked" in line for line in sam)
    assert "map_on_masked" not in lines[first - 1]
    assert set(lines[-1]["localisation"]["sources"]) == set(names(6))
    content = content_of(tmp_path / "run" / "checkpoint-last.pth")
    assert content["map_source"] == sam[-1]["map_source"]


def test_bf16_is_close_to_fp32(call, phantoms, tmp_path):
    losses = {}
    for amp in ("fp32", "bf16"):
        run_once(call, "main_pretrain.py", f"--amp {amp}", phantoms, tmp_path / amp)
        losses[amp] = log_of(tmp_path / amp)[0]["loss"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02) and losses["bf16"] != losses["fp32"]


def test_two_classes_and_evaluation_with_class_token(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_phantoms(tmp_path / "four", train=24, val=12, size=32, seed=2)
    for split in ("train", "val"):
        for kind in ("none", "ring"):
            shutil.copytree(tmp_path / "four" / split / kind, tmp_path / "two" / split / kind)
    run_once(call, "main_finetune.py", "--cls_token", tmp_path / "two", tmp_path / "run")
    command = "main_finetune.py --eval --resume run/checkpoint-best.pth --device cpu --num_workers 0"
    status, _, _ = call(f"{command} --data_path two --output_dir figures")
    figures = json.loads((tmp_path / "figures" / "metrics.json").read_text())
    assert status == 0 and list(figures["per_class"]) == ["none", "ring"] and "localisation" not in figures


def test_compile(phantoms, tmp_path, monkeypatch):
    """Compiled training is the same training (or, where nothing can compile, falls back to it)."""
    name = "msmae_vit_micro_patch8"  # of one block, because compiling takes seconds for each
    monkeypatch.setitem(AUTOENCODERS, name, {**AUTOENCODERS[name], "depth": 1, "decoder_depth": 1})
    monkeypatch.setattr(torch._dynamo.config, "suppress_errors", False)  # the script changes it; undone afterwards
    run = f"main_pretrain.py {TINY_PRETRAIN} --amp fp32 --epochs 1 --data_path {phantoms}"
    run_here(f"{run} --output_dir {tmp_path / 'plain'}", tmp_path)
    before = counters["frames"]["ok"]
    run_here(f"{run} --compile --output_dir {tmp_path / 'compiled'}", tmp_path)
    assert counters["frames"]["ok"] > before
    torch.compiler.reset()
    plain, compiled = (log_of(tmp_path / name)[0]["loss"] for name in ("plain", "compiled"))
    assert compiled == pytest.approx(plain, rel=1e-3)
    assert content_of(tmp_path / "compiled" / "checkpoint-last.pth")["model"].keys() == (
        content_of(tmp_path / "plain" / "checkpoint-last.pth")["model"].keys()
    )


@pytest.mark.parametrize("script", ["main_pretrain.py", "main_finetune.py"])
def test_help_states_defaults(script, tmp_path):
    text = run_script(f"{script} --help", tmp_path).stdout
    for expected in ("--mask_ratio", "(default: 0.45)", "masking (SAM", "optimisation:", "running:", "--nb_classes"):
        assert expected in text
    assert "None" not in text


def test_real_images(real_data, call, tmp_path):
    """A few of the Brain Tumor MRI images through all three commands."""
    source = real_data / "btmd"
    if not source.is_dir():
        pytest.skip("no btmd/ among the real data")
    for split, count in (("train", 6), ("val", 3)):
        for folder in sorted((source / split).iterdir()):
            (tmp_path / "btmd" / split / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                shutil.copy(path, tmp_path / "btmd" / split / folder.name)
    data, run = tmp_path / "btmd", tmp_path / "run"
    run_once(call, "main_pretrain.py", "--sam_epoch 0", data, run / "p")
    run_once(call, "main_finetune.py", f"--finetune {run / 'p' / 'checkpoint-last.pth'}", data, run / "f")
    command = f"main_finetune.py --eval --resume {run / 'f' / 'checkpoint-last.pth'} --device cpu --figure_width 85"
    assert call(f"{command} --data_path {data} --output_dir {run / 'e'}")[0] == 0
