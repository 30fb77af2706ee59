"""Pictures of an evaluation: ROC curves, confusion matrix, reliability, features by t-SNE, and what it looked at."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn import metrics as sk
from sklearn.manifold import TSNE
from torch import Tensor, nn

from util.data.images import Images
from util.data.inference import Inference
from util.evaluation import figure as figures
from util.evaluation.figure import COLORS, LINE, MARKERS, class_colors, save, shorten, styled, wrap
from util.evaluation.gallery import draw_gallery
from util.evaluation.page import FORMATS, TALLEST, WIDTH
from util.system import distributed

NAMED_CURVES = len(COLORS)  # with more classes, only the best and the worst are named
DASHES = ("-", "--", "-.")  # of curves with colours that may be alike
LARGEST_NUMBERED = 20  # classes, beyond which a confusion matrix has no room for numbers
LARGEST_TSNE = 2000  # images, spread over the set: t-SNE takes minutes beyond
GREY = "0.3"  # of what is of no class
LEGEND = 55.0  # mm, beside a picture that is wide enough


def panel(width: float, entries: int) -> tuple[Figure, Axes, dict, float]:
    """A figure with one frame; how its legend is placed, beside it or below; and the room for an entry, in millimetres."""
    if width >= 2.5 * LEGEND and LINE * entries < 0.6 * width:
        figure = figures.new(width, 0.62 * width)
        return figure, figure.subplots(), {"loc": "outside right upper"}, LEGEND - 8
    columns = max(1, int(width // 45))
    height = min(width, 0.62 * WIDTH) + 1.2 * LINE * -(-entries // columns) + 10
    figure = figures.new(width, height)
    return figure, figure.subplots(), {"loc": "outside lower center", "ncols": columns}, 37


@styled()
def roc_figure(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str], title: str, width: float = WIDTH
) -> Figure:
    """One-vs-rest ROC curves with AUC in the legend, and their macro average; of two classes one curve, the second's.

    Args:
        labels: ``[N]`` class indices; probabilities: ``[N, classes]``.
        classes: their names.
        title: of the picture, which is ``width`` mm wide.
    """
    both_sides = [index for index in range(len(classes)) if 0 < (labels == index).sum() < len(labels)]
    shown = [1] if both_sides == [0, 1] == [*range(len(classes))] else both_sides
    curves = {index: sk.roc_curve(labels == index, probabilities[:, index])[:2] for index in shown}
    auc = {index: sk.roc_auc_score(labels == index, probabilities[:, index]) for index in shown}
    ranking = sorted(auc, key=auc.__getitem__, reverse=True)
    named = ranking if len(auc) <= NAMED_CURVES else ranking[:3] + ranking[-3:]
    figure, axis, legend, room = panel(width, len(named) + 2)
    colors = class_colors(len(classes))
    for index, (false, true) in curves.items():
        if index in named:
            label = f"{shorten(classes[index], room - 22)} (AUC {auc[index]:.4f})"
            line = "-" if len(named) == len(auc) else DASHES[named.index(index) % len(DASHES)]
            axis.plot(false, true, line, color=colors[index], linewidth=1.4, label=label)
        else:
            axis.plot(false, true, color="0.75", linewidth=0.6, zorder=1)
    if len(auc) > 1:
        grid = np.linspace(0, 1, 201)
        mean = np.mean([np.interp(grid, *curve) for curve in curves.values()], axis=0)
        mean[0] = 0
        label = f"macro average (AUC {np.mean(list(auc.values())):.4f})"
        axis.plot(grid, mean, color="black", linewidth=1.8, linestyle="--", label=label)
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
    axis.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    more = f";\nbest and worst 3 of {len(classes)} named" if len(named) < len(auc) else ""
    if auc:
        figure.legend(**legend, title=f"one class against the rest{more}", alignment="left")
    axis.set_title(title)
    return figure


@styled()
def confusion_figure(confusion: Sequence[Sequence[int]], classes: list[str], title: str, width: float = WIDTH) -> Figure:
    """Counts of images by true (rows) and predicted class; the shade is the share of the row. It is ``width`` mm wide."""
    counts = np.asarray(confusion)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    names = [shorten(name, width / 5) for name in classes]
    longest = 1.5 * max(map(len, names))  # mm
    cell = (width - longest - 32) / len(names)
    turned = longest + 2 > cell  # where names do not fit side by side
    height = min(28 + max(LINE, 55 / len(names), min(cell, 16)) * len(names) + (longest if turned else 0), TALLEST)
    figure = figures.new(width, height)
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.spines[:].set_visible(True)
    row = (height - 28 - (longest if turned else 0)) / len(names)
    for places, room in ((axis.xaxis, cell), (axis.yaxis, row)):
        step = int(np.ceil(LINE * 0.8 / room))  # of more classes than there is room for, every n-th is named
        places.set_ticks(range(0, len(names), step), names[::step])
    if turned:
        axis.tick_params(axis="x", labelrotation=90)
    if len(classes) <= LARGEST_NUMBERED and 1.6 * len(str(counts.max())) + 1 <= cell:
        for (true, predicted), value in np.ndenumerate(counts):
            color = "white" if shares[true, predicted] > 0.6 else "black"
            axis.text(predicted, true, str(value), ha="center", va="center", color=color, fontsize=figures.SMALLEST)
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(image, ax=axis, label="share of the true class", aspect=30, pad=0.02)
    return figure


@styled()
def tsne_figure(features: np.ndarray, labels: np.ndarray, classes: list[str], title: str, width: float = WIDTH) -> Figure:
    """What the head reads, ``[N, D]``, laid out in the plane by t-SNE; a mark a class. It is ``width`` mm wide."""
    if len(labels) > LARGEST_TSNE:
        chosen = np.linspace(0, len(labels) - 1, LARGEST_TSNE).astype(int)
        features, labels = features[chosen], labels[chosen]
    perplexity = min(30.0, (len(labels) - 1) / 3)
    embedding = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    figure, axis, legend, room = panel(width, len(classes))
    for index, (name, color) in enumerate(zip(classes, class_colors(len(classes)), strict=True)):
        x, y = embedding[labels == index].T
        marker, label = MARKERS[index % len(MARKERS)], shorten(name, room)
        axis.scatter(x, y, s=8, color=color, marker=marker, label=label, linewidths=0, alpha=0.8)
    axis.set(xticks=[], yticks=[])
    axis.set_aspect("equal", "datalim")
    axis.spines[:].set_visible(True)
    axis.set_title(f"{title}\nt-SNE of {len(labels)} images, perplexity {perplexity:.3g}")
    figure.legend(**legend, markerscale=1.8)
    return figure


@styled()
def reliability_figure(calibration: dict, title: str, width: float = WIDTH) -> Figure:
    """Share of right predictions against confidence, with exact 95 % intervals, and below it the images of each bin.

    Args:
        calibration: of :func:`util.evaluation.calibration.calibration_metrics`.
        title: of the picture, which is ``width`` mm wide.
    """
    rows, bins = calibration["reliability"], calibration["bins"]
    confidence = [row["confidence"] for row in rows]
    accuracy = [row["accuracy"] for row in rows]
    reach = [[row["accuracy"] - row["interval"][0] for row in rows], [row["interval"][1] - row["accuracy"] for row in rows]]
    figure = figures.new(width, min(1.1 * width, 120))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", label="calibrated")
    upper.errorbar(
        confidence,
        accuracy,
        yerr=reach,
        fmt="o-",
        color=GREY,
        markersize=4,
        linewidth=1.4,
        elinewidth=0.8,
        label="measured, with 95 % interval",
    )
    error, brier = calibration["expected_calibration_error"], calibration["brier_score"]
    upper.set(ylabel="share of right predictions", xlim=(0, 1), ylim=(-0.02, 1.02))
    upper.legend(loc="best")
    upper.set_title(wrap(f"{title}\nexpected calibration error {100 * error:.2f} %, Brier score {brier:.4f}", width - 12))
    lower.bar(confidence, [row["images"] for row in rows], width=0.8 / bins, color=GREY)
    lower.set(xlabel=wrap(f"confidence: probability of the predicted class ({bins} bins)", width - 20), ylabel="images")
    return figure


def draw_pictures(
    folder: Path,
    model: nn.Module,
    images: Images,
    inference: Inference,
    source: str,
    results: dict,
    probabilities: Tensor,
    features: Tensor,
    *,
    width: float = WIDTH,
    formats: Sequence[str] = ("png",),
) -> list[str]:
    """Draw what ``--eval`` shows beside its metrics: ``roc``, ``confusion``, ``reliability``, ``tsne`` and ``attention``.

    Args:
        folder: to write in.
        images: of the set; inference: how they pass through the model.
        source: of the maps.
        results: the metrics with their ``calibration``; probabilities: ``[N, classes]``; features: ``[N, D]``.
        width: of each picture in millimetres; formats: of :data:`util.evaluation.page.FORMATS`.

    Returns:
        The names of the files.
    """
    labels, chances, classes = images.labels.numpy(), probabilities.numpy(), images.classes
    title = f"{images.split}: {len(images)} images, top-1 {100 * results['top1']:.2f} %"
    gallery = draw_gallery(model, images, inference, source, chances, title, width)
    if not distributed.is_main():
        return []
    drawn = {
        "roc": roc_figure(labels, chances, classes, title, width),
        "confusion": confusion_figure(results["confusion"], classes, title, width),
        "reliability": reliability_figure(results["calibration"], title, width),
        "attention": gallery,
    }
    if len(images) > 1:  # one image has no neighbours
        drawn["tsne"] = tsne_figure(features.numpy(), labels, classes, title, width)
    for name, suffix in product((*drawn, "tsne"), FORMATS):  # of an earlier evaluation here, in other formats too
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    return [file for name, figure in drawn.items() for file in save(figure, folder, name, formats)]
