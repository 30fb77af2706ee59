"""Names of any bytes in any locale: trained on, evaluated, and written down readably."""

import os
import shutil

import pytest
from conftest import TINY_FINETUNE, run_script

from util.evaluation.predictions import read_predictions
from util.system.text import one_line, readable


def test_names_are_readable_in_every_locale():
    assert readable("schädel/a\udcff.png") == "schädel/a\\xff.png"
    assert readable("sch\udcc3\udca4del") == "schädel"  # as the C locale gives it
    assert one_line("a\nb\x1b[31m\udcff") == "a\\nb\\x1b[31m\\xff"
    assert one_line("\ud800") == "\\ud800"  # a surrogate that stands for no byte


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_names_that_are_no_utf8_are_trained_on_and_evaluated(locale, phantoms, tmp_path):
    environment = {"LC_ALL": locale} | ({"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} if locale == "C" else {})
    data = bytes(tmp_path) + b"/d\xff"
    shutil.copytree(phantoms, os.fsdecode(data))
    for split in (b"/train/", b"/val/"):
        os.rename(data + split + b"skull", data + split + "schädel".encode())
        os.rename(data + split + b"ring", data + split + b"r\xe9ng")
        for number, name in enumerate(os.listdir(data + split + b"base")):
            os.rename(data + split + b"base/" + name, data + split + b"base/\xe9t\xe9-%d.png" % number)
    options = f"--device cpu --data_path {os.fsdecode(data)}"
    tiny = f"{TINY_FINETUNE} --num_workers 1 --input_size 32 --patch_size 8 --epochs 1"
    run_script(f"main_finetune.py {tiny} {options} --output_dir fine", tmp_path, **environment)
    last = "fine/checkpoint-last.pth"
    result = run_script(f"main_finetune.py --eval --resume {last} {options} --output_dir eval", tmp_path, **environment)
    assert "r\\xe9ng" in result.stdout
    predictions = read_predictions(tmp_path / "eval")
    assert predictions.classes == ["base", "none", "r\\xe9ng", "schädel"]
    written = [f"{tmp_path}/d\\xff/val/base/\\xe9t\\xe9-{number}.png" for number in range(3)]
    assert set(written) < set(predictions.files)
