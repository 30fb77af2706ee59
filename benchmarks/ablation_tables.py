"""The results of ``benchmarks.ablation`` as Markdown: accuracy of the rows, where maps look, what masking by them leaks."""

import math
from statistics import mean, stdev

from scipy.stats import t

REFERENCE = "MAE"
SHOWN_SOURCES = ("last", "block3", "consensus", "relevance", "label")


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean of paired differences and the ends of its 95 % interval by Student's t; infinite ones for a single pair."""
    centre = mean(differences)
    if len(differences) < 2:
        return centre, -math.inf, math.inf
    half = t.ppf(0.975, len(differences) - 1) * stdev(differences) / math.sqrt(len(differences))
    return centre, centre - half, centre + half


def points(values: list[float]) -> str:
    """Mean and standard deviation of shares, in per cent."""
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{spread}"


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
            against = f"{centre:+.2f} ({low:+.2f} to {high:+.2f})" if len(pairs) > 1 else f"{centre:+.2f} (one seed)"
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
    """Gain, pointing and average precision at the end of each pre-training, for the sources that matter."""
    lines = [
        "| pre-training | head, top-1 (%) | source in use | map | gain | pointing (%) | average precision |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in results["pretraining"].items():
        ends = [run["looks"][-1] for run in runs.values()]
        if not all(end["localisation"] for end in ends):
            continue
        sources = [end["localisation"]["sources"] for end in ends]
        used = sorted({end["map_source"] for end in ends if end["map_source"]})
        for source in dict.fromkeys((*SHOWN_SOURCES, *used)):
            figures = [each[source] for each in sources]
            lines.append(
                f"| {name} | {points([end['val_top1'] for end in ends])} | {', '.join(used) or 'random'} | {source} | "
                f"{mean(each['gain'] for each in figures):.2f} | {100 * mean(each['pointing'] for each in figures):.1f} | "
                f"{mean(each['average_precision'] for each in figures):.3f} |"
            )
    return lines if len(lines) > 2 else []


def leak_table(results: dict) -> list[str]:
    """How well a probe tells the class from nothing but the positions of the patches that SAM leaves visible."""
    sources = (*SHOWN_SOURCES, "random", "most frequent")
    lines = [f"| pre-training | {' | '.join(sources)} |", "|---" * (len(sources) + 1) + "|"]
    for name, runs in results["pretraining"].items():
        lines.append(
            f"| {name} | {' | '.join(points([run['leak'][source] for run in runs.values()]) for source in sources)} |"
        )
    return lines


def tables(results: dict, order: list[str]) -> str:
    """All tables of a results file, rows in the given order."""
    setting = results["setting"]
    machine = f"{setting['cores']} x {setting['processor']}" if setting["device"] == "cpu" else setting["device"]
    parts = [
        f"# Ablation on {setting['name']}",
        f"Preset `{setting['preset']}`, {setting['images']} training images; {machine}, PyTorch {setting['torch']}, timm "
        f"{setting['timm']}; {setting['jobs']} stages side by side. The commands are in `{setting['name']}.json`. Minutes "
        "and operations are those of the training steps, pre-training and fine-tuning together.",
    ]
    if results["cells"]:
        parts += ["## Accuracy", "\n".join(accuracy_table(results, order))]
    if lines := localisation_table(results):
        parts += ["## Where the maps look at the end of pre-training", "\n".join(lines)]
    parts += ["## What the positions of the visible patches tell of the class (%)", "\n".join(leak_table(results))]
    return "\n\n".join(parts) + "\n"
