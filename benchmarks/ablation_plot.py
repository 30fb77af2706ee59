"""Draw a results file of ``benchmarks.ablation``: where the maps look through pre-training, and what the rows reach.

python -m benchmarks.ablation_plot benchmarks/results/busi.json    # Fig/ablation-busi-maps.png and -rows.png
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

from matplotlib.figure import Figure

from benchmarks.ablation_rows import ROWS
from benchmarks.ablation_tables import REFERENCE

SOURCES = {
    "last": ("#D55E00", "last block (the paper)"),
    "consensus": ("#009E73", "consensus of all blocks"),
    "relevance": ("#0072B2", "relevance of the prediction"),
    "label": ("#999999", "relevance of the label"),
}
TITLES = {  # of pre-trainings whose key is short
    "supervised": "supervision alone",
    "consensus": "consensus, batch not split",
    "split": "split batch, consensus",
}
FIGURES = {"gain": "gain (chance 1)", "pointing": "pointing (share of images)"}
COLUMNS = 4  # of pre-trainings beside each other, as many as can be read on a page


def maps_figure(results: dict) -> Figure | None:
    """A pair of panels for each pre-training, gain above pointing, a line for each map source: the mean over seeds."""
    runs = {
        name: list(seeds.values())
        for name, seeds in results["pretraining"].items()
        if all(look["localisation"] for run in seeds.values() for look in run["looks"])
    }
    if not runs:
        return None
    columns, bands = min(COLUMNS, len(runs)), -(-len(runs) // COLUMNS)
    figure = Figure(figsize=(2.3 * columns + 1, 4.4 * bands + 0.6), dpi=150, layout="constrained")
    axes = figure.subplots(2 * bands, columns, sharex=True, squeeze=False)
    for number, (name, seeds) in enumerate(runs.items()):
        band, column = divmod(number, columns)
        epochs = [look["epoch"] + 1 for look in seeds[0]["looks"]]
        words = seeds[0]["command"].split()
        began = int(words[words.index("--sam_epoch") + 1])
        sam = any(look["map_source"] for look in seeds[0]["looks"])
        for row, (figure_name, label) in enumerate(FIGURES.items()):
            axis = axes[2 * band + row][column]
            if axis is not axes[row][0]:
                axis.sharey(axes[row][0])
            for source, (color, title) in SOURCES.items():
                values = [
                    mean(run["looks"][n]["localisation"]["sources"][source][figure_name] for run in seeds)
                    for n in range(len(epochs))
                ]
                axis.plot(epochs, values, "o-", color=color, label=title, markersize=3)
            chance = 1 if figure_name == "gain" else seeds[0]["looks"][0]["localisation"]["chance"]
            axis.axhline(chance, color="black", linewidth=0.7, linestyle=":")
            if sam:
                axis.axvspan(began, epochs[-1], color="0.93", zorder=0)
                running = [n for n, epoch in enumerate(epochs) if epoch > began]
                drawn_by = [mean(run["looks"][n][f"map_{figure_name}"] for run in seeds) for n in running]
                axis.plot([epochs[n] for n in running], drawn_by, "k--", label="as SAM draws by it", linewidth=1)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelleft=not column)
            if not column:
                axis.set_ylabel(label)
        axes[2 * band][column].set_title(TITLES.get(name, name), fontsize=10)
        axes[2 * band + 1][column].set_xlabel("epochs of pre-training")
        axes[2 * band + 1][column].tick_params(labelbottom=True)
    for axis in axes.flat[2 * columns * (bands - 1) :]:
        if not axis.has_data():
            axis.set_axis_off()
    lines = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    figure.suptitle(f"{heading(results)}; grey: SAM is running, dotted: chance", fontsize=9)
    return figure


def rows_figure(results: dict) -> Figure | None:
    """Top-1 of the rows at their last epoch: a dot a seed, a bar at the mean, the line at MAE's mean; minutes beside."""
    cells = {row.name: results["cells"][row.name] for row in ROWS if row.name in results["cells"]}
    if not cells:
        return None
    figure = Figure(figsize=(9, 0.33 * len(cells) + 1.3), dpi=150, layout="constrained")
    axis = figure.subplots()
    for place, runs in enumerate(cells.values()):
        values = [100 * cell["top1"] for cell in runs.values()]
        axis.plot(values, [place] * len(values), "o", color="#0072B2", markersize=4, alpha=0.7)
        axis.plot([mean(values)], [place], "|", color="#D55E00", markersize=14, markeredgewidth=2)
        minutes = mean(
            cell["minutes"] + (results["pretraining"][cell["pretraining"]][seed]["minutes"] if cell["pretraining"] else 0)
            for seed, cell in runs.items()
        )
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        axis.annotate(
            f"{mean(values):.1f}{spread} %, {minutes:.0f} min",
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
        )
    if REFERENCE in cells:
        axis.axvline(
            mean(100 * cell["top1"] for cell in cells[REFERENCE].values()), color="black", linewidth=0.7, linestyle=":"
        )
    axis.set_yticks(range(len(cells)), list(cells), fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("top-1 on val/, last epoch (%); dotted: MAE")
    axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(heading(results), fontsize=9)
    return figure


def heading(results: dict) -> str:
    seeds = sorted({seed for runs in results["pretraining"].values() for seed in runs})
    setting = results["setting"]
    return f"{setting['name']}, preset {setting['preset']}, seeds {', '.join(seeds)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="a file that benchmarks.ablation wrote")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("Fig"), metavar="DIR", help="for the pictures (default: Fig)"
    )
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    for name, figure in (("maps", maps_figure(results)), ("rows", rows_figure(results))):
        if figure:
            path = options.output_dir / f"ablation-{options.results.stem}-{name}.png"
            figure.savefig(path)
            print(f"written: {path}")


if __name__ == "__main__":
    main()
