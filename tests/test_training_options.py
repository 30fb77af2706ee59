"""Balance, flips, averaged weights and early stopping, as given to the scripts; a resumed run equals an unbroken one."""

import json
import shutil

import pytest
import torch
from conftest import PRETRAIN_SCHEDULE, TINY_FINETUNE, TINY_PRETRAIN, content_of, log_of
from test_errors import expect_one_line
from timm.utils import ModelEmaV3

from util.data.augment import Augment
from util.maps.training_maps import TrainingMaps
from util.system.device import Precision
from util.system.seeds import seed_everything
from util.training.optimisation import Schedule, Stepper, averaging_note

CPU = torch.device("cpu")
FINETUNE = (
    f"main_finetune.py {TINY_FINETUNE} --input_size 32 --patch_size 8 --warmup_epochs 0 --loc_interval 2 --save_every 1"
)


@pytest.fixture(scope="module")
def uneven(phantoms, tmp_path_factory):
    """The phantoms with a class of two training images."""
    data = shutil.copytree(phantoms, tmp_path_factory.mktemp("uneven") / "data")
    for path in sorted((data / "train" / "ring").iterdir())[2:]:
        path.unlink()
    return data


def equal(a, b) -> bool:
    """Whether two contents of checkpoints are the same to the last bit, options aside."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a if name != "args")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


PRETRAIN = f"main_pretrain.py {TINY_PRETRAIN} {PRETRAIN_SCHEDULE}"


@pytest.mark.parametrize(
    ("command", "middle"),
    [
        (f"{PRETRAIN} --balance sampler --flip 0", 2),
        (f"{PRETRAIN} --balance loss --random_share 0.5", 2),
        (f"{FINETUNE} --epochs 3 --balance sampler --ema 0.8 --early_stopping 9 --accum_iter 2", 1),
        (f"{FINETUNE} --epochs 3 --balance loss --ema 0.9 --mixup 0.8 --flip 1", 0),
    ],
)
def test_resuming_equals_an_uninterrupted_run(command, middle, call, uneven, tmp_path):
    status, out, err = call(f"{command} --data_path {uneven} --output_dir {tmp_path / 'whole'}")
    assert status == 0 and "balance: " in out, err
    (tmp_path / "stopped").mkdir()
    shutil.copy(tmp_path / "whole" / f"checkpoint-{middle}.pth", tmp_path / "stopped")
    status, out, err = call(
        f"{command} --num_workers 2 --data_path {uneven} --output_dir {tmp_path / 'stopped'} --resume auto"
    )
    assert status == 0 and "was" not in [word for line in out.splitlines() if "note:" in line for word in line.split()], err
    whole, resumed = (content_of(tmp_path / name / "checkpoint-last.pth") for name in ("whole", "stopped"))
    assert equal(whole, resumed) and ("trained_model" in whole) == ("--ema" in command)


def test_the_log_counts_what_was_drawn(call, uneven, tmp_path):
    command = f"{FINETUNE} --epochs 2 --balance sampler --data_path {uneven} --output_dir {tmp_path / 'run'}"
    assert call(command)[0] == 0
    for line in log_of(tmp_path / "run"):
        assert line["drawn"].keys() == {"base", "none", "ring", "skull"} and sum(line["drawn"].values()) == 20
    assert json.loads((tmp_path / "run" / "run.json").read_text())["protocol"]["departures"]["balance"] == [
        "sampler",
        "none",
    ]


def test_flip():
    """Half of the images as ever; none or all where that is asked for, everything else drawn alike."""
    image, grid = torch.randint(256, (3, 40, 40), dtype=torch.uint8), torch.rand(4, 4)
    flipped = 0
    for seed in range(40):
        results = []
        for flip in (0.5, 0.0, 1.0):
            seed_everything(seed)
            results.append(Augment(32, 8, flip=flip)(image, grid))
        half, never, always = results
        assert torch.equal(never[0], always[0].flip(-1))
        assert torch.equal(never[1].view(4, 4), always[1].view(4, 4).flip(-1))
        flipped += torch.equal(half[0], always[0])
        assert torch.equal(half[0], always[0]) or torch.equal(half[0], never[0])
    assert 10 < flipped < 30


def test_flips_depart_from_the_protocol(call, phantoms, tmp_path):
    command = f"{FINETUNE} --epochs 1 --data_path {phantoms} --output_dir {tmp_path}"
    assert "--flip 0 (paper: 0.5)" in call(f"{command}/a --flip 0")[1]
    assert "--flip" not in call(f"{command}/b --flip 0.5")[1]


def test_the_average_follows_every_step():
    """Against the rule written out, over accumulation windows of two batches."""
    model = torch.nn.Linear(3, 2)
    groups = [{"params": list(model.parameters()), "lr_scale": 1.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    stepper = Stepper(
        model, optimizer, Schedule(0.1, 10, 0), Precision(CPU, "fp32"), accum_iter=2, average=ModelEmaV3(model, 0.7)
    )
    expected = model.weight.detach().clone()
    for step in range(6):
        stepper.backward(model(torch.randn(4, 3)).square().mean(), last_of_window=step % 2 == 1)
        if step % 2:
            expected = 0.7 * expected + 0.3 * model.weight.detach()
    content = stepper.state_dict()
    torch.testing.assert_close(content["model"]["weight"], expected)
    assert torch.equal(content["trained_model"]["weight"], model.weight)


def test_the_average_is_what_is_evaluated_and_maps_are_the_trained_models(call, phantoms, pretrained, tmp_path, monkeypatch):
    import main_finetune

    judged, made_maps = [], []
    outputs, refresh = main_finetune.engine.outputs, main_finetune.TrainingMaps.refresh
    monkeypatch.setattr(
        main_finetune.engine, "outputs", lambda model, *rest: judged.append(state(model)) or outputs(model, *rest)
    )
    monkeypatch.setattr(
        main_finetune.TrainingMaps,
        "refresh",
        lambda maps, epoch, model, *rest: made_maps.append(state(model)) or refresh(maps, epoch, model, *rest),
    )
    command = (
        f"{FINETUNE} --epochs 2 --loc_interval 1 --ema 0.9 --lr 0.01 --data_path {phantoms} --output_dir {tmp_path / 'r'}"
    )
    status, out, err = call(f"{command} --finetune {pretrained / 'checkpoint-last.pth'}")
    assert status == 0 and "note: --ema 0.9: what is evaluated and saved as the model is the average" in out, err
    first, last = (content_of(tmp_path / "r" / f"checkpoint-{epoch}.pth") for epoch in (0, 1))
    assert equal(judged, [first["model"], last["model"]]) and equal(made_maps[1], first["trained_model"])
    assert not equal(last["model"], last["trained_model"])
    best = tmp_path / "r" / "checkpoint-best.pth"
    status, out, err = call(
        f"main_finetune.py --eval --resume {best} --data_path {phantoms} --device cpu --output_dir {tmp_path / 'e'}"
    )
    assert status == 0 and "(averaged over steps, --ema 0.9)" in out and equal(judged[2], content_of(best)["model"]), err
    assert log_of(tmp_path / "r")[content_of(best)["epoch"]]["val_top1"] == pytest.approx(
        json.loads((tmp_path / "e" / "metrics.json").read_text())["top1"]
    )


def state(model) -> dict:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_slow_average_is_warned_of():
    assert "After 300 steps the start still makes 97 % of it: lower --ema" in averaging_note(0.9999, 300)
    assert "over about 100 steps" in averaging_note(0.99, 1000) and "lower" not in averaging_note(0.99, 1000)


def test_early_stopping_ends_saves_and_goes_on_when_asked(call, phantoms, tmp_path):
    """With a rate of 0 nothing gets better: the first epoch is the best, the third of --early_stopping 2 the last."""
    run = tmp_path / "run"
    command = f"{FINETUNE} --epochs 9 --lr 0 --min_lr 0 --data_path {phantoms} --output_dir {run}"
    status, out, err = call(f"{command} --early_stopping 2")
    assert status == 0, err
    assert "early stopping: no better val_top1 for 2 epochs (--early_stopping), the best was epoch 0" in out
    assert "last epoch 2: top-1" in out and "best epoch 0: top-1" in out and "epoch 3 of 9" not in out
    assert len(log_of(run)) == 3 and content_of(run / "checkpoint-last.pth")["epoch"] == 2
    assert (run / "checkpoint-2.pth").exists() and (run / "sheet-2.png").exists() and not (run / "sheet-0.png").exists()
    before = (run / "checkpoint-last.pth").read_bytes()
    status, out, err = call(f"{command} --resume auto")
    assert status == 0 and "nothing to do: no better val_top1 for 2 epochs" in out and "last epoch" not in out, err
    assert (run / "checkpoint-last.pth").read_bytes() == before
    status, out, err = call(f"{command} --resume auto --early_stopping 3")
    assert status == 0 and "last epoch 3: top-1" in out, err
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    shutil.copy(run / "checkpoint-1.pth", stopped)
    status, out, err = call(f"{command.replace(str(run), str(stopped))} --resume auto")
    assert status == 0 and "last epoch 2: top-1" in out, err
    assert equal(content_of(stopped / "checkpoint-last.pth"), content_of(run / "checkpoint-2.pth"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("main_pretrain.py --balance all", ["--balance", "sampler"]),
        ("main_pretrain.py --balance loss --class_weight 0", ["--balance loss", "--class_weight 0", "sampler"]),
        ("main_pretrain.py --flip 1.5", ["--flip", "[0, 1]"]),
        ("main_pretrain.py --ema 0.9", ["--ema"]),
        ("main_finetune.py --ema 1", ["--ema", "(0, 1)"]),
        ("main_finetune.py --ema 0", ["--ema", "(0, 1)"]),
        ("main_finetune.py --early_stopping 0", ["--early_stopping", "[1, inf)"]),
        ("main_finetune.py --balance weights", ["--balance", "loss"]),
        ("main_finetune.py --flip no", ["--flip", "number"]),
    ],
)
def test_wrong_values(options, words, call, phantoms, tmp_path):
    expect_one_line(call(f"{options} --data_path {phantoms} --batch_size 8 --output_dir {tmp_path / 'o'}"), words)
    assert not (tmp_path / "o").exists()


def test_the_first_maps_of_the_relevance_are_of_a_head_trained_here(call, pretrained, phantoms, tmp_path, monkeypatch):
    """Its model is put on the device as the one that is trained; a head of other classes is refused."""
    moved, asked, move, refresh = set(), [], torch.nn.Module.to, TrainingMaps.refresh

    def note(self, *args, **named):
        moved.add(id(self))
        return move(self, *args, **named)

    def check(self, epoch, model, *args):
        asked.append(id(model) in moved)
        return refresh(self, epoch, model, *args)

    monkeypatch.setattr(torch.nn.Module, "to", note)
    monkeypatch.setattr(TrainingMaps, "refresh", check)
    start = f"main_finetune.py {TINY_FINETUNE} --map relevance --finetune {pretrained / 'checkpoint-last.pth'}"
    status, _, err = call(f"{start} --epochs 1 --warmup_epochs 0 --data_path {phantoms} --output_dir {tmp_path / 'run'}")
    assert status == 0 and asked == [True], err
    other = shutil.copytree(phantoms, tmp_path / "other")
    for split in ("train", "val"):
        (other / split / "skull").rename(other / split / "other")
    expect_one_line(
        call(f"{start} --data_path {other} --output_dir {tmp_path / 'two'}"), ["--map relevance", "no head trained on these"]
    )


def test_a_batch_that_skipped_images_no_longer_fill_is_refused(call, phantoms, tmp_path):
    data = shutil.copytree(phantoms, tmp_path / "data")
    next((data / "train").glob("*/*.png")).write_bytes(b"no image")
    for script in (f"main_finetune.py {TINY_FINETUNE}", f"main_pretrain.py {TINY_PRETRAIN}"):
        options = f"--batch_size 24 --on_bad_image skip --data_path {data} --output_dir {tmp_path / 'run'}"
        expect_one_line(call(f"{script} {options}"), ["--batch_size 24", "more than the 23 training images"])
