"""Runs that go on, start again or repeat: the same weights, and never another run's files overwritten."""

import json
import shutil
import time
from hashlib import sha256
from types import SimpleNamespace

import pytest
import torch
from conftest import FINETUNE_SCHEDULE, PRETRAIN_SCHEDULE, TINY_FINETUNE, TINY_PRETRAIN, log_of, run_here, same_weights

from util.report.__main__ import render
from util.training import checkpoint
from util.training.log import Averages
from util.training.run import same_place
from util.training.save_every import SaveEvery
from util.training.saver import Saver


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_resuming_equals_an_uninterrupted_run(phase, pretrained, finetuned, phantoms, tmp_path):
    """Also with another number of loader workers, and after damage to the newest checkpoint."""
    finished = {"pretrain": pretrained, "finetune": finetuned}[phase]
    options = {
        "pretrain": f"main_pretrain.py {TINY_PRETRAIN} {PRETRAIN_SCHEDULE}",
        "finetune": f"main_finetune.py {TINY_FINETUNE} {FINETUNE_SCHEDULE} --finetune {pretrained / 'checkpoint-last.pth'}",
    }[phase].replace("--num_workers 0", "--num_workers 2")
    folder = tmp_path / "stopped"
    folder.mkdir()
    middle = {"pretrain": "checkpoint-2.pth", "finetune": "checkpoint-1.pth"}[phase]
    shutil.copy(finished / middle, folder)
    shutil.copy(finished / "log.txt", folder)
    (folder / "checkpoint-last.pth").write_bytes((finished / "checkpoint-last.pth").read_bytes()[:1000])
    result = run_here(f"{options} --data_path {phantoms} --output_dir {folder} --resume auto", tmp_path)
    assert (
        "skipped" in result.stdout
        and f"resuming {folder / middle}" in result.stdout
        and "in the resumed run" not in result.stdout
    )
    assert same_weights(folder / "checkpoint-last.pth", finished / "checkpoint-last.pth")
    drop_rate = [{k: v for k, v in line.items() if k != "images_per_second"} for line in log_of(folder)]
    assert drop_rate == [{k: v for k, v in line.items() if k != "images_per_second"} for line in log_of(finished)]


def test_resume_says_what_changed_and_when_there_is_nothing_to_do(call, pretrained, phantoms, tmp_path):
    folder = shutil.copytree(pretrained, tmp_path / "run")
    command = f"main_pretrain.py {TINY_PRETRAIN} {PRETRAIN_SCHEDULE}"
    status, out, _ = call(f"{command} --clip_grad 5 --data_path {phantoms} --resume {folder / 'checkpoint-last.pth'}")
    assert status == 0 and "--clip_grad was None in the resumed run and is 5.0 now" in out and "nothing to do" in out


def test_resume_of_a_finished_fine_tuning_needs_no_other_option(call, finetuned, phantoms, tmp_path):
    """Input size, patch size and pooling come from the checkpoint."""
    folder = shutil.copytree(finetuned, tmp_path / "run")
    command = f"main_finetune.py {TINY_FINETUNE} --epochs 3 --data_path {phantoms} --resume {folder / 'checkpoint-last.pth'}"
    status, out, err = call(command)
    assert status == 0 and "nothing to do: 3 epochs are done" in out, err
    status, out, err = call(command.replace("--epochs 3", "--epochs 4"))
    assert status == 0 and "--epochs was 3 in the resumed run and is 4 now" in out and "last epoch 3:" in out, err
    assert [line["epoch"] for line in log_of(folder)] == [0, 1, 2, 3]


def test_resume_auto_starts_afresh_in_an_empty_folder(call, phantoms, tmp_path):
    command = (
        f"main_pretrain.py {TINY_PRETRAIN} --epochs 1 --data_path {phantoms} --output_dir {tmp_path / 'new'} --resume auto"
    )
    status, out, _ = call(command)
    assert status == 0 and "no checkpoint in" in out and (tmp_path / "new" / "checkpoint-0.pth").exists()


def test_slow_checkpoints_are_saved_less_often(call, phantoms, tmp_path, monkeypatch):
    """Where saving takes longer than the epochs, only the due ones are saved: by number, and the last."""
    saved = []

    def slow_save(path, **content):
        saved.append(content["epoch"])
        time.sleep(1)
        checkpoint.save(path, **content)

    monkeypatch.setattr("util.training.saver.checkpoint", SimpleNamespace(**{**vars(checkpoint), "save": slow_save}))
    command = f"main_pretrain.py {TINY_PRETRAIN} --epochs 6 --sam_epoch 9 --save_every 4 --data_path {phantoms}"
    assert call(f"{command} --output_dir {tmp_path / 'run'}")[0] == 0
    assert saved == [0, 4, 5]


def test_default_folder_is_kept_from_other_runs(call, phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = f"main_pretrain.py {TINY_PRETRAIN} --epochs 1 --data_path {phantoms}"
    status, out, _ = call(command)
    folder = tmp_path / "output_dir" / "pretrain-phantoms"
    assert status == 0 and out.count("output folder: output_dir/pretrain-phantoms") == 2
    before = (folder / "checkpoint-last.pth").read_bytes()
    status, _, err = call(command)
    assert status == 2 and "--resume auto" in err and "--overwrite" in err and len(err.splitlines()) == 1
    assert (folder / "checkpoint-last.pth").read_bytes() == before
    (folder / "mine.txt").write_text("not of a run")
    status, _, _ = call(f"{command} --overwrite --seed 1")
    assert status == 0 and (folder / "checkpoint-last.pth").read_bytes() != before
    assert (folder / "mine.txt").exists() and len(log_of(folder)) == 1


def test_same_seed_same_weights(call, phantoms, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        command = f"main_pretrain.py {TINY_PRETRAIN} --epochs 1 --sam_epoch 0 --data_path {phantoms} --seed {seed}"
        assert call(f"{command} --output_dir {tmp_path / name}")[0] == 0
    assert same_weights(tmp_path / "a" / "checkpoint-last.pth", tmp_path / "b" / "checkpoint-last.pth")
    assert not same_weights(tmp_path / "a" / "checkpoint-last.pth", tmp_path / "c" / "checkpoint-last.pth")


def test_an_evaluation_replaces_neither_another_nor_the_account_of_a_training(
    call, pretrained, finetuned, phantoms, tmp_path
):
    run = shutil.copytree(finetuned, tmp_path / "run")
    before = (run / "run.json").read_text()
    command = f"main_finetune.py --eval --device cpu --data_path {phantoms} --output_dir {run} --resume"
    status, _, err = call(f"{command} {run / 'checkpoint-last.pth'}")
    assert status == 0 and (run / "run.json").read_text() == before and (run / "run-eval.json").exists(), err
    status, _, err = call(f"{command} {pretrained / 'checkpoint-last.pth'}")
    assert status == 2 and "holds an evaluation of" in err and "--overwrite" in err and len(err.splitlines()) == 1
    status, _, err = call(f"{command} {pretrained / 'checkpoint-last.pth'} --overwrite")
    assert status == 0, err


def test_tuned_given_to_a_run_by_the_paper_changes_what_masks(call, finetuned, tmp_path):
    run = shutil.copytree(finetuned, tmp_path / "run")
    status, out, err = call(f"main_finetune.py --resume {run / 'checkpoint-1.pth'} --protocol tuned")
    assert status == 0 and "--masking was attention in the resumed run and is none now" in out, err
    assert "map_on_visible" not in log_of(run)[2]


@pytest.mark.parametrize("option", ["--split val", "--ordered", "--eval --protocol tuned"])
def test_options_that_would_have_no_effect_are_refused(option, call, finetuned, phantoms, tmp_path):
    start = f"main_finetune.py --resume {finetuned / 'checkpoint-last.pth'} --data_path {phantoms}"
    status, _, err = call(f"{start} --output_dir {tmp_path / 'out'} {option}")
    assert status == 2 and "leave" in err and len(err.splitlines()) == 1


def test_checkpoints_are_named_by_what_they_hold(call, pretrained, finetuned, phantoms, tmp_path):
    """In ``run.json`` of a training, of one that goes on, and of an evaluation beside it; the report shows them."""

    def named(path):
        return {"file": str(path), "sha256": sha256(path.read_bytes()).hexdigest()}

    begun_from, before = named(pretrained / "checkpoint-last.pth"), named(finetuned / "checkpoint-last.pth")
    given = json.loads((finetuned / "run.json").read_text())["checkpoints"]
    assert given == {"begun_from": begun_from, "resumed": None}
    folder = shutil.copytree(finetuned, tmp_path / "run")
    last, common = folder / "checkpoint-last.pth", f"--device cpu --data_path {phantoms}"
    assert call(f"main_finetune.py --resume {last} --epochs 4 --num_workers 0 {common}")[0] == 0
    given = json.loads((folder / "run.json").read_text())["checkpoints"]
    assert given == {"begun_from": begun_from, "resumed": {**before, "file": str(last)}}
    after = named(last)
    assert call(f"main_finetune.py --eval --resume {last} {common} --output_dir {folder}")[0] == 0
    assert json.loads((folder / "run-eval.json").read_text())["checkpoints"]["evaluated"] == after != before
    assert json.loads((folder / "metrics.json").read_text())["checkpoint_sha256"] == after["sha256"]
    html = render([folder])
    assert all(each["sha256"] in html for each in (begun_from, before, after))
    assert "finetune: run" in html and "eval: run" in html and "Metrics on 12 images" in html and "Epoch 3, the last" in html


def test_an_evaluation_is_known_by_what_was_evaluated(call, finetuned, phantoms, tmp_path, monkeypatch):
    model = tmp_path / "model.pth"
    shutil.copy(finetuned / "checkpoint-last.pth", model)
    common = f"--device cpu --data_path {phantoms} --output_dir {tmp_path / 'eval'}"
    monkeypatch.chdir(tmp_path)
    shutil.copy(model, "copy.pth")
    for path in (model, "./model.pth", "copy.pth"):
        assert call(f"main_finetune.py --eval --resume {path} {common}")[0] == 0
    shutil.copy(finetuned / "checkpoint-0.pth", model)
    status, _, err = call(f"main_finetune.py --eval --resume model.pth {common}")
    assert status == 2 and "holds an evaluation of copy.pth on val" in err and "--overwrite" in err
    assert call(f"main_finetune.py --eval --resume model.pth {common} --overwrite")[0] == 0


def test_the_best_epoch_of_another_folder_is_not_named_here(call, finetuned, phantoms, tmp_path):
    command = f"main_finetune.py {TINY_FINETUNE} --epochs 4 --data_path {phantoms}"
    status, out, err = call(f"{command} --resume {finetuned / 'checkpoint-last.pth'} --output_dir {tmp_path / 'new'}")
    assert status == 0 and "stays in" in out and "best epoch 3:" in out, err
    assert (tmp_path / "new" / "checkpoint-best.pth").exists()


@pytest.mark.parametrize(
    "step, before, now, accum_iter, expected",
    [(5, 2, 8, 1, 1), (5, 8, 2, 1, 20), (5, 8, 2, 8, 16), (5, 4, 4, 2, 5), (1, 2, 64, 1, 0)],
)
def test_another_batch_within_an_epoch_leaves_no_image_out(step, before, now, accum_iter, expected):
    assert same_place(step, before, now, accum_iter) == expected


def test_a_run_that_went_back_names_the_best_epoch_that_it_keeps(call, finetuned, phantoms, tmp_path):
    folder = shutil.copytree(finetuned, tmp_path / "run")
    best = checkpoint.load(folder / "checkpoint-best.pth").content
    torch.save({**best, "epoch": 1, "best": {"epoch": 1, "val_top1": 0.99}}, folder / "checkpoint-best.pth")
    command = f"main_finetune.py --resume {folder / 'checkpoint-0.pth'} --epochs 2 --device cpu --num_workers 0"
    status, out, err = call(f"{command} --data_path {phantoms}")
    assert status == 0 and "is no more in checkpoint-best.pth; it is chosen anew" in out, err
    named, kept = (checkpoint.load(folder / f"checkpoint-{name}.pth").content for name in ("last", "best"))
    assert kept["best"] == named["best"] and kept["epoch"] == named["best"]["epoch"] and named["best"]["val_top1"] < 0.99


def test_other_masking_within_an_epoch_begins_the_means_anew():
    averages = Averages()
    averages.add(loss=torch.tensor(1.0), map_on_visible=torch.tensor(0.5))
    within = Averages.of(averages.state(), torch.device("cpu"))
    within.add(loss=torch.tensor(3.0))
    assert within.means() == {"loss": 3.0}


def test_steps_between_checkpoints_with_accumulation(tmp_path):
    """A checkpoint comes at the end of the accumulation window in which it is due."""
    saver = Saver(tmp_path, SaveEvery.parse("3steps"), None, content=lambda _: {})
    ends = range(4, 25, 4)
    assert [step for step in range(1, 13) if saver.due_within_epoch(step)] == [3, 6, 9, 12]
    assert [step for step in ends if saver.due_within_epoch(step, window=4)] == [*ends]
    rare = Saver(tmp_path, SaveEvery.parse("10steps"), None, content=lambda _: {})
    assert [step for step in ends if rare.due_within_epoch(step, window=4)] == [12, 20]
