"""Runs that go on, start again or repeat: the same weights, and never another run's files overwritten."""

import json
import shutil
import signal
import time
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import FINETUNE_SCHEDULE, PRETRAIN_SCHEDULE, TINY_FINETUNE, TINY_PRETRAIN, log_of, run_here, same_weights
from test_errors import expect_one_line

from util.report.__main__ import render
from util.system import interruption
from util.training import checkpoint
from util.training.log import Averages
from util.training.resuming import changes, same_place, set_aside
from util.training.run import Training
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
    [(5, 2, 8, 1, 1), (5, 8, 2, 1, 20), (5, 8, 2, 8, 16), (5, 4, 4, 2, 4), (1, 2, 64, 1, 0)],
)
def test_another_batch_within_an_epoch_leaves_no_image_out(step, before, now, accum_iter, expected):
    assert same_place(step, before, now, accum_iter) == expected


def test_another_number_of_processes_is_said():
    content = {"epoch": 0, "args": {}, "format": 3, "processes": 2}
    told = changes(checkpoint.Checkpoint(Path("c.pth"), content), {}, "fp32")
    assert told == ["--batch_size is for each process, and there were 2 in the resumed run and are 1 now"]


def test_a_run_that_went_back_names_the_best_epoch_that_it_keeps(call, finetuned, phantoms, tmp_path):
    folder = shutil.copytree(finetuned, tmp_path / "run")
    best = checkpoint.load(folder / "checkpoint-best.pth").content
    torch.save({**best, "epoch": 1, "best": {"epoch": 1, "val_top1": 0.99}}, folder / "checkpoint-best.pth")
    command = f"main_finetune.py --resume {folder / 'checkpoint-0.pth'} --epochs 2 --device cpu --num_workers 0"
    status, out, err = call(f"{command} --data_path {phantoms}")
    assert status == 0 and "is not in checkpoint-best.pth; it is chosen anew" in out, err
    named, kept = (checkpoint.load(folder / f"checkpoint-{name}.pth").content for name in ("last", "best"))
    assert kept["best"] == named["best"] and kept["epoch"] == named["best"]["epoch"] and named["best"]["val_top1"] < 0.99


def test_a_best_checkpoint_that_was_removed_is_called_missing(call, finetuned, phantoms, tmp_path):
    last = checkpoint.load(finetuned / "checkpoint-last.pth").content
    torch.save({**last, "best": {"epoch": 0, "val_top1": 2.0}}, tmp_path / "checkpoint-last.pth")  # and no epoch is better
    command = f"main_finetune.py {TINY_FINETUNE} {FINETUNE_SCHEDULE} --epochs 4 --data_path {phantoms}"
    status, out, err = call(f"{command} --output_dir {tmp_path} --resume auto")
    assert status == 0 and "best epoch 0:" in out and "(checkpoint-best.pth is missing)" in out, err


def test_a_stop_after_the_best_epoch_was_measured_does_not_lose_it(call, phantoms, tmp_path, monkeypatch):
    """SIGTERM comes while the first epoch's sheet is drawn: that epoch is judged again, and kept."""
    command = f"main_finetune.py {TINY_FINETUNE} --input_size 32 --patch_size 8 --epochs 1 --warmup_epochs 0"
    command += f" --data_path {phantoms} --output_dir {tmp_path / 'run'}"
    monkeypatch.setattr("util.evaluation.preview.Preview.draw", lambda *_: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(Training, "show", lambda *_: interruption.stop_if_asked())
    status, out, _ = call(command)
    assert status == 143 and "after 3 of 3 steps" in out
    monkeypatch.undo()
    status, out, err = call(f"{command} --resume auto")
    assert status == 0 and "best epoch 0:" in out and (tmp_path / "run" / "checkpoint-best.pth").exists(), err


def test_what_a_run_goes_back_behind_is_set_aside(call, finetuned, phantoms, tmp_path):
    """Its own checkpoints are the newest then, and the report shows no sheet of the run that was left."""
    folder = shutil.copytree(finetuned, tmp_path / "run")
    (folder / "sheet-8.png").write_bytes(b"")
    left = folder / "checkpoint-2.pth"
    digest = sha256(left.read_bytes()).digest()
    status, out, err = call(f"main_finetune.py --resume {folder / 'checkpoint-0.pth'} --epochs 2 --data_path {phantoms}")
    assert status == 0 and "goes back to epoch 1" in out and "sheet-8-before.png" in out, err
    assert sha256((folder / "checkpoint-2-before.pth").read_bytes()).digest() == digest and not left.exists()
    assert [path.name for path in checkpoint.numbered(folder)] == ["checkpoint-1.pth", "checkpoint-0.pth"]
    assert not (folder / "sheet-8.png").exists()
    assert {"checkpoint-last-before.pth", "checkpoint-2-before.pth"} <= {path.name for path in folder.iterdir()}
    assert checkpoint.load(folder / "checkpoint-best.pth").content["epoch"] < 2
    (folder / "checkpoint-2.pth").write_bytes(b"another")
    assert set_aside(folder, 2) == ["checkpoint-2-before2.pth"]
    assert sha256((folder / "checkpoint-2-before.pth").read_bytes()).digest() == digest


def test_a_fine_tuning_that_began_from_a_file_in_its_own_folder_goes_on(call, finetuned, phantoms, tmp_path):
    folder = shutil.copytree(finetuned, tmp_path / "run")
    command = f"main_finetune.py --finetune {folder / 'checkpoint-last.pth'} --epochs 1 --warmup_epochs 0 {TINY_FINETUNE}"
    command += f" --output_dir {folder} --data_path {phantoms}"
    assert call(f"{command} --overwrite")[0] == 0
    status, out, err = call(f"{command} --resume auto")
    assert status == 0 and "resuming" in out and "nothing to do" in out, err


def test_another_source_of_maps_makes_them_anew(call, finetuned, phantoms, tmp_path):
    folder = shutil.copytree(finetuned, tmp_path / "run")
    old = checkpoint.load(folder / "checkpoint-last.pth").content["maps"]
    command = f"main_finetune.py --resume auto --output_dir {folder} --epochs 4 --loc_interval 50 --data_path {phantoms}"
    assert call(f"{command} --map consensus")[0] == 0
    now = checkpoint.load(folder / "checkpoint-last.pth").content
    assert now["map_source"] == "consensus" and not torch.equal(now["maps"], old)


def test_a_decay_that_groups_the_optimiser_otherwise_is_named(call, finetuned, phantoms, tmp_path):
    folder = shutil.copytree(finetuned, tmp_path / "run")
    command = f"main_finetune.py --resume auto --output_dir {folder} --epochs 4 --data_path {phantoms}"
    expect_one_line(call(f"{command} --layer_decay 1"), ["--layer_decay 1", "0.75", "leave the option out"])


def test_an_evaluation_of_other_images_is_not_replaced(call, finetuned, phantoms, tmp_path):
    other = shutil.copytree(phantoms, tmp_path / "other" / phantoms.name)
    command = f"main_finetune.py --eval --resume {finetuned / 'checkpoint-last.pth'} --device cpu"
    command += f" --output_dir {tmp_path / 'eval'}"
    assert call(f"{command} --data_path {phantoms}")[0] == 0
    assert call(f"{command} --data_path {phantoms}/")[0] == 0
    expect_one_line(call(f"{command} --data_path {other}"), ["holds an evaluation of", str(phantoms), "--overwrite"])


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
