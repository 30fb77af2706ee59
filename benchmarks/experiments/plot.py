"""Draw Fig/paper-on-cpu-split.png and Fig/paper-on-cpu-long.png from the results: python -m benchmarks.experiments.plot"""

import argparse
import json

from matplotlib.figure import Figure

from benchmarks.experiments.__main__ import RESULTS
from benchmarks.experiments.cells import LONG, ROWS
from benchmarks.experiments.tables import NOT_RUN, PAPER, TITLES, ended, top1
from benchmarks.record import ROOT

COLORS = ("#D55E00", "#0072B2", "#009E73")  # of the maskings


def split_figure(results: dict) -> Figure:
    """Top-1 of each run on the paper's split with its interval; without copies as a ring; the paper's as a line."""
    figure = Figure(figsize=(10, 4), dpi=150, layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=[len(rows) for rows in ROWS.values()])
    for axis, (data, rows) in zip(axes, ROWS.items(), strict=True):
        for column, names in enumerate(rows.values()):
            for number, run in enumerate(ended(results, names)):
                x = column + 0.15 * number
                axis.plot([x, x], [100 * edge for edge in run["all"]["interval"]], color="#0072B2", linewidth=1)
                axis.plot(x, top1(run["all"]), "o", color="#0072B2", markersize=5)
                if "without_copies" in run:
                    axis.plot(x, top1(run["without_copies"]), "o", markersize=8, markerfacecolor="none", color="#D55E00")
            if not ended(results, names):
                axis.text(column, 0.05, NOT_RUN, transform=axis.get_xaxis_transform(), ha="center", fontsize=8)
        right, of = PAPER[data]
        axis.axhline(100 * right / of, color="black", linewidth=0.7, linestyle=":")
        axis.set_title(f"{TITLES[data]}; dotted: the paper's {right:,} of {of:,}", fontsize=9)
        axis.set_xticks(range(len(rows)), [title.replace(", ", ",\n") for title in rows], fontsize=7)
        axis.set_xlim(-0.5, len(rows) - 0.5)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("top-1, last epoch (%)")
    figure.suptitle("dots: seeds, with 95 % intervals; rings: without copies of training images", fontsize=9)
    return figure


def long_figure(results: dict) -> Figure:
    """Top-1 through 100 epochs of fine-tuning, against epochs and against CPU time; a line a run."""
    figure = Figure(figsize=(9, 3 * len(LONG)), dpi=150, layout="constrained")
    axes = figure.subplots(len(LONG), 2, sharey="row")
    for line, (data, rows) in zip(axes, LONG.items(), strict=True):
        line[0].set_ylabel(f"{TITLES[data]}: top-1 (%)")
        for axis, what in zip(line, ("epochs", "CPU minutes"), strict=True):
            for color, (title, names) in zip(COLORS, rows.items(), strict=True):
                for number, run in enumerate(ended(results, names)):
                    scale = run["cpu_minutes"] / len(run["curve"]) if what == "CPU minutes" else 1
                    times = [scale * epoch for epoch in range(1, len(run["curve"]) + 1)]
                    values = [100 * value for value in run["curve"]]
                    axis.plot(times, values, color=color, linewidth=1, label=None if number else title)
            axis.set_xlabel(f"{what} of fine-tuning", fontsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            if axis.lines:
                axis.legend(frameon=False, fontsize=8)
            else:
                axis.text(0.5, 0.5, NOT_RUN, transform=axis.transAxes, ha="center")
    return figure


def main() -> None:
    argparse.ArgumentParser("python -m benchmarks.experiments.plot", description=__doc__).parse_args()
    results = json.loads(RESULTS.read_text())
    for name, figure in (("split", split_figure(results)), ("long", long_figure(results))):
        figure.savefig(ROOT / "Fig" / f"paper-on-cpu-{name}.png")
        print(f"written: Fig/paper-on-cpu-{name}.png")


if __name__ == "__main__":
    main()
