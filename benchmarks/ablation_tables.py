"""The results of ``benchmarks.ablation`` as Markdown: accuracy of the rows, where maps look, what masking by them leaks."""

import math
from statistics import mean, stdev

from scipy.stats import t

from util.maps.localisation import FIGURES

REFERENCE = "MAE"
SHOWN_SOURCES = ("last", "consensus", "relevance", "label")
COMPARED = (  # pre-trainings by their last look, rows by top-1: title, first, second, figure, scale
    ("pre-training: top-1 of its head (%)", "split", "MSMAE", "val_top1", 100),
    ("pre-training: gain of the map as SAM draws by it", "split", "MSMAE", "map_gain", 1),
    ("pre-training: its pointing (%)", "split", "MSMAE", "map_pointing", 100),
    ("then top-1, fine-tuned on all patches (%)", "split batch", "MSMAE, pre-training only", "top1", 100),
    ("fine-tuning: top-1 (%)", "MSMAE, pre-training only", "MSMAE", "top1", 100),
    ("fine-tuning: top-1 (%)", "MSMAE, pre-training only", "MSMAE, longer, then all", "top1", 100),
    ("fine-tuning: top-1 (%)", "split batch, random longer, then all", "MAE, random longer, then all", "top1", 100),
    ("class loss everywhere: top-1 (%)", "consensus map", "split batch", "top1", 100),
    ("class loss everywhere: top-1 of its head (%)", "consensus", "split", "val_top1", 100),
    ("class loss everywhere: gain of the map as SAM draws by it", "consensus", "split", "map_gain", 1),
    ("class loss everywhere: its pointing (%)", "consensus", "split", "map_pointing", 100),
    ("map by the rule: top-1 (%)", "split batch, map by the rule", "split batch", "top1", 100),
    ("map by the rule: gain of the map as SAM draws by it", "split, auto", "split", "map_gain", 1),
    ("map by the rule: its pointing (%)", "split, auto", "split", "map_pointing", 100),
    ("softened map: top-1 (%)", "split batch, softened", "split batch", "top1", 100),
    ("softened map: top-1 of its head (%)", "split, softened", "split", "val_top1", 100),
    ("softened map: its pointing (%)", "split, softened", "split", "map_pointing", 100),
    ("registers: top-1 (%)", "split batch, registers", "split batch", "top1", 100),
    ("registers: gain of the map as SAM draws by it", "split, registers", "split", "map_gain", 1),
    ("registers: its pointing (%)", "split, registers", "split", "map_pointing", 100),
    ("class weight 0.3: top-1 (%)", "split batch, class weight 0.3", "split batch", "top1", 100),
    ("class weight 0.3: gain of the map as SAM draws by it", "split, class weight 0.3", "split", "map_gain", 1),
    ("class weight 0.3: its pointing (%)", "split, class weight 0.3", "split", "map_pointing", 100),
    ("three quarters random: top-1 (%)", "split batch, three quarters random", "split batch", "top1", 100),
    ("three quarters random: top-1 of its head (%)", "split, three quarters random", "split", "val_top1", 100),
    ("three quarters random: gain of the map as SAM draws by it", "split, three quarters random", "split", "map_gain", 1),
    ("three quarters random: its pointing (%)", "split, three quarters random", "split", "map_pointing", 100),
    ("map of the label: top-1 (%)", "split batch, map of the label", "split batch", "top1", 100),
    ("map of the label: top-1 of its head (%)", "split, map of the label", "split", "val_top1", 100),
    ("map of the label: gain of the map as SAM draws by it", "split, map of the label", "split", "map_gain", 1),
    ("map of the label: its pointing (%)", "split, map of the label", "split", "map_pointing", 100),
    ("SAM sooner: top-1 (%)", "split batch, SAM sooner", "split batch", "top1", 100),
    ("SAM sooner: top-1 of its head (%)", "split, SAM sooner", "split", "val_top1", 100),
    ("SAM sooner: gain of the map as SAM draws by it", "split, SAM sooner", "split", "map_gain", 1),
    ("SAM sooner: its pointing (%)", "split, SAM sooner", "split", "map_pointing", 100),
    ("class token: top-1 (%)", "split batch, class token", "split batch", "top1", 100),
)


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean of paired differences and the ends of its 95 % interval by Student's t; infinite ones for a single pair."""
    centre = mean(differences)
    if len(differences) < 2:
        return centre, -math.inf, math.inf
    half = t.ppf(0.975, len(differences) - 1) * stdev(differences) / math.sqrt(len(differences))
    return centre, centre - half, centre + half


def with_spread(values: list[float], digits: int) -> str:
    """Mean and, of several, standard deviation."""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def points(values: list[float]) -> str:
    """The same of shares, in per cent."""
    return with_spread([100 * value for value in values], 2)


def of_pretraining(results: dict, cell: dict, seed: str, key: str) -> float:
    """A figure of the pre-training that a cell started from; 0 without one."""
    name = cell["pretraining"]
    return results["pretraining"][name][seed][key] if name else 0.0


def accuracy_table(results: dict, order: list[str]) -> list[str]:
    """A row a line: top-1 over seeds, the paired difference to MAE, the best epoch's, minutes and operations."""
    lines = [
        "| row | seeds | top-1, last epoch (%) | against MAE, 95 % interval | best epoch (by `val/`) | minutes | PFLOP |",
        "|---|---|---|---|---|---|---|",
    ]
    cells = results["cells"]
    reference = cells.get(REFERENCE, {})
    for name in order:
        runs = cells.get(name, {})
        if not runs:
            continue
        pairs = [runs[seed]["top1"] - reference[seed]["top1"] for seed in runs if seed in reference]
        against = ""
        if pairs and name != REFERENCE:
            centre, low, high = (100 * value for value in interval(pairs))
            few = {1: "one seed", 2: "two seeds"}.get(len(pairs))
            against = f"{centre:+.2f} ({few or f'{low:+.2f} to {high:+.2f}'})"
        totals = {
            key: mean(cell[key] + of_pretraining(results, cell, seed, key) for seed, cell in runs.items())
            for key in ("minutes", "petaflops")
        }
        best = points([cell["best_top1"] for cell in runs.values()])
        lines.append(
            f"| {name} | {len(runs)} | {points([cell['top1'] for cell in runs.values()])} | {against} | {best} | "
            f"{totals['minutes']:.1f} | {totals['petaflops']:.2f} |"
        )
    return lines


def localisation_table(results: dict) -> list[str]:
    """Gain, pointing and average precision at the end of each pre-training: of the sources that matter, and as SAM draws."""
    lines = [
        "| pre-training | head, top-1 (%) | map | gain | pointing (%) | average precision |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in results["pretraining"].items():
        ends = [run["looks"][-1] for run in runs.values()]
        if not all(end["localisation"] for end in ends):
            continue
        head = points([end["val_top1"] for end in ends])
        if all("--class_weight 0 " in run["command"] for run in runs.values()):
            head = "untrained"
        used = sorted({end["map_source"] for end in ends if end["map_source"]})
        sources = [end["localisation"]["sources"] for end in ends]
        blocks = [source for source in sources[0] if source.startswith("block")]
        best = max(blocks, key=lambda block: mean(each[block]["pointing"] for each in sources))
        shown = {source: [each[source] for each in sources] for source in dict.fromkeys((*SHOWN_SOURCES, *used))}
        shown[f"{best}, of all blocks the best by the masks"] = [each[best] for each in sources]
        if used:
            drawn_by = [{figure: end[f"map_{figure}"] for figure in FIGURES} for end in ends]
            shown[f"**as SAM draws by it: {', '.join(used)}**"] = drawn_by
        for source, figures in shown.items():
            gain, pointing, precision = ([each[figure] for each in figures] for figure in FIGURES)
            lines.append(
                f"| {name} | {head} | {source} | {with_spread(gain, 2)} | {points(pointing)} | {with_spread(precision, 3)} |"
            )
    return lines if len(lines) > 2 else []


def leak_table(results: dict) -> list[str]:
    """How well a probe tells the class from nothing but the positions of the patches that SAM leaves visible."""
    sources = (*SHOWN_SOURCES, "as SAM draws", "random", "most frequent")
    lines = [f"| pre-training | {' | '.join(sources)} |", "|---" * (len(sources) + 1) + "|"]
    for name, runs in results["pretraining"].items():
        leaks = [[run["leak"].get(source) for run in runs.values()] for source in sources]
        lines.append(f"| {name} | {' | '.join('' if None in each else points(each) for each in leaks)} |")
    return lines


def comparison_table(results: dict) -> list[str]:
    """The defaults against the paper's choices, and one change at a time against the defaults: paired over seeds."""
    ends = {name: {seed: run["looks"][-1] for seed, run in runs.items()} for name, runs in results["pretraining"].items()}
    lines = ["| what | first | second | seeds | first - second, 95 % interval |", "|---|---|---|---|---|"]
    for title, first, second, key, scale in COMPARED:
        runs = results["cells"] if key == "top1" else ends
        one, two = runs.get(first, {}), runs.get(second, {})
        pairs = [scale * (one[s][key] - two[s][key]) for s in one if s in two and None not in (one[s][key], two[s][key])]
        if len(pairs) > 2:
            centre, low, high = interval(pairs)
            lines.append(f"| {title} | {first} | {second} | {len(pairs)} | {centre:+.2f} ({low:+.2f} to {high:+.2f}) |")
    return lines if len(lines) > 2 else []


def tables(results: dict, order: list[str]) -> str:
    """All tables of a results file, rows in the given order."""
    setting = results["setting"]
    stages = [run for kind in ("pretraining", "cells") for runs in results[kind].values() for run in runs.values()]
    machines = "; ".join(dict.fromkeys(run["ran_on"] for run in stages))
    parts = [
        f"# Ablation on {setting['name']}",
        f"Preset `{setting['preset']}`, {setting['images']} training images; {machines}; {setting['jobs']} stages side by "
        f"side. The commands are in `{setting['name']}.json`. Minutes and operations are those of the training steps, "
        "pre-training and fine-tuning together.",
    ]
    if results["cells"]:
        parts += ["## Accuracy", "\n".join(accuracy_table(results, order))]
    if lines := localisation_table(results):
        parts += ["## Where the maps look at the end of pre-training", "\n".join(lines)]
    if lines := comparison_table(results):
        parts += ["## One choice at a time: what the defaults rest on, what changes them, the best rows", "\n".join(lines)]
    parts += ["## What the positions of the visible patches tell of the class (%)", "\n".join(leak_table(results))]
    return "\n\n".join(parts) + "\n"
