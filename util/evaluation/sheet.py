"""A sheet: several pictures of each of several images in a row, with a caption at its left."""

from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from util.evaluation import figure as figures
from util.evaluation.figure import axes_at, shorten, write
from util.evaluation.page import TALLEST

CAPTION, LEAST_CAPTION = 25.0, 18.0  # mm
GAP = 1.5  # mm between pictures
SMALLEST_PICTURE = 19.0  # mm, beside another image's pictures: 228 pixels
HEAD = 11.0  # mm: the title, and what the columns show


@figures.styled()
def sheet(
    columns: Sequence[str], captions: Sequence[Sequence[str]], title: str, width: float, foot: float, aspect: float = 1.0
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of ``width`` mm and its empty frames, a list for each image.

    Where there is room, the pictures of two images or more stand side by side. What would not fit on a page gets smaller.

    Args:
        columns: what they show.
        captions: lines for each image; long ones are shortened.
        title: of the sheet.
        foot: mm to leave free at the bottom.
        aspect: height of a picture relative to its width.
    """
    room = min(CAPTION, max(LEAST_CAPTION, width / 5))
    beside = max(1, int(width // (room + len(columns) * (SMALLEST_PICTURE + GAP))))
    beside = min(beside, len(captions))
    lines = -(-len(captions) // beside)
    each = width / beside
    side = (each - room) / len(columns) - GAP
    tallest = (TALLEST - HEAD - foot) / lines - GAP
    side = min(side, tallest / aspect)
    left = room + (each - room - len(columns) * (side + GAP)) / 2  # in the middle where it is narrower
    figure = figures.new(width, HEAD + lines * (side * aspect + GAP) + foot, layout=None)
    write(figure, 0, 1, title, fontsize=9)
    frames = []
    for index, caption in enumerate(captions):
        start, top = index % beside * each, HEAD + index // beside * (side * aspect + GAP)
        text = "\n".join(shorten(line, left - 3) for line in caption)
        write(figure, start + left - 2, top, text, ha="right", linespacing=1.3)
        lefts = [start + left + column * (side + GAP) for column in range(len(columns))]
        frames.append([axes_at(figure, x, top, side, side * aspect) for x in lefts])
        if index < beside:
            for name, x in zip(columns, lefts, strict=True):
                wrapped = fill(name, int(side / 1.35), break_long_words=False)
                write(figure, x + side / 2, HEAD - 1, wrapped, ha="center", va="bottom")
    return figure, frames
