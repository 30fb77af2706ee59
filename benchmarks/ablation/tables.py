"""The results of the ablation as Markdown: measures times rows, as they are and as differences, and what the maps show."""

from collections.abc import Iterable
from statistics import mean, stdev

from scipy.stats import ttest_1samp

from benchmarks.ablation.rows import PRETRAININGS, ROWS
from benchmarks.record import table

MEASURES = {"top-1 (%)": 2, "best epoch (%)": 2, "minutes": 1, "head (%)": 2, "gain": 2, "pointing (%)": 2}
OF_PRETRAINING = ("head (%)", "gain", "pointing (%)")
SOURCES = ("last", "consensus", "relevance", "label", "as SAM draws")
OF_MAPS = {"gain": (1, 2), "pointing": (100, 2), "average_precision": (1, 3), "leak": (100, 2)}  # scale, digits


def in_order(named: dict, order: Iterable[str]) -> list[str]:
    """Names that the code knows, in its order, then those that only the results know, in theirs."""
    known = [name for name in order if name in named]
    return known + [name for name in named if name not in known]


def row_names(results: dict) -> list[str]:
    return in_order(results["cells"], [row.name for row in ROWS])


def measures(results: dict, row: str, seed: str) -> dict[str, float]:
    """What is measured of a row: its fine-tuning, the time of both phases, how its pre-training ended."""
    cell = results["cells"][row][seed]
    values = {"top-1 (%)": 100 * cell["top1"], "best epoch (%)": 100 * cell["best_top1"], "minutes": cell["minutes"]}
    if cell["pretraining"]:
        start = results["pretraining"][cell["pretraining"]][seed]
        values["minutes"] += start["minutes"]
        end = start["looks"][-1]
        if PRETRAININGS.get(cell["pretraining"], {}).get("class_weight") != 0:
            values["head (%)"] = 100 * end["val_top1"]
        if end["map_source"] and end["localisation"]:
            values |= {"gain": end["map_gain"], "pointing (%)": 100 * end["map_pointing"]}
    return values


def spread(values: list[float], digits: int) -> str:
    """Mean and, of several, standard deviation."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}" if values else ""


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean of paired differences (two or more), and the ends of its 95 % interval by Student's t."""
    low, high = ttest_1samp(differences, 0).confidence_interval()
    return mean(differences), low, high


def difference(results: dict, row: str, other: str, measure: str) -> str:
    """How far a row is above another one, over the seeds in which both have the measure."""
    seeds = results["cells"][row].keys() & results["cells"].get(other, {}).keys()
    pairs = [(measures(results, row, seed), measures(results, other, seed)) for seed in sorted(seeds)]
    differences = [one[measure] - another[measure] for one, another in pairs if measure in one and measure in another]
    if row == other or not differences:
        return ""
    if len(differences) < 3:
        return f"{mean(differences):+.2f} ({'one seed' if len(differences) == 1 else 'two seeds'})"
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*interval(differences))


def reached(results: dict) -> str:
    lines = []
    for name in row_names(results):
        runs = [measures(results, name, seed) for seed in results["cells"][name]]
        values = [spread([each[key] for each in runs if key in each], digits) for key, digits in MEASURES.items()]
        lines.append([name, len(runs), difference(results, name, "MAE", "top-1 (%)"), *values])
    return table(["row", "seeds", "top-1 against MAE", *MEASURES], lines)


def choices(results: dict) -> str:
    """Each row against the one that it differs from; one that the code no longer has, against what its name begins with."""
    rows, lines = {row.name: (row.against, row.asks) for row in ROWS}, []
    for name in row_names(results):
        other, asks = rows.get(name, (name.split(", ")[0], ""))
        if other is None:
            continue
        cells = [*results["cells"][name].values(), *results["cells"].get(other, {}).values()]
        same = len({cell["pretraining"] for cell in cells}) == 1
        values = ["" if same else difference(results, name, other, measure) for measure in OF_PRETRAINING]
        lines.append([name, other, asks, difference(results, name, other, "top-1 (%)"), *values])
    return table(["row", "against", "question", "top-1 (%)", *OF_PRETRAINING], [line for line in lines if any(line[3:])])


def maps(results: dict) -> str:
    """By pre-training and source: where the maps look at its end, and what masking by them tells of the class."""
    lines = []
    for name in in_order(results["pretraining"], PRETRAININGS):
        runs = results["pretraining"][name]
        by_seed = [map_figures(run) for run in runs.values()]
        blocks = [source for source in by_seed[0] if source.startswith("block") and "pointing" in by_seed[0][source]]
        best = max(blocks, key=lambda block: mean(each[block]["pointing"] for each in by_seed), default=None)
        drawn_by = ", ".join(sorted({str(run["looks"][-1]["map_source"]) for run in runs.values()}))
        titles = {
            "as SAM draws": f"**as SAM draws by it: {drawn_by}**",
            best: f"{best}, of all blocks the best by the masks",
        }
        for source in (source for source in (*SOURCES, best) if source in by_seed[0]):
            values = [
                spread([scale * each[source][key] for each in by_seed if key in each[source]], digits)
                for key, (scale, digits) in OF_MAPS.items()
            ]
            lines.append([name, titles.get(source, source), *values])
    return table(["pre-training", "map", "gain", "pointing (%)", "average precision", "leak (%)"], lines)


def map_figures(run: dict) -> dict[str, dict]:
    """By source of maps: localisation at the end of a pre-training, where there are lesion masks, and leak."""
    end, by_source = run["looks"][-1], {source: {"leak": leak} for source, leak in run["leak"].items()}
    if end["localisation"]:
        for source, figures in end["localisation"]["sources"].items():
            by_source.setdefault(source, {}).update(figures)
        if end["map_source"]:
            by_source["as SAM draws"] |= {key: end[f"map_{key}"] for key in ("gain", "pointing", "average_precision")}
    return by_source


def tables(results: dict) -> str:
    """All tables of a results file."""
    setting = results["setting"]
    runs = [run for kind in ("pretraining", "cells") for runs in results[kind].values() for run in runs.values()]
    machines = "; ".join(dict.fromkeys(run["ran_on"] for run in runs))
    leaks = [run["leak"] for run in runs if "leak" in run]
    by_chance = [spread([100 * leak[key] for leak in leaks], 2) for key in ("random", "most frequent")]
    return f"""# Ablation on {setting["name"]}

Preset `{setting["preset"]}`, {setting["images"]} training images, validation {setting["validation"]}, commits
{", ".join(setting["commits"])}, {setting["jobs"]} stages side by side on {machines}.
The commands are in `{setting["name"]}.json`.

## What the rows reach

Top-1 is that of the last epoch, beside the best epoch's by `val/` itself. Minutes are those of the training steps
of both phases. The head's top-1, and gain and pointing of the map as SAM draws by it, are of the end of pre-training.

{reached(results)}

## One choice at a time

Differences with their 95 % interval, over the seeds that both rows have. A row without a question is no longer in the code;
`docs/trials.md` tells what it was.

{choices(results)}

## The maps at the end of pre-training

The leak is how often a probe tells the class from nothing but the positions of the visible patches; from random positions
{by_chance[0]} %, and by always naming the most frequent class {by_chance[1]} %.

{maps(results)}
"""
