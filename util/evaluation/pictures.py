"""Pictures of an evaluation: ROC curves, confusion matrix, reliability, features by t-SNE, and what it looked at."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn import metrics as sk
from sklearn.manifold import TSNE
from torch import Tensor, nn

from util.data.images import Images
from util.data.inference import Inference
from util.data.loading import resize_whole
from util.maps import sources
from util.system import distributed

# Okabe and Ito's colours, which colour-blind readers tell apart; black is kept for the average
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
MARKERS = "osD^vP*X"
NAMED_CURVES = len(COLORS)  # with more classes, only the best and the worst are named
LARGEST_NUMBERED = 20  # classes, beyond which a confusion matrix has no room for numbers
LARGEST_TSNE = 2000  # images, spread over the set: t-SNE takes minutes beyond


def roc_figure(labels: np.ndarray, probabilities: np.ndarray, classes: list[str], title: str) -> Figure:
    """One-vs-rest ROC curves with AUC in the legend, and their macro average; of two classes one curve, the second's.

    Args:
        labels: ``[N]`` class indices; probabilities: ``[N, classes]``.
        classes: their names.
        title: of the picture.
    """
    both_sides = [index for index in range(len(classes)) if 0 < (labels == index).sum() < len(labels)]
    shown = [1] if both_sides == [0, 1] == [*range(len(classes))] else both_sides
    curves = {index: sk.roc_curve(labels == index, probabilities[:, index])[:2] for index in shown}
    auc = {index: sk.roc_auc_score(labels == index, probabilities[:, index]) for index in shown}
    figure = Figure(figsize=(5.4, 5.2), dpi=150, layout="constrained")
    axis = figure.subplots()
    ranking = sorted(auc, key=auc.__getitem__, reverse=True)
    named = ranking if len(auc) <= NAMED_CURVES else ranking[:3] + ranking[-3:]
    for index, (false, true) in curves.items():
        if index in named:
            color = COLORS[named.index(index)]
            axis.plot(false, true, color=color, linewidth=1.6, label=f"{classes[index]} (AUC {auc[index]:.4f})")
        else:
            axis.plot(false, true, color="0.75", linewidth=0.7, zorder=1)
    if len(auc) > 1:
        grid = np.linspace(0, 1, 201)
        mean = np.mean([np.interp(grid, *curve) for curve in curves.values()], axis=0)
        mean[0] = 0
        label = f"macro average (AUC {np.mean(list(auc.values())):.4f})"
        axis.plot(grid, mean, color="black", linewidth=2.2, linestyle="--", label=label)
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
    axis.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    more = f" (best and worst 3 of {len(classes)} named)" if len(named) < len(auc) else ""
    axis.legend(loc="lower right", fontsize=8, title=f"one class against the rest{more}", title_fontsize=7)
    axis.set_title(title, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def confusion_figure(confusion: Sequence[Sequence[int]], classes: list[str], title: str) -> Figure:
    """Counts of images by true (rows) and predicted class; the shade is the share of the row."""
    counts = np.asarray(confusion)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    side = min(9.0, 2.6 + 0.55 * len(classes))
    figure = Figure(figsize=(side + 0.8, side), dpi=150, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 8 if len(classes) <= 12 else 5
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axis.set_yticks(range(len(classes)), classes, fontsize=size)
    if len(classes) <= LARGEST_NUMBERED:
        for (row, column), value in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(value), ha="center", va="center", color=color, fontsize=size)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.set_title(title, fontsize=8)
    figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.8)
    return figure


def tsne_figure(features: np.ndarray, labels: np.ndarray, classes: list[str], title: str) -> Figure:
    """What the head reads, ``[N, D]``, laid out in the plane by t-SNE; a mark a class."""
    if len(labels) > LARGEST_TSNE:
        chosen = np.linspace(0, len(labels) - 1, LARGEST_TSNE).astype(int)
        features, labels = features[chosen], labels[chosen]
    perplexity = min(30.0, (len(labels) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    figure = Figure(figsize=(6.2, 5), dpi=150, layout="constrained")
    axis = figure.subplots()
    many = colormaps["turbo"](np.linspace(0.05, 0.95, len(classes)))
    for index, name in enumerate(classes):
        color = COLORS[index] if len(classes) <= len(COLORS) else many[index]
        x, y = places[labels == index].T
        axis.scatter(x, y, s=10, color=color, marker=MARKERS[index % len(MARKERS)], label=name, linewidths=0, alpha=0.8)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(f"{title}\nt-SNE of {len(labels)} images, perplexity {perplexity:.3g}", fontsize=8)
    columns = math.ceil(len(classes) / 22)
    figure.legend(loc="outside right center", fontsize=7, markerscale=1.8, frameon=False, ncols=columns)
    return figure


def gallery_cases(labels: np.ndarray, probabilities: np.ndarray, each: int = 6) -> dict[str, list[int]]:
    """Which images to show: the surest that are right, the least sure, and the mistakes, the surest first."""
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    order = sure.argsort()[::-1]
    return {
        "most certain, right": [int(index) for index in order if right[index]][:each],
        "least certain": [int(index) for index in order[::-1]][:each],
        "mistakes, most certain first": [int(index) for index in order if not right[index]][:each],
    }


def draw_attention(axis: Axes, image: Tensor, attention: Tensor) -> None:
    """An image ``[3, H, W]`` in [0, 1] as greyscale with its map ``[gh, gw]`` in [0, 1] over it."""
    side = image.shape[-1]
    axis.imshow(image.mean(0).numpy(), cmap="gray", extent=(0, side, side, 0), vmin=0, vmax=1)
    heat = colormaps["magma"](attention.numpy())[..., :3]
    axis.imshow(heat, alpha=0.6, extent=(0, side, side, 0), interpolation="bilinear")


def gallery_figure(
    cases: dict[str, list[int]],
    images: dict[int, Tensor],
    maps: dict[int, Tensor],
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: list[str],
    title: str,
) -> Figure:
    """Images and their maps, a pair of rows for each kind of case, with true class, prediction and its probability.

    Args:
        cases: image indices by kind, from :func:`gallery_cases`; kinds without one are left out.
        images: ``[3, S, S]`` in [0, 1] by index; maps: ``[gh, gw]`` in [0, 1] by index.
        labels: ``[N]``; probabilities: ``[N, classes]``; classes: names.
        title: of the picture.
    """
    cases = {kind: indices for kind, indices in cases.items() if indices}
    columns = max(len(indices) for indices in cases.values())
    figure = Figure(figsize=(1.5 * columns + 0.2, 3.75 * len(cases) + 0.4), dpi=130, layout="constrained")
    figure.suptitle(title, fontsize=8)
    for part, (kind, indices) in zip(figure.subfigures(len(cases), 1, squeeze=False).flat, cases.items(), strict=True):
        part.suptitle(kind, fontsize=9)
        axes = part.subplots(2, columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for (above, below), index in zip(axes.T, indices, strict=False):
            above.imshow(images[index].permute(1, 2, 0).numpy())
            draw_attention(below, images[index], maps[index])
            guess = int(probabilities[index].argmax())
            said = f"{'says' if guess == labels[index] else 'taken for'} {classes[guess]}"
            above.set_title(f"{classes[labels[index]]}\n{said} {100 * probabilities[index, guess]:.0f} %", fontsize=6.5)
    return figure


def reliability_figure(calibration: dict, title: str) -> Figure:
    """Share of right predictions against confidence, with exact 95 % intervals, and below it the images of each bin.

    Args:
        calibration: of :func:`util.evaluation.calibration.calibration_metrics`.
        title: of the picture.
    """
    rows, bins = calibration["reliability"], calibration["bins"]
    confidence = [row["confidence"] for row in rows]
    accuracy = [row["accuracy"] for row in rows]
    reach = [[row["accuracy"] - row["interval"][0] for row in rows], [row["interval"][1] - row["accuracy"] for row in rows]]
    figure = Figure(figsize=(5.0, 5.6), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", label="calibrated")
    upper.errorbar(confidence, accuracy, yerr=reach, fmt="o-", color=COLORS[0], markersize=4, linewidth=1.4, elinewidth=0.8)
    error, brier = calibration["expected_calibration_error"], calibration["brier_score"]
    upper.set(ylabel="share of right predictions", xlim=(0, 1), ylim=(0, 1))
    upper.legend(loc="lower right", fontsize=8, frameon=False)
    upper.set_title(f"{title}\nexpected calibration error {100 * error:.2f} %, Brier score {brier:.4f}", fontsize=8)
    lower.bar(confidence, [row["images"] for row in rows], width=0.8 / bins, color=COLORS[0])
    lower.set(xlabel=f"confidence: probability of the predicted class ({bins} bins)", ylabel="images")
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
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
    title: str,
) -> None:
    """Draw what ``--eval`` shows beside its metrics: ``roc.png``, ``confusion.png``, ``reliability.png``, ``tsne.png``
    and ``attention.png``.

    Args:
        folder: to write in.
        images: of the set; inference: how they pass through the model.
        source: of the maps.
        results: the metrics with their ``calibration``; probabilities: ``[N, classes]``; features: ``[N, D]``.
        title: of each picture.
    """
    labels, chances, classes = images.labels.numpy(), probabilities.numpy(), images.classes
    cases = gallery_cases(labels, chances)
    chosen = sorted({index for indices in cases.values() for index in indices})
    maps = dict(zip(chosen, sources.maps(model, images, inference, source, chosen), strict=True))
    if not distributed.is_main():
        return
    pixels = {index: resize_whole(images[index], inference.input_size) / 255 for index in chosen}
    drawn = {
        "roc": roc_figure(labels, chances, classes, title),
        "confusion": confusion_figure(results["confusion"], classes, title),
        "reliability": reliability_figure(results["calibration"], title),
        "tsne": tsne_figure(features.numpy(), labels, classes, title),
        "attention": gallery_figure(cases, pixels, maps, labels, chances, classes, f"{title}, map: {source}"),
    }
    for name, figure in drawn.items():
        figure.savefig(folder / f"{name}.png")
