"""RESULTS.md tells what was measured: its tables, intervals and spreads are those of the committed JSON, and no others."""

import json
import re
from statistics import mean

import pytest
from conftest import ROOT

import segmentation.protocol
from benchmarks.ablation.tables import difference, interval, map_figures, measures, spread
from benchmarks.speed import flops
from util.options import finetuning, pretraining
from util.options.protocol import remark_on_masking

PAGE = (ROOT / "RESULTS.md").read_text()
RESULTS = {
    name: json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text()) for name in ("busi", "btmd-every5")
}
SECTIONS = {"busi": "BUSI", "btmd-every5": "A fifth of Brain Tumor MRI"}
ALONE, ONLY, LONG = "supervision alone", "MSMAE, pre-training only", "no pre-training, as long as both phases"
TOP1, HEAD = "top-1 (%)", "head (%)"
DIFFERENCES = {  # every difference that a section tells, in the order of its text: a row, the one beside it, the measure
    "busi": [
        (ALONE, "MAE", TOP1),
        ("split batch", "MAE", TOP1),
        (ONLY, ALONE, TOP1),
        ("split batch", ALONE, TOP1),
        ("MSMAE", ONLY, TOP1),
        ("MSMAE, longer, then all", ONLY, TOP1),
        (ONLY, ALONE, HEAD),
        ("split batch", ONLY, HEAD),
        (LONG, "split batch", TOP1),
        ("no pre-training", "split batch", TOP1),
    ],
    "btmd-every5": [
        (ALONE, "MAE", TOP1),
        (ONLY, ALONE, TOP1),
        ("split batch", ALONE, TOP1),
        ("MSMAE", ONLY, TOP1),
        ("MSMAE, longer, then all", ONLY, TOP1),
        (LONG, ONLY, TOP1),
        (LONG, "MAE", TOP1),
    ],
}
SPREADS = {  # every mean with its standard deviation: a pre-training, a source of maps, what of it, in which unit
    "busi": [("supervised", "last", "pointing"), ("supervised", "consensus", "pointing")],
    "btmd-every5": [("split", "as SAM draws", "leak"), ("MSMAE", "as SAM draws", "leak")],
}


def section(name: str) -> str:
    return re.search(rf"^## {SECTIONS[name]}.*?(?=^## )", PAGE, re.M | re.S)[0]


def prose(name: str) -> str:
    """A section without its commands and tables, in one line."""
    return " ".join(" ".join(line for line in section(name).splitlines() if not line.startswith(("|", "    "))).split())


def in_words(results: dict, row: str, other: str, measure: str) -> str:
    """A difference as the page tells it: ``5.9 points higher (1.7 to 10.0)``, ``0.5 points lower (1 higher to 2 lower)``."""
    seeds = results["cells"][row].keys() & results["cells"][other].keys()
    pairs = [[measures(results, name, seed)[measure] for name in (row, other)] for seed in sorted(seeds)]
    centre, low, high = interval([first - second for first, second in pairs])
    word, opposite = ("higher", "lower") if centre > 0 else ("lower", "higher")
    near, far = (low, high) if centre > 0 else (-high, -low)
    ends = f"{near:.1f} to {far:.1f}" if near > 0 else f"{-near:.1f} {opposite} to {far:.1f} {word}"
    return f"{abs(centre):.1f} points {word} ({ends})"


@pytest.mark.parametrize("name", SECTIONS)
def test_tables_are_those_of_the_figures(name):
    results, lines = RESULTS[name], [line for line in section(name).splitlines() if line.startswith("| ")]
    assert len(lines) > 6 and len({line.count("|") for line in lines}) == 1
    for line in lines[1:]:
        row, *told = (cell.strip(" *") for cell in line.strip("|").split("|"))
        found = [measures(results, row, seed) for seed in results["cells"][row]]
        columns = (("top-1 (%)", 2), ("best epoch (%)", 2), ("minutes", 1), ("head (%)", 2), ("pointing (%)", 1))
        values = [spread([each[key] for each in found if key in each], digits) for key, digits in columns]
        assert told == [str(len(found)), values[0], difference(results, row, "MAE", TOP1), *values[1 : len(told) - 2]]


@pytest.mark.parametrize("name", SECTIONS)
def test_differences_are_those_of_the_figures(name):
    told = re.findall(r"\d+\.\d points (?:higher|lower) \([^)]*\d\.\d[^)]*\)", prose(name))
    assert told == [in_words(RESULTS[name], *each) for each in DIFFERENCES[name]]


@pytest.mark.parametrize("name", SECTIONS)
def test_spreads_are_those_of_the_figures(name):
    figures = [
        [100 * map_figures(run)[source][what] for run in RESULTS[name]["pretraining"][start].values()]
        for start, source, what in SPREADS[name]
    ]
    assert re.findall(r"\d+ ± \d+", prose(name)) == [spread(values, 0) for values in figures]


def test_images_and_chance():
    run = RESULTS["busi"]["pretraining"]["MAE"]["0"]["looks"][-1]["localisation"]
    assert f"{run['images']} of them with a lesion" in prose("busi")
    assert f"chance {100 * run['chance']:.1f} %" in prose("busi")
    for name, results in RESULTS.items():
        assert f"{results['setting']['images']:,} training images" in prose(name)
        assert "validation bicubic" in prose(name) and results["setting"]["commits"][-1] in prose(name)
    leak = RESULTS["btmd-every5"]["pretraining"]["MAE"]["0"]["leak"]
    assert f"{100 * leak['random']:.0f} % from random positions" in prose("btmd-every5")


def test_fine_tuning_quotes_the_same_figures():
    """The line that fine-tuning by the paper's protocol prints."""
    told = remark_on_masking("attention", "paper")
    for name, ends in (("busi", "({} to {})"), ("btmd-every5", "({} to {};")):
        differences = [
            measures(RESULTS[name], ONLY, seed)[TOP1] - measures(RESULTS[name], "MSMAE", seed)[TOP1]
            for seed in RESULTS[name]["cells"]["MSMAE"]
        ]
        centre, low, high = (round(value) for value in interval(differences))
        assert str(centre) in told and ends.format(low, high) in told


def test_the_table_of_protocols_names_every_option_that_one_sets():
    table = re.search(r"^## Protocols.*?(?=^## )", (ROOT / "METHOD.md").read_text(), re.M | re.S)[0]
    for protocols in (pretraining.PROTOCOLS, finetuning.PROTOCOLS, segmentation.protocol.PROTOCOLS):
        paper, tuned = protocols["paper"], protocols["tuned"]
        differ = [name for name in {**paper, **tuned} if name not in paper or paper[name] != tuned.get(name)]
        assert differ and all(re.search(rf"--{name}\b", table) for name in differ), differ


def test_what_to_expect_quotes_the_figures():
    """The page's BUSI table: the first five looks at supervision with random masking; and what it says of the two rows."""
    page, runs = (ROOT / "docs" / "what-to-expect.md").read_text(), RESULTS["busi"]["pretraining"]
    for number in range(5):
        looks = [run["looks"][number] for run in runs["supervised"].values()]
        cells = [mean(look["val_top1"] for look in looks)]
        for source in ("last", "consensus", "relevance"):
            cells.append(mean(look["localisation"]["sources"][source]["pointing"] for look in looks))
        assert f"| {looks[0]['epoch']} | {' | '.join(f'{100 * cell:.0f} %' for cell in cells)} |" in page
    told = " ".join(page.split())
    steps = [flops.pretraining_step_flops("vit_base_patch16", 224, *shares) for shares in ((0.45, 0.3), (0.75, 0.0))]
    steps += [flops.finetuning_step_flops("vit_base_patch16", 224, *shares) for shares in ((0.45, 0.3), (0.0, 0.0))]
    assert "{:.1f} GFLOP an image with SAM and {:.1f} with random".format(*(step / 1e9 for step in steps[:2])) in told
    assert "{:.1f} with SAM and {:.1f} on all patches".format(*(step / 1e9 for step in steps[2:])) in told
    assert in_words(RESULTS["busi"], ONLY, ALONE, HEAD) in told
    assert f"in {spread([100 * map_figures(run)['consensus']['pointing'] for run in runs['MAE'].values()], 0)} %" in told
