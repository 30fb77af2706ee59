"""What an evaluation looked at: the surest right and the surest wrong images of every class, with their maps."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

from util.data.images import Images
from util.data.inference import Inference
from util.data.loading import resize_whole
from util.evaluation import figure as figures
from util.evaluation.figure import LINE, PIXELS_PER_MM, axes_at, shorten, wrap, write
from util.evaluation.page import TALLEST, WIDTH
from util.evaluation.painting import draw_attention, draw_scale
from util.maps import sources

PIXELS = 224  # at least, of each picture
SIDE = PIXELS / PIXELS_PER_MM + 0.4  # mm, at least
GAP, BLOCK_GAP = 1.0, 5.0  # mm, between pictures and between classes
ABOVE, BETWEEN = 4 * LINE + 2, 3.0  # mm, the lines above a class's pictures; from one line of classes to the next
HEAD, FOOT = 10.0, 9.0  # mm: the title, the colour bar
MOST = 4  # right and wrong images of a class


@dataclass(frozen=True)
class Cases:
    """The images of one class to show, as indices, the surest first."""

    right: list[int]
    wrong: list[int]
    counts: tuple[int, int]  # all images of the class that are right, and that are wrong

    def all(self) -> list[int]:
        return self.right + self.wrong


def gallery_cases(labels: np.ndarray, probabilities: np.ndarray, each: int = MOST) -> list[Cases]:
    """For each class the ``each`` surest right and wrong images; ``labels`` ``[N]``, ``probabilities`` ``[N, classes]``."""
    order = probabilities.max(1).argsort(kind="stable")[::-1]
    right = probabilities.argmax(1) == labels
    cases = []
    for index in range(probabilities.shape[1]):
        of_class = [int(image) for image in order if labels[image] == index]
        good, bad = ([image for image in of_class if right[image] == wanted] for wanted in (True, False))
        cases.append(Cases(good[:each], bad[:each], (len(good), len(bad))))
    return cases


def arrange(classes: int, width: float) -> tuple[int, int, float]:
    """How a gallery of ``width`` mm fits on a page.

    Returns:
        How many right (and wrong) images of a class it has room for, how many classes stand side by side, and the side of a
        picture in millimetres. With too many classes for a page the gallery is longer.
    """
    fitting: list[tuple[float, int, int, float]] = []
    others: list[tuple[float, int, int, float]] = []
    for each in range(1, MOST + 1):
        beside = min(classes, int((width + BLOCK_GAP) // (2 * each * (SIDE + GAP) + BLOCK_GAP)))
        if beside:
            side = min(((width + BLOCK_GAP) / beside - BLOCK_GAP) / (2 * each) - GAP, 1.5 * SIDE)
            height = HEAD + FOOT + -(-classes // beside) * (ABOVE + 2 * side + GAP + BETWEEN)
            (fitting if height <= TALLEST else others).append((height, each, beside, side))
    _, each, beside, side = fitting[-1] if fitting else min(others)
    return each, beside, side


@figures.styled()
def gallery_figure(
    cases: list[Cases],
    images: dict[int, Tensor],
    maps: dict[int, Tensor],
    probabilities: np.ndarray,
    classes: list[str],
    title: str,
    width: float = WIDTH,
) -> Figure:
    """A block for each class: its surest right images, then its surest wrong ones, each above its map.

    Args:
        cases: of :func:`gallery_cases`; as many are shown as fit.
        images: ``[3, H, W]`` in [0, 1] by index; maps: ``[gh, gw]`` in [0, 1] by index.
        probabilities: ``[N, classes]``; classes: names.
        title: of the picture, which is ``width`` mm wide.
    """
    each, beside, side = arrange(len(classes), width)
    block, line = 2 * each * (side + GAP) + BLOCK_GAP, ABOVE + 2 * side + GAP + BETWEEN
    figure = figures.new(width, HEAD + -(-len(classes) // beside) * line + FOOT, layout=None)
    write(figure, 0, 1, wrap(title, width), fontsize=8)
    for index, (name, shown) in enumerate(zip(classes, cases, strict=True)):
        left, top = index % beside * block, HEAD + index // beside * line
        write(figure, left, top, shorten(name, 0.75 * (block - BLOCK_GAP)), fontsize=8, weight="bold")
        halves = (("right", shown.right), ("wrong", shown.wrong))
        for half, ((kind, chosen), count) in enumerate(zip(halves, shown.counts, strict=True)):
            start = left + half * each * (side + GAP)
            write(figure, start, top + LINE + 1, f"{count or 'none'} {kind}", color="0.35")
            for column, image in enumerate(chosen[:each]):
                x, guess = start + column * (side + GAP), int(probabilities[image].argmax())
                said = f"{shorten(classes[guess], side)}\n{100 * probabilities[image, guess]:.0f} %"
                write(figure, x, top + 2 * LINE + 1.2, said)
                above, below = (axes_at(figure, x, top + ABOVE + y, side, side) for y in (0, side + GAP))
                above.imshow(images[image].permute(1, 2, 0).numpy())
                draw_attention(below, images[image], maps[image])
    foot = figure.get_figheight() * 25.4 - FOOT + 1
    more = ". Above each image: predicted class, its probability" if width > 140 else ""
    draw_scale(figure, 0, foot, f"weight in the map{more}")
    return figure


def draw_gallery(
    model: nn.Module,
    images: Images,
    inference: Inference,
    source: str,
    probabilities: np.ndarray,
    title: str,
    width: float,
) -> Figure:
    """The gallery of a set of images, its maps from ``source``; the model is used, in all processes."""
    each, *_ = arrange(len(images.classes), width)
    cases = gallery_cases(images.labels.numpy(), probabilities, each)
    chosen = sorted(image for shown in cases for image in shown.all())
    maps = dict(zip(chosen, sources.maps(model, images, inference, source, chosen), strict=True))
    size = max(PIXELS, inference.input_size)
    pixels = {index: resize_whole(images[index], size) / 255 for index in chosen}
    title = f"{title}\nthe surest right and the surest wrong images of each class; maps: {source}"
    return gallery_figure(cases, pixels, maps, probabilities, images.classes, title, width)
