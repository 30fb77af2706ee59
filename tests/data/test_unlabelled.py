"""Which files count as images to predict, in what order, each once."""

import os

import numpy as np
import pytest

from util.data.unlabelled import NewImages, find_files
from util.system.errors import InputError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/10.PNG", "b/c/x.jpg", "b/notes.txt", "b/._2.png", "b/.old/y.png", "a.png", "scan"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_folders_and_files_in_order(tree, capsys):
    assert find_files(["scan", "b"]).paths == ["scan", "b/10.PNG", "b/2.png", "b/c/x.jpg"]
    assert "files in b that are no images by name or content are not used: 1 .txt" in capsys.readouterr().out


def test_each_file_once_by_its_first_name(tree):
    absolute = str(tree / "b" / "2.png")
    assert find_files(["b/./2.png", absolute, "b"]).paths == ["b/2.png", "b/10.PNG", "b/c/x.jpg"]


def test_links_that_go_in_circles(tree):
    os.symlink(tree / "b", tree / "b" / "c" / "again")
    os.symlink(tree / "b", tree / "also")
    assert find_files(["b"]).paths == ["b/10.PNG", "b/2.png", "b/c/x.jpg"]
    assert find_files(["also"]).paths == ["also/10.PNG", "also/2.png", "also/c/x.jpg"]


def test_a_path_that_goes_through_a_link_and_up(tree):
    (tree / "far" / "in").mkdir(parents=True)
    (tree / "far" / "x.png").write_bytes(b"")
    os.symlink(tree / "far" / "in", tree / "link")
    assert find_files(["link/../x.png", "far"]).paths == ["link/../x.png"]


def test_files_that_look_like_a_data_set_are_left_aside(tree, capsys):
    np.savez(tree / "b" / "features.npz", features=np.zeros(3))
    (tree / "b" / "cut.npz").write_bytes((tree / "b" / "features.npz").read_bytes()[:150])
    assert find_files(["b"]).paths == ["b/10.PNG", "b/2.png", "b/cut.npz", "b/c/x.jpg"]  # reading it says that it is damaged
    assert "not used: 1 .npz, 1 .txt" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"cut\.npz is damaged"):
        find_files(["b/cut.npz"])


def test_tables(tree):
    (tree / "b" / "t.csv").write_text("path,patient\n2.png,P1\n../a.png,P2\n")
    found = find_files(["b/t.csv"])
    assert found.paths == ["b/2.png", "a.png"] and found.patients == ["P1", "P2"]
    assert find_files(["b/t.csv", "scan"]).patients is None  # not known of all
    for given in (["b/t.csv", "b/2.png"], ["b/2.png", "b/t.csv"]):
        assert find_files(given).patients == ["P1", "P2"]
    (tree / "other.csv").write_text("path,patient\nb/2.png,P9\n")
    with pytest.raises(InputError, match=r"b/2\.png is of the patients P1 and P9"):
        find_files(["b/t.csv", "other.csv"])
    assert found.some([1]) == (["a.png"], ["P2"])
    assert found.fingerprint != found.some([0]).fingerprint == find_files(["b/2.png"]).fingerprint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file\nx\n", "no column path"),
        ("path\nnowhere.png\n", "line 2: no file nowhere.png"),
        ("path,patient\na.png,\n", "line 2: no patient"),
        ("path,patient\na.png,P1\na.png,P2\n", "line 3: a.png is of the patients P1 and P2"),
    ],
)
def test_wrong_tables(tree, text, words):
    (tree / "t.csv").write_text(text)
    with pytest.raises(InputError, match=f"t.csv.*{words}"):
        find_files(["t.csv"])


def test_an_unreadable_image_is_named_and_does_not_stop_the_rest(tree, phantoms):
    good = str(next((phantoms / "val" / "ring").iterdir()))
    images = NewImages(["a.png", good])
    assert images[0].shape == (3, 1, 1) and images[1].shape == (3, 32, 32)
    assert list(images.problems()) == ["a.png"] and "cannot read image a.png" in images.problems()["a.png"]
