"""From a checkpoint to published numbers and to new images: each figure again, from the files and a model of our own."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import content_of, run_script, teach
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, log_loss, precision_score, recall_score
from test_errors import expect_one_line

from models_msmae import load_model
from util.evaluation.predictions import read_predictions
from util.explain import network_input
from util.phantom import write_phantoms

CLASSES = ["base", "none", "ring", "skull"]
RUN = "main_finetune.py --device cpu --amp fp32 --num_workers 0 --batch_size 16"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """60 validation and 40 test phantoms."""
    folder = tmp_path_factory.mktemp("predict") / "data"
    write_phantoms(folder, train=4, val=60, test=40, size=32, seed=5)
    return folder


@pytest.fixture(scope="module")
def trained(finetuned, data, tmp_path_factory):
    """A checkpoint that is right on some images and too sure, whatever the short fine-tuning reached."""
    path = tmp_path_factory.mktemp("predict") / "checkpoint-last.pth"
    teach(finetuned / "checkpoint-last.pth", images(data / "val"), path)
    return path


def images(folder):
    return sorted(str(path) for path in folder.glob("*/*.png"))


def seen(checkpoint, files):
    """Features ``[N, D]``, logits ``[N, classes]`` and labels of files, one image at a time."""
    model = load_model(checkpoint)
    with torch.no_grad():
        features = torch.cat(
            [model.forward_head(model.forward_features(network_input(model, file)), True) for file in files]
        )
        logits = model.head(features)
    return features.numpy(), logits.double().numpy(), np.array([CLASSES.index(file.split("/")[-2]) for file in files])


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def probabilities_of(rows):
    return np.array([[float(row[f"p({name})"]) for name in CLASSES] for row in rows])


@pytest.fixture
def own(trained, tmp_path):
    """The checkpoint in a folder of the test's own, where other files can be written beside it."""
    return shutil.copy(trained, tmp_path / "checkpoint-last.pth")


def calibration_error(labels, probabilities, bins=15):
    """Literally: the gap between confidence and accuracy in each bin, by the images in it."""
    confidence, right, error = probabilities.max(1), probabilities.argmax(1) == labels, 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        error += abs(confidence[inside].sum() - right[inside].sum()) / len(labels)
    return error


def test_prediction_of_val_is_that_of_the_evaluation(call, trained, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(f"{RUN} --eval --split val --resume {trained} --data_path {data} --output_dir eval")
    assert status == 0, err
    status, out, err = call(f"{RUN} --predict {data / 'val'} --resume {trained}")
    assert (status, err) == (0, "")
    folder = tmp_path / "output_dir" / "predict-val"
    assert {path.name for path in folder.iterdir()} == {"predictions.csv", "prediction.json", "run.json"}
    evaluated, predicted = rows_of(tmp_path / "eval" / "predictions.csv"), rows_of(folder / "predictions.csv")
    assert list(predicted[0]) == ["file", "prediction", *(f"p({name})" for name in CLASSES)] and len(predicted) == 60
    assert predicted == [{name: value for name, value in row.items() if name != "label"} for row in evaluated]
    _, logits, _ = seen(trained, [row["file"] for row in predicted])
    assert probabilities_of(predicted) == pytest.approx(softmax(logits, axis=1), abs=1e-5)
    counts = json.loads((folder / "prediction.json").read_text())["predicted"]
    assert counts == {name: sum(row["prediction"] == name for row in predicted) for name in CLASSES}
    assert "60 images: " + ", ".join(f"{count} {name}" for name, count in counts.items()) in out
    assert read_predictions(folder, labelled=False).classes == CLASSES


@pytest.fixture(scope="module")
def decided(trained, data, tmp_path_factory):
    """A folder with a checkpoint, the one that was calibrated and given a cut-off, and what the choice printed."""
    folder = tmp_path_factory.mktemp("decided")
    shutil.copy(trained, folder / "checkpoint-last.pth")
    options = (
        "--eval --resume checkpoint-last.pth --calibrate --sensitivity 0.9 --positive ring --prevalence 0.02 --features"
    )
    told = run_script(f"{RUN} {options} --data_path {data} --output_dir test", folder).stdout
    (folder / "told.txt").write_text(told)
    return folder


DECIDED = "checkpoint-last-calibrated-cutoff.pth"


def test_the_temperature_is_the_best_on_val_and_applied_to_test(decided, trained, data):
    results, rows = (
        json.loads((decided / "test" / "metrics.json").read_text()),
        rows_of(decided / "test" / "predictions.csv"),
    )
    temperature, effect = results["temperature"], results["temperature_effect"]
    judged = {split: seen(trained, images(data / split))[1:] for split in ("val", "test")}
    logits, labels = judged["val"]

    def loss(divisor):
        return -log_softmax(logits / divisor, axis=1)[np.arange(len(labels)), labels].mean()

    assert temperature > 1.2 and loss(temperature) < min(loss(temperature * 0.98), loss(temperature * 1.02), loss(1))
    for split, (logits, labels) in judged.items():
        for when, divisor in (("before", 1), ("after", temperature)):
            probabilities = softmax(logits / divisor, axis=1)
            squares = [brier_score_loss(labels == number, probabilities[:, number]) for number in range(4)]
            assert effect[split][when]["brier_score"] == pytest.approx(sum(squares), abs=1e-5)
            error = calibration_error(labels, probabilities)
            assert effect[split][when]["expected_calibration_error"] == pytest.approx(error, abs=1e-4)
            assert effect[split][when]["log_loss"] == pytest.approx(
                log_loss(labels, probabilities, labels=range(4)), abs=1e-5
            )
            told = effect[split][when]
            line = f"log loss {told['log_loss']:.4f}, expected calibration error "
            line += f"{100 * told['expected_calibration_error']:.2f} %, Brier score {told['brier_score']:.4f}"
            assert re.search(f"^  {split}, {when} +{line}$", (decided / "told.txt").read_text(), re.M)
    assert effect["val"]["after"]["log_loss"] < effect["val"]["before"]["log_loss"]
    logits, labels = judged["test"]
    assert [row["file"] for row in rows] == images(data / "test")
    assert probabilities_of(rows) == pytest.approx(softmax(logits / temperature, axis=1), abs=1e-5)
    assert [row["prediction"] for row in rows] == [CLASSES[number] for number in logits.argmax(1)]
    assert results["loss"] == pytest.approx(log_loss(labels, probabilities_of(rows), labels=range(4)), rel=1e-5)
    for name in ("expected_calibration_error", "brier_score"):
        assert results["calibration"][name] == effect["test"]["after"][name]


def test_the_cutoff_is_the_highest_on_val_and_applied_to_test(decided, trained, data):
    results, rows = (
        json.loads((decided / "test" / "metrics.json").read_text()),
        rows_of(decided / "test" / "predictions.csv"),
    )
    cutoff = results["cutoff"]
    _, logits, labels = seen(trained, images(data / "val"))
    scores = softmax(logits / results["temperature"], axis=1)[labels == 2, 2]
    assert (scores >= cutoff["cutoff"]).mean() >= 0.9
    assert (scores >= scores[scores >= cutoff["cutoff"]].min() + 1e-6).mean() < 0.9
    truth = np.array([row["label"] == "ring" for row in rows])
    called = np.array([float(row["p(ring)"]) >= cutoff["cutoff"] for row in rows])
    assert [row["cutoff(ring)"] for row in rows] == ["above" if each else "below" for each in called]
    assert cutoff["sensitivity"] == pytest.approx(recall_score(truth, called))
    assert cutoff["specificity"] == pytest.approx(recall_score(~truth, ~called))
    assert cutoff["positive_predictive_value"] == pytest.approx(precision_score(truth, called))
    assert cutoff["negative_predictive_value"] == pytest.approx(precision_score(~truth, ~called))
    at = results["cutoff_at_prevalence"]
    ill, called_ill = 0.02 * cutoff["sensitivity"], 0.98 * (1 - cutoff["specificity"])
    assert at["positive_predictive_value"] == pytest.approx(ill / (ill + called_ill))
    low, high = at["intervals"]["positive_predictive_value"]
    assert low < at["positive_predictive_value"] < high
    told = (decided / "told.txt").read_text()
    assert f"sensitivity       {100 * cutoff['sensitivity']:.2f} % (" in told and "at a prevalence of 2 %" in told
    assert (
        f"pos. pred. value  {100 * at['positive_predictive_value']:.2f} % (" in told
        and "a sensitivity of at least 90 %" in told
    )


def test_the_checkpoint_keeps_the_decision_and_the_old_one_stays(decided, trained):
    assert (decided / "checkpoint-last.pth").read_bytes() == trained.read_bytes()
    assert {path.name for path in decided.glob("*.pth")} == {"checkpoint-last.pth", DECIDED} and not list(decided.glob(".*"))
    old, new = content_of(decided / "checkpoint-last.pth"), content_of(decided / DECIDED)
    results = json.loads((decided / "test" / "metrics.json").read_text())
    assert new["decision"]["temperature"] == results["temperature"]
    assert new["decision"]["cutoff"]["value"] == results["cutoff"]["cutoff"]
    assert all(torch.equal(value, new["model"][name]) for name, value in old["model"].items())
    assert new["args"] == old["args"] and new["classes"] == CLASSES and old["maps"] is not None
    assert not {"optimizer", "scaler", "maps"} & new.keys()


def test_later_evaluations_and_predictions_decide_alike(call, decided, data, tmp_path):
    status, out, err = call(
        f"{RUN} --eval --resume {decided / DECIDED} --data_path {data} --output_dir {tmp_path / 'e'} --prevalence 0.02"
    )
    assert status == 0, err
    first, again = (json.loads((folder / "metrics.json").read_text()) for folder in (decided / "test", tmp_path / "e"))
    assert "chosen on val" in out and first.pop("checkpoint") in again.pop("checkpoint")
    del first["temperature_effect"]["val"]
    assert again == first
    rows = rows_of(tmp_path / "e" / "predictions.csv")
    assert rows == rows_of(decided / "test" / "predictions.csv")
    status, out, err = call(f"{RUN} --predict {data / 'test'} --resume {decided / DECIDED} --output_dir {tmp_path / 'p'}")
    assert (status, err) == (0, "")
    assert rows_of(tmp_path / "p" / "predictions.csv") == [
        {name: value for name, value in row.items() if name != "label"} for row in rows
    ]
    above = sum(row["cutoff(ring)"] == "above" for row in rows)
    assert f"cutoff(ring): {above} above, {40 - above} below" in out and "fitted on val" in out


def test_features_are_what_the_head_reads(decided, trained, data, call, tmp_path):
    files = images(data / "test")
    features, logits, labels = seen(trained, files)
    with np.load(decided / "test" / "features.npz") as kept:
        assert kept["features"] == pytest.approx(features, abs=1e-4) and kept["files"].tolist() == files
        assert kept["labels"].tolist() == [CLASSES[label] for label in labels]
        weights = content_of(trained)["model"]
        read = kept["features"] @ weights["head.weight"].numpy().T + weights["head.bias"].numpy()
        assert read == pytest.approx(logits, abs=1e-3)
        rows = rows_of(decided / "test" / "features.csv")
        assert (np.array([[row[f"f{n}"] for n in range(128)] for row in rows], dtype=np.float32) == kept["features"]).all()
        assert [row["label"] for row in rows] == kept["labels"].tolist()
    status, _, err = call(f"{RUN} --predict {files[0]} --resume {trained} --features --output_dir {tmp_path / 'p'}")
    assert status == 0, err
    with np.load(tmp_path / "p" / "features.npz") as kept:
        assert set(kept) == {"features", "files"} and kept["features"] == pytest.approx(features[:1], abs=1e-4)
    status, _, err = call(f"{RUN} --predict {files[0]} --resume {trained} --output_dir {tmp_path / 'p'}")
    assert status == 0 and not list((tmp_path / "p").glob("features*")), err


def test_choosing_on_val_and_reporting_on_val_is_remarked_upon(call, own, data, tmp_path):
    command = f"{RUN} --eval --split val --resume {own} --data_path {data} --output_dir {tmp_path / 'val'}"
    status, out, err = call(f"{command} --calibrate --youden --positive skull")
    assert status == 0, err
    results = json.loads((tmp_path / "val" / "metrics.json").read_text())
    assert list(results["temperature_effect"]) == ["val"]
    for words in ("the temperature was fitted on these images", "the cut-off was chosen on these images"):
        assert any(words in line for line in results["remarks"]) and f"note: {words}" in out
    gain = results["cutoff"]["sensitivity"] + results["cutoff"]["specificity"]
    _, logits, labels = seen(own, images(data / "val"))
    scores = softmax(logits / results["temperature"], axis=1)[:, 3]
    sums = [(scores[labels == 3] >= edge).mean() + (scores[labels != 3] < edge).mean() for edge in scores]
    assert gain == pytest.approx(max(sums))


def test_a_decision_after_another(call, own, data, tmp_path):
    """A temperature, then a cut-off; nothing is replaced unprompted; training goes on from the first checkpoint."""
    where = f"--data_path {data} --device cpu --amp fp32"
    calibrated, both = own.with_name("checkpoint-last-calibrated.pth"), own.with_name(DECIDED)
    assert call(f"{RUN} --eval --resume {own} {where} --calibrate --output_dir {tmp_path / 'a'}")[0] == 0
    expect_one_line(
        call(f"{RUN} --eval --resume {own} {where} --calibrate --output_dir {tmp_path / 'new'}"),
        [calibrated.name, "there already", "--overwrite"],
    )
    expect_one_line(
        call(f"{RUN} --eval --resume {calibrated} {where} --youden --positive base --output_dir {tmp_path / 'a'}"),
        ["holds an evaluation of", "--overwrite"],
    )
    assert not (tmp_path / "new").exists() and not both.exists()
    status, _, err = call(
        f"{RUN} --eval --resume {calibrated} {where} --specificity 0.8 --positive base --output_dir {tmp_path / 'b'}"
    )
    assert status == 0, err
    kept = [content_of(path)["decision"] for path in (calibrated, both)]
    assert kept[0]["temperature"] == kept[1]["temperature"] and kept[0]["cutoff"] is None
    assert kept[1]["cutoff"]["rule"] == "specificity=0.8"
    expect_one_line(
        call(f"{RUN} --eval --resume {both} {where} --calibrate --output_dir {tmp_path / 'c'}"), ["cut-off", "anew"]
    )
    expect_one_line(call(f"{RUN} --resume {both} --data_path {data}"), [both.name, "go on from checkpoint-last.pth"])
    content = torch.load(both)
    for wrong in ({"temperature": "warm", "cutoff": None}, {"temperature": 1.0, "cutoff": {"positive": "rung"}}, [1]):
        torch.save({**content, "decision": wrong}, tmp_path / "wrong.pth")
        command = f"{RUN} --predict {data} --resume {tmp_path / 'wrong.pth'} --output_dir {tmp_path / 'c'}"
        expect_one_line(call(command), ["wrong.pth", "damaged"])
    assert not (tmp_path / "c").exists()


def broken(data, folder):
    """Three images in nested folders, one of them with an odd name, and two files that are no images though called so."""
    good = images(data / "test")[:3]
    for file, name in zip(good, ("one.png", "in/two.png", "in/deep/<b>three & four.png"), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / name)
    (folder / "in" / "cut.png").write_bytes((folder / "one.png").read_bytes()[:200])
    (folder / "text.jpg").write_text("no image")
    (folder / "notes.txt").write_text("not used")
    return good


def test_a_folder_with_broken_files(call, trained, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = broken(data, tmp_path / "new")
    status, out, err = call(f"{RUN} --predict new --resume {trained} --overlays")
    folder = tmp_path / "output_dir" / "predict-new"
    assert (
        status == 1
        and err == f"error: 2 of 5 images cannot be read; they are listed in {folder.relative_to(tmp_path)}/unreadable.txt\n"
    )
    assert "not done: cannot read image new/in/cut.png" in out and "are not used: 1 .txt" in out
    listed = (folder / "unreadable.txt").read_text().splitlines()
    assert len(listed) == 2 and "new/in/cut.png" in listed[1] and "new/text.jpg" in listed[0]
    rows = rows_of(folder / "predictions.csv")
    assert [row["file"] for row in rows] == ["new/one.png", "new/in/two.png", "new/in/deep/<b>three & four.png"]
    logits = seen(trained, good)[1]
    assert probabilities_of(rows) == pytest.approx(softmax(logits, axis=1), abs=1e-5)
    page = (folder / "predictions.html").read_text()
    assert [row["overlay"] for row in rows] == [f"overlays/00000{number}.png" for number in (1, 2, 3)]
    assert all((folder / row["overlay"]).stat().st_size > 1000 and f'src="{row["overlay"]}"' in page for row in rows)
    assert "new/in/deep/&lt;b&gt;three &amp; four.png" in page and "<b>three" not in page and "holds" not in err

    # the same files and checkpoint: anew, and without the pictures that were not asked for this time
    assert call(f"{RUN} --predict new --resume {trained}")[0] == 1
    assert {path.name for path in folder.iterdir()} == {"predictions.csv", "prediction.json", "run.json", "unreadable.txt"}
    (tmp_path / "new" / "one.png").unlink()
    expect_one_line(call(f"{RUN} --predict new --resume {trained}"), ["prediction of other files", "--overwrite"])
    shutil.copy(trained, tmp_path / "other.pth")
    command = f"{RUN} --predict new/in/two.png --resume other.pth --output_dir {folder}"
    expect_one_line(call(command), [f"a prediction by {trained}", "--overwrite"])
    assert len(rows_of(folder / "predictions.csv")) == 3
    status, _, err = call(f"{command} --overwrite")
    assert status == 0 and len(rows_of(folder / "predictions.csv")) == 1 and not (folder / "unreadable.txt").exists(), err
    expect_one_line(
        call(f"{RUN} --eval --resume other.pth --data_path {data} --output_dir {folder}"), ["holds a prediction"]
    )


def test_nothing_to_predict(call, trained, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    command = f"{RUN} --resume {trained} --output_dir {tmp_path / 'out'} --predict"
    expect_one_line(call(f"{command} {tmp_path / 'text.png'}"), ["text.png", "nothing to predict"])
    expect_one_line(call(f"{command} {tmp_path / 'empty'}"), ["--predict", "empty", "no image in it"])
    expect_one_line(call(f"{command} {tmp_path / 'nowhere'}"), ["--predict", "nowhere", "no such file or folder"])
    assert not (tmp_path / "out").exists()


def test_a_table_without_labels(call, trained, data, tmp_path):
    files = images(data / "test")[:3]
    for number, file in enumerate(files):
        shutil.copy(file, tmp_path / f"{number}.png")
    (tmp_path / "new.csv").write_text("path;patient;age\n2.png;B;40\n0.png;A;50\n")
    status, out, err = call(f"{RUN} --predict {tmp_path / 'new.csv'} --resume {trained} --output_dir {tmp_path / 'p'}")
    assert status == 0 and "these columns are not used: age" in out, err
    rows = rows_of(tmp_path / "p" / "predictions.csv")
    assert [(row["file"], row["patient"]) for row in rows] == [
        (str(tmp_path / "2.png"), "B"),
        (str(tmp_path / "0.png"), "A"),
    ]
    assert probabilities_of(rows) == pytest.approx(softmax(seen(trained, [files[2], files[0]])[1], axis=1), abs=1e-5)


WRONG = [
    ("--predict {data}", ["--predict needs --resume CHECKPOINT"]),
    ("--predict {data} --resume auto", ["--predict needs --resume CHECKPOINT"]),
    ("--predict --resume {trained}", ["--predict"]),
    ("--predict {data} --resume {trained} --eval", ["--eval", "--predict", "one of them"]),
    ("--predict {data} --resume {trained} --data_path {data}", ["--predict", "leave --data_path out"]),
    ("--predict {data} --resume {trained} --finetune {trained}", ["leave --finetune out"]),
    ("--predict {data} --resume {trained} --split val", ["--split is for --eval"]),
    ("--predict {data} --resume {trained} --calibrate", ["--calibrate is for --eval"]),
    ("--predict {data} --resume {trained} --num_classes 3", ["--num_classes 3", "4 classes"]),
    ("--predict {data} --resume nowhere.pth", ["nowhere.pth", "no such file"]),
    ("--predict {data} --resume {trained} --cls_token", ["checkpoint-last.pth", "--cls_token"]),
    ("--eval --data_path {data} --resume {trained} --overlays", ["--overlays is for --predict"]),
    ("--data_path {data} --features", ["--features is for --eval and --predict"]),
    ("--data_path {data} --sensitivity 0.9", ["--sensitivity is for --eval"]),
    ("--eval --data_path {data} --resume {trained} --youden", ["--positive", "base, none, ring, skull"]),
    ("--eval --data_path {data} --resume {trained} --youden --positive rung", ["rung", "--positive", "base, none"]),
    ("--eval --data_path {data} --resume {trained} --positive ring", ["--positive", "--sensitivity S"]),
    ("--eval --data_path {data} --resume {trained} --prevalence 0.1", ["--prevalence", "has none"]),
    ("--eval --data_path {data} --resume {trained} --calibrate --prevalence 0.1", ["--prevalence", "has none"]),
    ("--eval --data_path {data} --resume {trained} --prevalence 0", ["--prevalence", "(0, 1)"]),
    ("--eval --data_path {data} --resume {trained} --sensitivity 1.5", ["--sensitivity", "(0, 1]"]),
    ("--eval --data_path {data} --resume {trained} --youden --specificity 0.9", ["--specificity", "--youden"]),
    ("--eval --data_path {data} --resume {trained} --calibrate --input_size 64", ["--input_size 64", "32"]),
    ("--eval --data_path {noval} --resume {trained} --calibrate", ["noval", "no val/"]),
    ("--eval --data_path {noring} --resume {trained} --youden --positive ring", ["ring", "0 of 45"]),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_wrong_options(options, words, call, trained, data, tmp_path):
    shutil.copytree(data / "test", tmp_path / "noval" / "test")
    for split in ("val", "test"):
        shutil.copytree(data / split, tmp_path / "noring" / split)
        shutil.rmtree(tmp_path / "noring" / split / "ring")
    before = sorted(tmp_path.rglob("*"))
    paths = {"data": data, "trained": trained, "noval": tmp_path / "noval", "noring": tmp_path / "noring"}
    expect_one_line(call(f"{RUN} {options.format(**paths)} --output_dir {tmp_path / 'out'}"), words)
    assert sorted(tmp_path.rglob("*")) == before and not list(trained.parent.glob("*-*-*"))
