"""Write the tables of a results file of the ablation anew, and draw what its rows reach.

python -m benchmarks.ablation.plot benchmarks/results/busi.json    # busi.md and Fig/ablation-busi-rows.png
"""

import argparse
import json
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

from benchmarks.ablation.tables import measures, row_names, spread, tables


def rows_figure(results: dict) -> Figure:
    """Top-1 of the rows at their last epoch: a dot a seed, a bar at the mean, the line at MAE's mean; minutes beside."""
    names = row_names(results)
    figure = Figure(figsize=(9, 0.33 * len(names) + 1.3), dpi=150, layout="constrained")
    axis, beside = figure.subplots(), []
    for line, name in enumerate(names):
        runs = [measures(results, name, seed) for seed in results["cells"][name]]
        values = [run["top-1 (%)"] for run in runs]
        axis.plot(values, [line] * len(values), "o", color="#0072B2", markersize=4, alpha=0.7)
        axis.plot(mean(values), line, "|", color="#D55E00", markersize=14, markeredgewidth=2)
        beside.append(f"{spread(values, 1)} %, {mean(run['minutes'] for run in runs):.0f} min")
        if name == "MAE":
            axis.axvline(mean(values), color="black", linewidth=0.7, linestyle=":")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.secondary_yaxis("right").set_yticks(range(len(names)), beside, fontsize=7)
    axis.set_xlabel("top-1 on val/, last epoch (%); dotted: MAE")
    axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{results['setting']['name']}, preset {results['setting']['preset']}", fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="a file that benchmarks.ablation wrote")
    parser.add_argument("--output_dir", type=Path, default=Path("Fig"), metavar="DIR", help="for the picture (default: Fig)")
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    options.results.with_suffix(".md").write_text(tables(results))
    path = options.output_dir / f"ablation-{options.results.stem}-rows.png"
    rows_figure(results).savefig(path)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
