"""Draw a results file of the ablation, and write its tables anew: where the maps look, and what the rows reach.

python -m benchmarks.ablation.plot benchmarks/results/busi.json    # busi.md, Fig/ablation-busi-maps.png and -rows.png
"""

import argparse
import json
from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.ablation.rows import PRETRAININGS
from benchmarks.ablation.tables import in_order, measures, row_names, spread, tables

SOURCES = {  # colour and title
    "last": ("#D55E00", "last block (the paper)"),
    "consensus": ("#009E73", "consensus of all blocks"),
    "relevance": ("#0072B2", "relevance of the prediction"),
    "label": ("#999999", "relevance of the label"),
}


def maps_figure(results: dict) -> Figure | None:
    """Gain and pointing through each pre-training; none without lesion masks."""
    runs = {name: [*results["pretraining"][name].values()] for name in in_order(results["pretraining"], PRETRAININGS)}
    if not all(look["localisation"] for seeds in runs.values() for run in seeds for look in run["looks"]):
        return None
    figure = Figure(figsize=(8, 1.4 * len(runs) + 1), dpi=150, layout="constrained")
    axes = figure.subplots(len(runs), 2, sharex=True, sharey="col", squeeze=False)
    for line, (name, seeds) in zip(axes, runs.items(), strict=True):
        draw_looks(line[0], seeds, "gain", chance=1)
        draw_looks(line[1], seeds, "pointing", chance=seeds[0]["looks"][0]["localisation"]["chance"])
        line[0].set_ylabel(name.replace(", ", "\n"), fontsize=8)
    for axis, title in zip(axes[0], ("gain", "pointing (share of images)"), strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel("epochs of pre-training")
    lines = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.suptitle(f"{results['setting']['name']}; grey: SAM is running, dotted: chance", fontsize=9)
    return figure


def draw_looks(axis: Axes, seeds: list[dict], key: str, chance: float) -> None:
    """A line for each source of maps, and for the map as SAM draws by it: the mean over seeds."""
    looks = list(zip(*(run["looks"] for run in seeds), strict=True))
    epochs = [look[0]["epoch"] + 1 for look in looks]
    for source, (color, title) in SOURCES.items():
        if source in looks[0][0]["localisation"]["sources"]:
            values = [mean(run["localisation"]["sources"][source][key] for run in look) for look in looks]
            axis.plot(epochs, values, "o-", color=color, label=title, markersize=3)
    axis.axhline(chance, color="black", linewidth=0.7, linestyle=":")
    first = sum(not look[0]["map_source"] for look in looks)  # looks before SAM
    if first < len(looks):
        drawn = [mean(run[f"map_{key}"] for run in look) for look in looks[first:]]
        axis.plot(epochs[first:], drawn, "k--", label="as SAM draws by it", linewidth=1)
        axis.axvspan(epochs[max(first - 1, 0)], epochs[-1], color="0.93", zorder=0)
    axis.spines[["top", "right"]].set_visible(False)


def rows_figure(results: dict) -> Figure:
    """Top-1 of the rows at their last epoch: a dot a seed, a bar at the mean, the line at MAE's mean; minutes beside."""
    names = row_names(results)
    figure = Figure(figsize=(9, 0.33 * len(names) + 1.3), dpi=150, layout="constrained")
    axis, told = figure.subplots(), []
    for place, name in enumerate(names):
        found = [measures(results, name, seed) for seed in results["cells"][name]]
        values = [each["top-1 (%)"] for each in found]
        axis.plot(values, [place] * len(values), "o", color="#0072B2", markersize=4, alpha=0.7)
        axis.plot(mean(values), place, "|", color="#D55E00", markersize=14, markeredgewidth=2)
        told.append(f"{spread(values, 1)} %, {mean(each['minutes'] for each in found):.0f} min")
        if name == "MAE":
            axis.axvline(mean(values), color="black", linewidth=0.7, linestyle=":")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.secondary_yaxis("right").set_yticks(range(len(names)), told, fontsize=7)
    axis.set_xlabel("top-1 on val/, last epoch (%); dotted: MAE")
    axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{results['setting']['name']}, preset {results['setting']['preset']}", fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="a file that benchmarks.ablation wrote")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("Fig"), metavar="DIR", help="for the pictures (default: Fig)"
    )
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    options.results.with_suffix(".md").write_text(tables(results))
    for name, figure in (("maps", maps_figure(results)), ("rows", rows_figure(results))):
        if figure:
            path = options.output_dir / f"ablation-{options.results.stem}-{name}.png"
            figure.savefig(path)
            print(f"written: {path}")


if __name__ == "__main__":
    main()
