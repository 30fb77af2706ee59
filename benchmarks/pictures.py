"""Draw the README's pipeline, and what a fine-tuning costs from the benchmark's figures; ``make figures`` calls this."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from util.evaluation.painting import MASKED, THROWN
from util.masking import split_patches
from util.phantom import draw_phantom
from util.system.errors import InputError, run_script

BLUE, GREEN, GREY = "#0072B2", "#009E73", "#E8E8E8"
PATCHES = 8  # along each side of the drawing's image


def box(axis: Axes, x: float, y: float, width: float, height: float, text: str, color: str = GREY) -> None:
    patch = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0.02,rounding_size=0.08", facecolor=color, edgecolor="0.3"
    )
    axis.add_patch(patch)
    axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)


def arrow(axis: Axes, start: tuple, end: tuple, color: str = "0.25", bend: float = 0.0, dashed: bool = False) -> None:
    style = FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>",
        mutation_scale=10,
        color=color,
        connectionstyle=f"arc3,rad={bend}",
        linestyle="--" if dashed else "-",
    )
    axis.add_patch(style)


def draw(axis: Axes, picture: np.ndarray, x: float, y: float, side: float, title: str) -> None:
    axis.imshow(picture, extent=(x, x + side, y, y + side), interpolation="nearest", zorder=2, aspect="auto")
    axis.text(x + side / 2, y + side + 0.06, title, ha="center", va="bottom", fontsize=8)


def example() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A phantom, a map drawn around its lesion, SAM's decision by it, and what the encoder sees of it (all RGB)."""
    image, mask = draw_phantom("ring", (3, 0, 5), 64)
    image = np.repeat(image[..., None] / 255, 3, axis=2)
    share = torch.from_numpy(mask.reshape(PATCHES, 8, PATCHES, 8).mean((1, 3))).float()
    near = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(share[None, None], (1, 1, 1, 1)), 3, 1)[0, 0]
    weights = 0.05 + share + near
    noise = torch.rand(1, PATCHES**2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    split = split_patches(weights.flatten()[None], noise, 0.45, 0.3)
    decision, seen = image.copy(), image.copy()
    for index, color in ((split.masked[0], MASKED), (split.thrown[0], THROWN)):
        for n in index.tolist():
            area = np.s_[n // PATCHES * 8 : n // PATCHES * 8 + 8, n % PATCHES * 8 : n % PATCHES * 8 + 8]
            decision[area] = 0.45 * decision[area] + 0.55 * np.asarray(color)
            seen[area] = 0.92
    heat = colormaps["magma"]((weights / weights.max()).numpy())[..., :3]
    heat = heat.repeat(8, 0).repeat(8, 1)
    return image, 0.35 * image + 0.65 * heat, decision, seen


def pipeline() -> Figure:
    """The method, both phases: how the map comes about, what it decides, what is learnt from the rest."""
    image, heat, decision, seen = example()
    figure = Figure(figsize=(11, 4.6), dpi=150)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 11), ylim=(0, 4.6))
    axis.set_axis_off()
    for y, name in ((2.75, "Pre-training"), (0.45, "Fine-tuning")):
        axis.text(0.2, y + 1.6, name, fontsize=11, fontweight="bold")
        for x, picture, title in (
            (0.2, image, "image"),
            (1.95, heat, "attention map"),
            (3.7, decision, "SAM's decision"),
            (5.45, seen, "visible quarter"),
        ):
            draw(axis, picture, x, y, 1.25, title)
            arrow(axis, (x + 1.29, y + 0.62), (x + 1.71 if x < 5 else 6.93, y + 0.62))
        box(axis, 6.95, y + 0.3, 1.1, 0.65, "ViT encoder", "#CFE6F5")
        arrow(axis, (7.3, y + 0.27), (2.6, y - 0.03), GREEN, bend=-0.1, dashed=True)
        axis.text(3.0, y - 0.36, "class token's attention to the whole image, renewed now and then", fontsize=7, color=GREEN)
    box(axis, 8.5, 3.6, 1.0, 0.5, "head", "#D9F0E6")
    arrow(axis, (8.08, 3.5), (8.48, 3.8))
    axis.text(9.6, 3.85, "class loss x 0.1", fontsize=8, va="center")
    box(axis, 8.5, 2.75, 1.0, 0.5, "decoder", "#FBE7C6")
    arrow(axis, (8.08, 3.25), (8.48, 3.05))
    axis.text(9.6, 3.0, "masked patches:\npixel loss", fontsize=8, va="center")
    box(axis, 8.5, 0.82, 1.0, 0.5, "new head", "#D9F0E6")
    arrow(axis, (8.08, 1.07), (8.48, 1.07))
    axis.text(9.6, 1.07, "class loss", fontsize=8, va="center")
    axis.text(8.5, 0.45, "validation: all patches", fontsize=7, color="0.35")
    arrow(axis, (7.6, 3.0), (7.6, 1.43), BLUE)
    axis.text(7.68, 2.1, "weights", fontsize=8, color=BLUE)
    for x, color, text in ((8.5, MASKED, "masked 45 %: reconstructed"), (8.5, THROWN, "thrown 30 %: never used")):
        height = 2.3 if color == MASKED else 2.1
        axis.add_patch(FancyBboxPatch((x, height), 0.1, 0.1, boxstyle="square,pad=0", facecolor=color))
        axis.text(x + 0.18, height + 0.05, text, fontsize=7, va="center")
    return figure


def efficiency(content: dict) -> Figure:
    """What the benchmark's part "efficiency" measured, a panel a measure, a bar a contender."""
    panels: dict[str, list[dict]] = {}
    for row in content["rows"]:
        if row["part"].startswith("efficiency, "):
            panels.setdefault(row["part"].removeprefix("efficiency, "), []).append(row)
    if not panels:
        raise InputError("no part 'efficiency' among the figures: python -m benchmarks.speed --parts efficiency")
    figure = Figure(figsize=(10.5, 4.6), dpi=150, layout="constrained")
    for axis, (title, rows) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        values = [row["value"] for row in rows]
        colors = [GREEN if "MSMAE" in row["what"] else BLUE if "MAE" in row["what"] else "#999999" for row in rows]
        axis.barh([row["what"] for row in rows], values, color=colors)
        for place_of, value in enumerate(values):
            axis.annotate(f" {value:.3g}", (value, place_of), va="center", fontsize=8)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.18 * max(values))
        axis.tick_params(labelsize=8)
        axis.set_title(f"{title} ({rows[0]['unit']})", fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    about, settings = content["machine"], content["settings"]
    figure.suptitle(
        f"{about['processor']}, {about['device']}, {about['threads']} threads, {settings['amp']}, batch "
        f"{settings['batch_size']}, {settings['input_size']} px, PyTorch {about['torch']}, timm {about['timm']}",
        fontsize=8,
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--efficiency", type=Path, default=Path("benchmarks/efficiency.json"), metavar="FILE", help="measured"
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("Fig"), metavar="DIR", help="for the pictures (default: Fig)"
    )
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    pipeline().savefig(options.output_dir / "pipeline.png")
    made = ["pipeline.png"]
    if options.efficiency.is_file():
        efficiency(json.loads(options.efficiency.read_text())).savefig(options.output_dir / "efficiency.png")
        made.append("efficiency.png")
    print(f"written in {options.output_dir}: {', '.join(made)}")


if __name__ == "__main__":
    run_script(main)
