"""New images: predictions are those of an evaluation and of a model of our own; broken files do not stop the others."""

import json
import shutil

import numpy as np
import pytest
from conftest import content_of
from scipy.special import softmax
from taught import CLASSES, RUN, images, probabilities_of, rows_of, seen
from test_errors import expect_one_line

from util.evaluation.predictions import read_predictions


def test_prediction_of_val_is_that_of_the_evaluation(call, taught, three_sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(f"{RUN} --eval --split val --resume {taught} --data_path {three_sets} --output_dir eval")
    assert status == 0, err
    status, out, err = call(f"{RUN} --predict {three_sets / 'val'} --resume {taught}")
    assert (status, err) == (0, "")
    folder = tmp_path / "output_dir" / "predict-val"
    assert {path.name for path in folder.iterdir()} == {"predictions.csv", "prediction.json", "run.json"}
    evaluated, predicted = rows_of(tmp_path / "eval" / "predictions.csv"), rows_of(folder / "predictions.csv")
    assert list(predicted[0]) == ["file", "prediction", *(f"p({name})" for name in CLASSES)] and len(predicted) == 60
    assert predicted == [{name: value for name, value in row.items() if name != "label"} for row in evaluated]
    _, logits, _ = seen(taught, [row["file"] for row in predicted])
    assert probabilities_of(predicted) == pytest.approx(softmax(logits, axis=1), abs=1e-5)
    counts = json.loads((folder / "prediction.json").read_text())["predicted"]
    assert counts == {name: sum(row["prediction"] == name for row in predicted) for name in CLASSES}
    assert "60 images: " + ", ".join(f"{count} {name}" for name, count in counts.items()) in out
    assert read_predictions(folder, labelled=False).classes == CLASSES


def test_features_are_what_the_head_reads(taught, three_sets, call, tmp_path):
    files = images(three_sets / "test")
    features, logits, labels = seen(taught, files)
    status, _, err = call(
        f"{RUN} --eval --features --resume {taught} --data_path {three_sets} --output_dir {tmp_path / 'e'}"
    )
    assert status == 0, err
    with np.load(tmp_path / "e" / "features.npz") as kept:
        assert kept["features"] == pytest.approx(features, abs=1e-4) and kept["files"].tolist() == files
        assert kept["labels"].tolist() == [CLASSES[label] for label in labels]
        weights = content_of(taught)["model"]
        read = kept["features"] @ weights["head.weight"].numpy().T + weights["head.bias"].numpy()
        assert read == pytest.approx(logits, abs=1e-3)
        rows = rows_of(tmp_path / "e" / "features.csv")
        assert (np.array([[row[f"f{n}"] for n in range(128)] for row in rows], dtype=np.float32) == kept["features"]).all()
        assert [row["label"] for row in rows] == kept["labels"].tolist()
    status, _, err = call(f"{RUN} --predict {files[0]} --resume {taught} --features --output_dir {tmp_path / 'p'}")
    assert status == 0, err
    with np.load(tmp_path / "p" / "features.npz") as kept:
        assert set(kept) == {"features", "files"} and kept["features"] == pytest.approx(features[:1], abs=1e-4)
    status, _, err = call(f"{RUN} --predict {files[0]} --resume {taught} --output_dir {tmp_path / 'p'}")
    assert status == 0 and not list((tmp_path / "p").glob("features*")), err


def broken(three_sets, folder):
    """Three images in nested folders, one of them with an odd name, and two files that are no images though called so."""
    good = images(three_sets / "test")[:3]
    for file, name in zip(good, ("one.png", "in/two.png", "in/deep/<b>three & four.png"), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / name)
    (folder / "in" / "cut.png").write_bytes((folder / "one.png").read_bytes()[:200])
    (folder / "text.jpg").write_text("no image")
    (folder / "notes.txt").write_text("not used")
    return good


def test_a_folder_with_broken_files(call, taught, three_sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = broken(three_sets, tmp_path / "new")
    status, out, err = call(f"{RUN} --predict new --resume {taught} --overlays")
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
    logits = seen(taught, good)[1]
    assert probabilities_of(rows) == pytest.approx(softmax(logits, axis=1), abs=1e-5)
    page = (folder / "predictions.html").read_text()
    assert [row["overlay"] for row in rows] == [f"overlays/00000{number}.png" for number in (1, 2, 3)]
    assert all((folder / row["overlay"]).stat().st_size > 1000 and f'src="{row["overlay"]}"' in page for row in rows)
    assert "new/in/deep/&lt;b&gt;three &amp; four.png" in page and "<b>three" not in page and "holds" not in err

    # the same files and checkpoint: anew, and without the pictures that were not asked for this time
    assert call(f"{RUN} --predict new --resume {taught}")[0] == 1
    assert {path.name for path in folder.iterdir()} == {"predictions.csv", "prediction.json", "run.json", "unreadable.txt"}
    (tmp_path / "new" / "one.png").unlink()
    expect_one_line(call(f"{RUN} --predict new --resume {taught}"), ["prediction of other files", "--overwrite"])
    shutil.copy(taught, tmp_path / "other.pth")
    command = f"{RUN} --predict new/in/two.png --resume other.pth --output_dir {folder}"
    expect_one_line(call(command), [f"a prediction by {taught}", "--overwrite"])
    assert len(rows_of(folder / "predictions.csv")) == 3
    status, _, err = call(f"{command} --overwrite")
    assert status == 0 and len(rows_of(folder / "predictions.csv")) == 1 and not (folder / "unreadable.txt").exists(), err
    expect_one_line(
        call(f"{RUN} --eval --resume other.pth --data_path {three_sets} --output_dir {folder}"), ["holds a prediction"]
    )


def test_nothing_to_predict(call, taught, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    command = f"{RUN} --resume {taught} --output_dir {tmp_path / 'out'} --predict"
    expect_one_line(call(f"{command} {tmp_path / 'text.png'}"), ["text.png", "nothing to predict"])
    expect_one_line(call(f"{command} {tmp_path / 'empty'}"), ["--predict", "empty", "no image in it"])
    expect_one_line(call(f"{command} {tmp_path / 'nowhere'}"), ["--predict", "nowhere", "no such file or folder"])
    assert not (tmp_path / "out").exists()


def test_a_table_without_labels(call, taught, three_sets, tmp_path):
    files = images(three_sets / "test")[:3]
    for number, file in enumerate(files):
        shutil.copy(file, tmp_path / f"{number}.png")
    (tmp_path / "new.csv").write_text("path;patient;age\n2.png;B;40\n0.png;A;50\n")
    status, out, err = call(f"{RUN} --predict {tmp_path / 'new.csv'} --resume {taught} --output_dir {tmp_path / 'p'}")
    assert status == 0 and "these columns are not used: age" in out, err
    rows = rows_of(tmp_path / "p" / "predictions.csv")
    assert [(row["file"], row["patient"]) for row in rows] == [
        (str(tmp_path / "2.png"), "B"),
        (str(tmp_path / "0.png"), "A"),
    ]
    assert probabilities_of(rows) == pytest.approx(softmax(seen(taught, [files[2], files[0]])[1], axis=1), abs=1e-5)
