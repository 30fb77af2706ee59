"""Segmentation as a user runs it; its data and metrics against slow or foreign computations."""

import csv
import json
import random
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, content_of, holder, log_of, run_here, run_script, same_weights
from mutations import damage_fields, of_routes, start, without_work
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score, recall_score
from test_errors import expect_one_line

from segmentation import train
from segmentation.data import Pairs, RandomQuarterTurns, apply, augmentation
from segmentation.metrics import count, metrics_of, summary
from segmentation.pictures import cases
from segmentation.protocol import PAPER
from util.phantom import draw_phantom
from util.system.errors import InputError
from util.system.errors import run_script as run_main
from util.training import checkpoint

TINY = "segmentation/train.py --model vit_micro_patch8 --input_w 32 --input_h 32 --batch_size 4 --device cpu"


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory):
    """12 + 6 phantoms of 36 px in the layout of segmentation: class 0 the lesion, class 1 the bright half of the image."""
    root = tmp_path_factory.mktemp("pairs") / "seg"
    for number, (split, size) in enumerate((("train", 12), ("val", 6))):
        for name in ("images", "masks/0", "masks/1"):
            (root / split / name).mkdir(parents=True)
        for index in range(size):
            image, mask = draw_phantom(("ring", "skull")[index % 2], (0, number, index), 36)
            Image.fromarray(image).save(root / split / "images" / f"{index}.png")
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / split / "masks" / "0" / f"{index}.png")
            Image.fromarray((image > 90).astype(np.uint8)).save(root / split / "masks" / "1" / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def trained(pairs_folder, pretrained, tmp_path_factory):
    """The output folder of a run of three epochs from a pre-trained encoder, by the paper, called as a user calls it."""
    folder = tmp_path_factory.mktemp("segmentation")
    start = f"--checkpoint {pretrained / 'checkpoint-last.pth'} --deep_supervision --num_workers 0 --save_every 1"
    result = run_script(f"{TINY} --epochs 3 --lr 1e-3 {start} --root {pairs_folder}", folder)
    assert "76 tensors loaded" in result.stdout and "newly initialised: none" in result.stdout
    assert (
        "protocol: paper, except --model vit_micro_patch8 (paper: vit_base_patch16), --patch_size 8 (paper: 16), --input_w "
        "32 (paper: 224), --input_h 32 (paper: 224), --epochs 3 (paper: 200), --batch_size 4 (paper: 8), --lr 0.001 (paper: "
        "0.0001), --deep_supervision (paper: off)\n"
    ) in result.stdout
    return folder / "output_dir" / "busi-setr"


@pytest.fixture(scope="module")
def tuned(pairs_folder, tmp_path_factory):
    """The output folder of two epochs by the protocol "tuned"."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    command = f"{TINY} --protocol tuned --epochs 2 --lr 1e-3 --flips --num_workers 0 --root {pairs_folder}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", f"{command} --output_dir {folder}".split())
        train.main()
    return folder


def call(command, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", command.split())
    status = 0
    try:
        run_main(train.main)
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_training(trained):
    assert {path.name for path in trained.glob("checkpoint*")} == {
        f"checkpoint-{name}.pth" for name in ("0", "1", "2", "last", "best")
    }
    lines = log_of(trained)
    assert [line["epoch"] for line in lines] == [0, 1, 2] and lines[2]["loss"] < lines[0]["loss"]
    assert all(0 <= line[f"val_{name}"] <= 1 for line in lines for name in ("iou", "dice", "iou_whole_set"))
    run = json.loads((trained / "run.json").read_text())
    assert run["options"]["protocol"] == run["protocol"]["name"] == "paper" and run["options"]["lr"] == 1e-3
    names = ("model", "patch_size", "input_w", "input_h", "epochs", "batch_size", "lr", "deep_supervision")
    assert tuple(run["protocol"]["departures"]) == names
    assert run["protocol"]["departures"]["epochs"] == [3, 200]
    assert run["protocol"]["departures"]["deep_supervision"] == [True, False]
    last = content_of(trained / "checkpoint-last.pth")
    assert last["classes"] == ["0", "1"] and not any("encoder.norm." in name for name in last["model"])
    assert last["optimizer"]["param_groups"][0]["lr"] == pytest.approx(1e-5 + 99e-5 * 0.25)  # the third epoch's, all along


def test_the_best_epoch(trained, tuned):
    for folder, score in ((trained, "val_iou_batches"), (tuned, "val_iou")):
        best = content_of(folder / "checkpoint-best.pth")
        values = [line[score] for line in log_of(folder)]
        assert best["best"] == {"epoch": best["epoch"], score: max(values)} and values[best["epoch"]] == max(values)


def test_resuming_equals_an_uninterrupted_run(trained, pairs_folder, tmp_path):
    """No option but the folders is needed to go on."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(trained / "checkpoint-0.pth", folder)
    command = f"segmentation/train.py --device cpu --num_workers 2 --root {pairs_folder}"
    result = run_here(f"{command} --output_dir {folder} --resume auto", tmp_path)
    assert "resuming" in result.stdout and "note:" not in result.stdout.replace("note: --checkpoint", "")
    assert same_weights(folder / "checkpoint-last.pth", trained / "checkpoint-last.pth")


def test_evaluation(trained, pairs_folder, tmp_path):
    """A row for each image and class, its mean, masks and a sheet; no option but the checkpoint is needed."""
    result = run_script(
        f"segmentation/train.py --evaluate {trained / 'checkpoint-last.pth'} --root {pairs_folder} "
        "--figure_format png pdf --figure_width 120",
        tmp_path,
    )
    folder = tmp_path / "output_dir" / "busi-setr-eval"
    results = json.loads((folder / "metrics.json").read_text())
    run = json.loads((folder / "run.json").read_text())
    assert run["protocol"] == json.loads((trained / "run.json").read_text())["protocol"]
    with open(folder / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and results["images"] == 6 and results["input"] == [32, 32]
    mean = np.mean([np.mean([float(row["iou"]) for row in rows if row["class"] == kind]) for kind in "01"])
    assert results["per_image"]["iou"] == pytest.approx(mean, abs=1e-6)
    low, high = results["intervals"]["per_image"]["iou"]
    assert f"{100 * mean:.2f} % ({100 * low:.2f} to {100 * high:.2f})" in result.stdout and low < mean < high
    assert "batches of 4 pooled, by their size" in result.stdout and results["split"] == "val"
    with Image.open(folder / "sheet.png") as sheet:
        assert np.asarray(sheet).std() > 20
    points = float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", (folder / "sheet.pdf").read_bytes())[1])
    assert points * 25.4 / 72 == pytest.approx(120, abs=0.1) and "sheet.png, sheet.pdf" in result.stdout
    for kind in "01":
        with Image.open(folder / "masks" / kind / "3.png") as mask:
            assert mask.size == (36, 36) and set(np.unique(mask)) <= {0, 255}


@pytest.mark.parametrize("protocol", ["paper", "tuned"])
def test_evaluation_gives_the_metrics_of_the_last_epoch(
    protocol, trained, tuned, pairs_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = trained if protocol == "paper" else tuned
    content, last = content_of(folder / "checkpoint-last.pth"), log_of(folder)[-1]
    args = {"own": content["args"]}
    args["older"] = {name: value for name, value in args["own"].items() if name not in {*PAPER, "protocol"}}
    for name in ("align_corners", "antialias"):  # what the metrics must depend on
        args[name] = args["own"] | {name: not args["own"][name]}
    for name, options in args.items():
        checkpoint.save(tmp_path / f"{name}.pth", **{**content, "args": options})
        command = (
            f"{TINY.split()[0]} --device cpu --evaluate {tmp_path / name}.pth --root {pairs_folder} --output_dir {name}"
        )
        status, out, err = call(command, capsys, monkeypatch)
        if name == "older" and protocol == "paper":  # has no final norm, as checkpoints of "tuned" do
            assert status == 2 and "do not fit the model" in err and "encoder.norm" in err
            continue
        assert status == 0 and f"protocol: {protocol}" in out, err
        results = json.loads((tmp_path / name / "metrics.json").read_text())
        measured = results["per_image"]["iou"], results["batch_averaged"]["iou"], results["loss"]
        expected = last["val_iou"], last["val_iou_batches"], last["val_loss"]
        assert (measured == pytest.approx(expected, abs=1e-6)) == (name in ("own", "older")), name


def test_metrics_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    predicted, true = (torch.rand(5, 2, 8, 8, generator=generator) < share for share in (0.4, 0.3))
    true[1, 0], predicted[1, 0], true[2, 1] = False, False, False
    counts = count(predicted, true)
    values = metrics_of(counts)
    for image in range(5):
        for kind in range(2):
            a, b = true[image, kind].flatten(), predicted[image, kind].flatten()
            empty = 1.0 if not (a | b).any() else 0.0
            assert values["iou"][image, kind].item() == pytest.approx(jaccard_score(a, b, zero_division=empty))
            assert values["dice"][image, kind].item() == pytest.approx(f1_score(a, b, zero_division=empty))
            if a.any():
                assert values["sensitivity"][image, kind].item() == pytest.approx(recall_score(a, b))
            else:
                assert values["sensitivity"][image, kind].isnan()
            assert values["specificity"][image, kind].item() == pytest.approx(recall_score(~a, ~b))
    results = summary(counts, 2, ["a", "b"])
    whole = [jaccard_score(true[:, kind].flatten(), predicted[:, kind].flatten()) for kind in range(2)]
    assert results["whole_set"]["iou"] == pytest.approx(np.mean(whole))
    batches = [f1_score(true[part].flatten(), predicted[part].flatten()) for part in (slice(0, 2), slice(2, 4), slice(4, 5))]
    assert results["batch_averaged"]["dice"] == pytest.approx(np.average(batches, weights=(2, 2, 1)))
    assert results["per_class"]["b"]["per_image"]["iou"] == pytest.approx(values["iou"][:, 1].mean().item())


def test_images_and_masks_move_together(pairs_folder):
    pairs = Pairs(str(pairs_folder), "train", ".png", ".png")
    image, masks = pairs[3]
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        turned, turned_masks = apply(RandomQuarterTurns(1.0), image, masks)
        turns = next(n for n in range(4) if torch.equal(turned, torch.rot90(image, n, (-2, -1))))
        assert torch.equal(turned_masks.bool(), torch.rot90(masks, turns, (-2, -1)))
        seen.add(turns)
    assert seen == {0, 1, 2, 3}
    augment = augmentation(
        (48, 64), turn_probability=0.5, flips=True, crop_scale=(0.3, 1.0), color_jitter=0.2, antialias=True
    )
    block = torch.zeros(1, 36, 36, dtype=bool)
    block[0, 4:20, 9:30] = True
    for _ in range(8):  # a mask painted from brightness must still agree with it
        moved, moved_masks = apply(augment, (block * 200).to(torch.uint8).expand(3, -1, -1), block)
        assert moved.shape == (3, 48, 64) and moved_masks.shape == (1, 48, 64)
        assert ((moved[0] > 60) == moved_masks[0].bool()).float().mean() > 0.93


def test_best_median_and_worst_cases():
    iou = torch.arange(11) / 11
    assert cases(iou) == [10, 9, 8, 6, 5, 4, 2, 1, 0] and cases(iou[:4]) == [3, 2, 1, 0]


@pytest.mark.parametrize(
    "options",
    [
        "--optimizer SGD --nesterov --scheduler multistep --milestones 1 --gamma 0.5 --loss BCEWithLogitsLoss",
        "--optimizer AdamW --scheduler plateau --factor 0.5 --patience 0 --flips --color_jitter 0.1 --no-turns",
        "--scheduler constant --early_stopping 1 --lr 0 --crop_scale 0.5 1 --accum_iter 2 --clip_grad 1",
        "--scheduler cosine --warmup_epochs 1 --amp bf16 --input_w 48 --name other --dataset set",
        "--protocol tuned --no-final_norm --schedule_step epoch --best_by batch_iou --turn_probability 0.3",
    ],
)
def test_options(options, pairs_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = f"{TINY} --num_workers 0 --root {pairs_folder} --epochs 3 {options}"
    status, out, err = call(command, capsys, monkeypatch)
    assert status == 0, err
    folder = tmp_path / "output_dir" / ("set-other" if "other" in options else "busi-setr")
    content, lines = content_of(folder / "checkpoint-last.pth"), log_of(folder)
    rate = content["optimizer"]["param_groups"][0]["lr"]
    if "tuned" in options:
        departing = (
            "--no-final_norm (tuned: on), --turn_probability 0.3 (tuned: 1), --schedule_step epoch (tuned: iteration)"
        )
        assert f", {departing}, --best_by batch_iou (tuned: image_iou)\n" in out
        assert "val_iou_batches" in content["best"] and not any("encoder.norm." in name for name in content["model"])
        assert rate == pytest.approx(1e-5 + 9e-5 * 0.25)
    if "multistep" in options:
        assert rate == pytest.approx(5e-5) and content["optimizer"]["param_groups"][0]["nesterov"]
    if "early_stopping" in options:  # with a rate of 0 nothing but the normalisation's statistics moves
        assert ("early stopping" in out) == (len(lines) < 3)
    assert ("plateau" in content) == ("plateau" in options)
    status, _, err = call(f"{command} --resume auto --epochs 4", capsys, monkeypatch)
    assert status == 0, err


def test_going_on_with_another_schedule_and_another_choice_of_the_best(tuned, pairs_folder, tmp_path, capsys, monkeypatch):
    """The checkpoint holds neither the schedule's memory nor that score; the run starts them anew and says what changed."""
    folder = shutil.copytree(tuned, tmp_path / "run")
    command = f"segmentation/train.py --root {pairs_folder} --output_dir {folder} --resume auto --epochs 3"
    status, out, err = call(f"{command} --scheduler plateau --best_by batch_iou", capsys, monkeypatch)
    assert status == 0, err
    changed = {line for line in out.splitlines() if " was " in line}
    assert changed == {
        f"note: --{name} was {old} in the resumed run and is {new} now"
        for name, old, new in (("epochs", 2, 3), ("scheduler", "cosine", "plateau"), ("best_by", "image_iou", "batch_iou"))
    }
    best = content_of(folder / "checkpoint-best.pth")
    assert best["best"] == {"epoch": 2, "val_iou_batches": log_of(folder)[2]["val_iou_batches"]} and best["plateau"]


def damaged(root, tmp_path, name):
    copy = shutil.copytree(root, tmp_path / name)
    val = copy / "val"
    if name == "lacking":
        (val / "masks" / "1" / "2.png").unlink()
    elif name == "larger":
        Image.new("L", (40, 36)).save(val / "masks" / "0" / "1.png")
    elif name == "grey":
        Image.fromarray(np.arange(36 * 36, dtype=np.uint8).reshape(36, 36)).save(val / "masks" / "0" / "1.png")
    elif name == "empty":
        shutil.rmtree(val / "images")
        (val / "images").mkdir()
    elif name == "broken":
        (val / "images" / "4.png").write_bytes(b"\x89PNG")
    elif name == "maskless":
        shutil.rmtree(val / "masks")
    elif name == "differ":
        shutil.rmtree(val / "masks" / "1")
    return copy


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("lacking", "", ["masks/1/2.png", "1 mask is missing"]),
        ("larger", "", ["masks/0/1.png", "40 x 36", "36 x 36"]),
        ("grey", "", ["masks/0/1.png", "not binary", "0 and 255"]),
        ("empty", "", ["val/images", "no image *.png"]),
        ("broken", "", ["val/images/4.png"]),
        ("maskless", "", ["val/masks/0/"]),
        ("differ", "", ["train/masks/", "val/masks/"]),
        ("fine", "--img_ext jpg", ["*.jpg", "12 .png", "--img_ext"]),
        ("fine", "--mask_ext .bmp", ["0.bmp", "--mask_ext .bmp"]),
        ("fine", "--num_classes 3", ["--num_classes 3", "2 folders"]),
        ("fine", "--input_w 33", ["--input_w 33", "patch size 8"]),
        ("fine", "--batch_size 13", ["--batch_size 13", "12 training images"]),
        ("fine", "--checkpoint nowhere.pth", ["nowhere.pth", "no such file"]),
        ("fine", "--evaluate {pretrained}", ["not a checkpoint of this script", "--checkpoint"]),
        ("fine", "--resume {pretrained}", ["not a checkpoint of this script", "--checkpoint"]),
        ("fine", "--evaluate x.pth --resume auto", ["--evaluate", "--resume"]),
        ("fine", "--loss Dice", ["--loss", "BCEDiceLoss"]),
        ("fine", "--scheduler steps", ["--scheduler", "multistep"]),
        ("fine", "--factor 1", ["--factor"]),
        ("fine", "--nesterov --momentum 0", ["--nesterov", "--momentum"]),
        ("fine", "--crop_scale 1 0.5", ["--crop_scale"]),
        ("missing", "", ["--root", "no such folder"]),
    ],
)
def test_what_can_be_wrong(name, options, words, pairs_folder, pretrained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = damaged(pairs_folder, tmp_path, name) if name != "missing" else tmp_path / "missing"
    options = options.format(pretrained=pretrained / "checkpoint-last.pth")
    result = call(f"{TINY} --num_workers 0 --root {root} --epochs 1 {options}", capsys, monkeypatch)
    expect_one_line(result, words)
    assert not (tmp_path / "output_dir").exists()


def test_it_runs_from_its_own_folder(pairs_folder, trained):
    text = run_script("segmentation/train.py --help", ROOT / "segmentation").stdout
    assert "--deep_supervision" in text and "(default: BCEDiceLoss)" in text


def test_a_mask_that_cannot_be_read_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        Pairs(str(tmp_path / "x"), "val", ".png", ".png")


@pytest.mark.parametrize("route", ["pretrain --checkpoint", "segmentation --resume", "segmentation --evaluate"])
def test_changed_fields_of_a_checkpoint_are_refused_or_valid(route, trained, pretrained, pairs_folder, tmp_path):
    path = tmp_path / "checkpoint-last.pth"
    main, command = of_routes(path, pairs_folder, pairs_folder, tmp_path / "out")[route]
    content = content_of((pretrained if route.startswith("pretrain") else trained) / "checkpoint-last.pth")
    checkpoint.save(path, **content)
    with without_work():
        assert start(main, command) == (0, "")  # as it was, it is taken
    refused, wrong = damage_fields(content, path, 12, random.Random(len(route)), main, command)
    assert not wrong and refused


def test_a_folder_in_use_is_refused(trained, pairs_folder, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    command = f"{TINY} --num_workers 0 --root {pairs_folder} --output_dir {folder}"
    with holder(folder):
        for option in ("--epochs 4", "--overwrite", "--resume auto", f"--evaluate {trained / 'checkpoint-last.pth'}"):
            with without_work():
                status, err = start(train.main, f"{command} {option}")
            assert status == 2 and f"{folder} is in use (" in err and len(err.splitlines()) == 1
