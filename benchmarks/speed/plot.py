"""Draw the figures that ``benchmarks.speed`` wrote: ``python -m benchmarks.speed.plot`` makes ``Fig/speed.png``."""

import argparse
import json
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from models_vit import create_encoder

COLORS = {"pre-training, SAM": "#0072B2", "fine-tuning, SAM": "#009E73", "fine-tuning, all patches": "#D55E00"}


def bars(axes: Axes, rows: list[dict], title: str) -> None:
    """Images a second of contenders, one bar each, in the order measured."""
    names = [row["what"].replace(", ", ",\n", 1) for row in rows]
    values = [row["value"] for row in rows]
    axes.barh(names, values, color=["#0072B2"] + ["#999999"] * (len(rows) - 1))
    for line, value in enumerate(values):
        axes.annotate(f" {value:.3g}", (value, line), va="center", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(values))
    axes.set_xlabel("images/s")
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def lines(axes: Axes, rows: list[dict], label: str, keep, position) -> None:
    """Milliseconds an image against something, a line for each kind of step.

    Args:
        rows: of the part "growth"; ``what`` is "phase, masking, model, size px".
        label: of the horizontal axis.
        keep: which (model, size) to draw; position: where (model, size) lies on the axis.
    """
    for step, color in COLORS.items():
        points = []
        for row in rows:
            kind, model, size = row["what"].rsplit(", ", 2)
            key = model, int(size.removesuffix(" px"))
            if kind == step and keep(*key):
                points.append((position(*key), 1000 / row["value"]))
        axes.plot(*zip(*sorted(points), strict=True), "o-", color=color, label=step)
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
    axes.set_ylabel("ms an image")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in create_encoder(name, num_classes=4).parameters())


def draw(content: dict) -> Figure:
    """The figure of one run of the benchmark, which must have measured pre-training, fine-tuning and growth."""
    about, settings = content["machine"], content["settings"]
    rows: dict[str, list[dict]] = {}
    for row in content["rows"]:
        rows.setdefault(row["part"].split(",")[0], []).append(row)
    figure = Figure(figsize=(10, 6.5), dpi=150, layout="constrained")
    top, bottom = (part.subplots(1, 2) for part in figure.subfigures(2, 1, squeeze=False).flat)
    for axes, part in zip(top, ("pre-training step", "fine-tuning step"), strict=True):
        bars(axes, [row for row in rows[part] if row["unit"] == "images/s"], f"{part}, batch {settings['batch_size']}")
    model = settings["model"]
    lines(bottom[0], rows["growth"], f"side of the input of {model}, pixels", lambda m, _: m == model, lambda _, s: s)
    label = "million parameters of the encoder, at 224 px"
    lines(bottom[1], rows["growth"], label, lambda _, s: s == 224, lambda m, _: parameters(m) / 1e6)
    sizes = sorted({int(row["what"].split(", ")[-1][:-3]) for row in rows["growth"]})
    bottom[0].set_xticks(sizes, map(str, sizes))
    bottom[0].legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"{about['processor']}, {about['device']}, {about['threads']} threads, {settings['amp']}, PyTorch {about['torch']}",
        fontsize=9,
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", type=Path, default=Path("benchmarks/throughput.json"), help="what to draw")
    parser.add_argument("--output", type=Path, default=Path("Fig/speed.png"), help="the picture")
    options = parser.parse_args()
    draw(json.loads(options.figures.read_text())).savefig(options.output)
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
