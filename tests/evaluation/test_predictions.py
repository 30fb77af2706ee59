"""``predictions.csv``: what was written is read, bit by bit; what is wrong in it is named."""

import numpy as np
import pytest

from evaluation.made_up import classifier
from util.evaluation.intervals import intervals
from util.evaluation.metrics import classification_metrics
from util.evaluation.predictions import Predictions, read_predictions, write_predictions
from util.system.errors import InputError

CLASSES = ["benign", "two, words", "p(x)"]


@pytest.fixture
def predictions():
    labels, probabilities = classifier(50, 3, sharpness=12)  # nearly all are sure: many digits matter
    files = [f"val/{CLASSES[label]}/näme {index}.png" for index, label in enumerate(labels)]
    return Predictions(files, probabilities.astype(np.float32), CLASSES, labels, [f"00{i // 2}" for i in range(50)])


def test_what_was_written_is_read(predictions, tmp_path):
    write_predictions(tmp_path / "predictions.csv", predictions)
    lines = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == 'file,label,prediction,p(benign),"p(two, words)",p(p(x)),patient' and len(lines) == 51
    found = read_predictions(tmp_path)
    assert (found.files, found.classes, found.patients) == (predictions.files, CLASSES, predictions.patients)
    assert (found.labels == predictions.labels).all()
    assert (found.probabilities.astype(np.float32) == predictions.probabilities).all()
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]
    metrics = [classification_metrics(each.labels, each.probabilities, CLASSES) for each in (predictions, found)]
    assert metrics[0] == metrics[1]
    ranges = [intervals(each.labels, each.probabilities, CLASSES, each.patients) for each in (predictions, found)]
    assert ranges[0] == ranges[1]


def test_without_labels(predictions, tmp_path):
    write_predictions(tmp_path / "p.csv", predictions._replace(labels=None, patients=None))
    found = read_predictions(tmp_path / "p.csv", labelled=False)
    assert found.labels is None and found.patients is None
    with pytest.raises(InputError, match="has no column label"):
        read_predictions(tmp_path / "p.csv")


def test_a_table_that_a_spreadsheet_saved(tmp_path):
    (tmp_path / "p.csv").write_text("\ufefffile;label;prediction;p(a);p(b)\r\nx.png; a ;b;0.4;0.6\r\n\r\n", encoding="utf-8")
    found = read_predictions(tmp_path / "p.csv")
    assert found.files == ["x.png"] and found.labels == [0] and found.probabilities.tolist() == [[0.4, 0.6]]


HEAD = "file,label,prediction,p(a),p(b)\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no rows"]),
        (HEAD, ["no rows"]),
        ("file,label,p(a),p(b)\nx,a,1,0\n", ["no column prediction", "file, label, p(a), p(b)"]),
        ("file,Label,prediction,p(a),p(b)\nx,a,a,1,0\n", ["write column Label as label"]),
        ("file,label,prediction,p(a),p(a)\nx,a,a,1,0\n", ["two columns called p(a)"]),
        ("file,label,prediction,p(a)\nx,a,a,1\n", ["two or more classes"]),
        (HEAD + "x,a,a,1\n", ["line 2", "4 cells for 5 columns"]),
        (HEAD + "x,a,a,0.7,0.3\nx,b,b,0.1,0.9\n", ["two rows for x"]),
        (HEAD + "x,a,a,0.7,0.3\ny,c,b,0.1,0.9\n", ["line 3", "label 'c'", "p(c)"]),
        (HEAD + "x,a,c,0.7,0.3\n", ["line 2", "prediction 'c'"]),
        (HEAD + "x,a,b,0.7,0.3\n", ["line 2", "prediction b, but a is more probable"]),
        (HEAD + "x,a,a,0.7,0.7\n", ["line 2", "add up to 1"]),
        (HEAD + "x,a,a,1.5,-0.5\n", ["line 2", "[0, 1]"]),
        (HEAD + "x,a,a,nan,0.5\n", ["line 2", "[0, 1]"]),
        (HEAD + "x,a,a,much,0.5\n", ["line 2", "no number"]),
        ("file,label,prediction,p(a),p(b),patient\nx,a,a,1,0,\n", ["line 2", "no patient"]),
    ],
)
def test_what_is_wrong_is_named(text, words, tmp_path):
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_predictions(tmp_path)
    assert all(word in str(caught.value) for word in [*words, "predictions.csv"]), caught.value
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(InputError, match=r"predictions\.csv cannot be read: No such file"):
        read_predictions(tmp_path)
    (tmp_path / "latin.csv").write_bytes("file,prediction\nä,b\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_predictions(tmp_path / "latin.csv")


def test_nothing_is_left_of_a_table_that_cannot_be_written(predictions, tmp_path):
    (tmp_path / "old.csv").write_text("old")
    with pytest.raises(ValueError, match="shorter"):
        write_predictions(tmp_path / "old.csv", predictions._replace(patients=["1"]))
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"] and (tmp_path / "old.csv").read_text() == "old"
    with pytest.raises(InputError, match="cannot be written"):
        write_predictions(tmp_path / "missing" / "p.csv", predictions)
