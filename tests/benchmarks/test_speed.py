"""The benchmarks: FLOPs as the paper counts them, and the command as a user runs it."""

import json

import pytest
from conftest import ROOT, run_here, run_script

from benchmarks.pictures import efficiency
from benchmarks.speed import field
from benchmarks.speed.flops import count, encoder_flops, finetuning_step_flops
from benchmarks.speed.measure import Timing, ratio
from benchmarks.speed.trainings import CONTENDERS, Contender, Setting
from util.system.errors import InputError


def test_flops_are_those_of_the_paper():
    """The paper: 16.87 and 4.37 G multiply-adds (normalisation layers included, which are no matrix products), 74.08 %."""
    whole, part = encoder_flops("vit_base_patch16"), encoder_flops("vit_base_patch16", 224, 0.45, 0.3)
    assert whole["paper"] / 2e9 == pytest.approx(16.85, abs=0.005) and part["paper"] / 2e9 == pytest.approx(4.36, abs=0.005)
    assert 100 * (1 - part["paper"] / whole["paper"]) == pytest.approx(74.08, abs=0.1)


def test_flops_executed_count_attention_and_visible_patches_only():
    """Against a count by hand: 12 blocks of width 768 on 50 and on 197 tokens, and a head of 4 classes."""
    for ratios, tokens in (((0.45, 0.3), 50), ((0.0, 0.0), 197)):
        linear = 12 * tokens * 12 * 768**2 + (tokens - 1) * 768**2 + 768 * 4
        attention = 12 * 2 * tokens**2 * 768
        assert encoder_flops("vit_base_patch16", 224, *ratios)["executed"] == 2 * (linear + attention)
    whole, part = (encoder_flops("vit_base_patch16", 224, *ratios)["executed"] for ratios in ((0.0, 0.0), (0.45, 0.3)))
    assert 100 * (1 - part / whole) == pytest.approx(75.39, abs=0.1)


def test_a_training_step_is_three_forward_passes():
    """But for the patch embedding, whose input needs no gradient."""
    forward = encoder_flops("vit_tiny_patch16")["executed"]
    embedding = 2 * 196 * 768 * 192
    assert finetuning_step_flops("vit_tiny_patch16") == 3 * forward - embedding
    assert count(lambda: None) == {"linear": 0, "attention": 0}


def test_ratio_compares_neighbours_in_time():
    slow, fast = Timing.of([2.0, 20.0, 4.0]), Timing.of([1.0, 10.0, 1.0])
    assert ratio(slow, fast) == 2.0 and slow.median == 4.0 and slow.low == 3.0


def test_the_command_prints_tables_and_writes_all_figures(tmp_path):
    output = tmp_path / "figures.json"
    parts = "flops pretrain finetune profile inference pipeline epoch"
    command = (
        f"benchmarks/speed/__main__.py --parts {parts} --model vit_tiny_patch16 --input_size 32 --batch_size 4 --batches 2"
    )
    options = f"--rounds 2 --shortest 0 --num_workers 1 --device cpu --output {output}"
    result = run_script(f"{command} {options}", tmp_path, PYTHONPATH=str(ROOT))
    content = json.loads(output.read_text())
    assert content["machine"]["torch"] and content["settings"]["batch_size"] == 4
    assert {row["part"] for row in content["rows"]} >= {"pre-training step", "fine-tuning step", "epoch from files"}
    for row in content["rows"]:
        assert row["value"] > 0 and f"| {row['what']} | {row['value']:.4g} {row['unit']} |" in result.stdout


def test_pictures_of_the_readme(tmp_path):
    rows = [
        {"part": f"efficiency, {part}", "what": what, "value": value, "unit": "ms"}
        for part in ("a", "b", "c", "d")
        for what, value in (("ViT", 12.34), ("MSMAE", 5.67))
    ]
    about = {"processor": "P", "device": "cpu", "threads": 2, "torch": "1", "timm": "1"}
    content = {"machine": about, "settings": {"amp": "bf16", "batch_size": 8, "input_size": 224}, "rows": rows}
    figure = efficiency(content)
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts == [" 12.3", " 5.67"] * 4
    (tmp_path / "figures.json").write_text(json.dumps(content))
    command = f"benchmarks/pictures.py --efficiency {tmp_path / 'figures.json'} --output_dir {tmp_path / 'Fig'}"
    run_script(command, tmp_path, PYTHONPATH=str(ROOT))
    assert {path.name for path in (tmp_path / "Fig").iterdir()} == {"pipeline.png", "efficiency.png"}
    assert (tmp_path / "Fig" / "pipeline.png").stat().st_size > 50_000
    content["rows"] = []
    (tmp_path / "figures.json").write_text(json.dumps(content))
    result = run_here(command, tmp_path, check=False)
    assert result.returncode == 2 and "no part 'efficiency'" in result.stderr


def test_the_field_follows_whole_trainings(phantoms, tmp_path, capsys):
    """Ours as a process of its own; what is not installed is left out with a note, what ends early is named."""
    ours = CONTENDERS["fine-tuning"]["ours, SAM 0.45 / 0.3"]
    assert field.installed("fine-tuning", "ours", ours)
    assert not field.installed("fine-tuning", "theirs", Contender(ours.train, "no-such-package"))
    assert "theirs: left out, no-such-package is not installed" in capsys.readouterr().out
    setting = Setting(str(phantoms), str(tmp_path), "vit_micro_patch8", 32, 4, "cpu", "fp32", 0, (1, 2, 4))
    seen = field.watch("fine-tuning", "ours, SAM 0.45 / 0.3", setting)
    assert 0 < seen.step < seen.first_step and seen.memory > 2**27
    with pytest.raises(InputError, match=r"fine-tuning, ours.*: ended before step 1000000"):
        field.watch("fine-tuning", "ours, SAM 0.45 / 0.3", setting._replace(output=f"{tmp_path}/2", marks=(1, 2, 10**6)))
