"""Figures for a page: their width in millimetres, letters of any script, class colours, and the files that they become.

@styled()
def some_figure(names: list[str], width: float) -> Figure:
    figure = new(width, height=0.6 * width)
    ...

save(some_figure(names, WIDTH), folder, "some", ("png", "pdf"))   # some.png, some.pdf
"""

import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from textwrap import fill
from typing import Literal

from matplotlib import colormaps, rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, findSystemFonts, fontManager, get_font
from matplotlib.text import Text

from util.system.console import say
from util.system.files import replacing

PIXELS_PER_MM = 12  # 305 in an inch: of a PNG, and of images within PDF and SVG
SMALLEST = 7  # points, of letters
LINE = 3.4  # mm, from one line of the smallest letters to the next

STYLE = {
    **{"font.size": 8, "figure.titlesize": 9, "axes.titlesize": 8, "axes.labelsize": 8, "legend.title_fontsize": 7},
    **{"xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False},
    **{"axes.spines.top": False, "axes.spines.right": False},
    "text.parse_math": False,  # a class name may hold $
    **{"pdf.fonttype": 42, "svg.fonttype": "none"},  # text stays text, which an editor can search and change
    "svg.hashsalt": "msmae",  # the same figure gives the same file
}

# Okabe and Ito's colours, which colour-blind readers tell apart; black is kept for averages
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
MARKERS = "osD^vP*X"


def styled():
    """The context in which figures are drawn; as ``@styled()`` it is around a function."""
    return rc_context(STYLE)


def new(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure of ``width`` x ``height`` millimetres, laid out so that nothing overlaps.

    ``layout`` is None where all is put in its place by :func:`axes_at` and :func:`write`.
    """
    # on a screen, as in TensorBoard, half the pixels of a file
    return Figure(figsize=(width / 25.4, height / 25.4), dpi=PIXELS_PER_MM * 25.4 / 2, layout=layout)


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """An empty frame for an image at a place given in millimetres from the figure's upper left corner."""
    whole_width, whole_height = (25.4 * inches for inches in figure.get_size_inches())
    bottom = whole_height - top - height
    axes = figure.add_axes((left / whole_width, bottom / whole_height, width / whole_width, height / whole_height))
    axes.set_axis_off()
    return axes


def write(figure: Figure, left: float, top: float, text: str, **style) -> None:
    """Write text at a place given in millimetres from the figure's upper left corner, which its own upper left has."""
    whole_width, whole_height = (25.4 * inches for inches in figure.get_size_inches())
    figure.text(left / whole_width, 1 - top / whole_height, text, **{"va": "top", "fontsize": SMALLEST, **style})


def class_colors(classes: int) -> list:
    """A colour for each class, by its index, the same in all pictures."""
    if classes <= len(COLORS):
        return list(COLORS[:classes])
    golden = 0.618034  # steps of this length around the colours keep neighbours apart
    return [colormaps["turbo"](0.05 + 0.9 * (index * golden % 1)) for index in range(classes)]


def shorten(text: str, width: float) -> str:
    """A name that fits in ``width`` millimetres at 7 points, its middle left out where it is longer.

    A name written from right to left is set apart, so that what stands behind it stays there.
    """
    if any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text):
        mark = "\u200e"  # left-to-right mark, which is not drawn
        return text if text.startswith(mark) else f"{mark}{shorten_plainly(text, width)}{mark}"
    return shorten_plainly(text, width)


def shorten_plainly(text: str, width: float) -> str:
    room = int(width / 1.55)
    wide = [2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text]
    if sum(wide) <= room:
        return text
    head = tail = ""
    while sum(wide[: len(head) + 1]) + sum(wide[len(text) - len(tail) :]) < room - 1:
        head = text[: len(head) + 1]
        if sum(wide[: len(head)]) + sum(wide[len(text) - len(tail) - 1 :]) < room - 1:
            tail = text[len(text) - len(tail) - 1 :]
    return f"{head}…{tail}"


def wrap(text: str, width: float) -> str:
    """Text of 8 points in lines of at most ``width`` millimetres."""
    return "\n".join(fill(line, int(width / 1.5)) for line in text.split("\n"))


def save(figure: Figure, folder: Path, name: str, formats: Iterable[str] = ("png",)) -> list[str]:
    """Write a figure as ``folder/NAME.FORMAT`` in each of ``formats``; return the files' names.

    Letters that the font lacks are taken from installed fonts; where none has them, a note says so.
    """
    written = []
    with styled(), warnings.catch_warnings():
        borrow_letters(figure)
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # said better by borrow_letters
        for each in dict.fromkeys(formats):
            dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}  # left out: the same figure, the same file
            with replacing(folder / f"{name}.{each}") as temporary:
                figure.savefig(temporary, format=each, dpi=PIXELS_PER_MM * 25.4, metadata=dates.get(each))
            written.append(f"{name}.{each}")
    return written


def borrow_letters(figure: Figure) -> None:
    """Give each text of a figure the installed fonts that have the letters which its own font lacks."""
    for axes in figure.axes:
        if axes.axison:
            axes.get_xticklabels(), axes.get_yticklabels()  # which brings their texts
    for text in drawn_texts(figure):
        lacking = frozenset(text.get_text()) - letters_of(findfont(text.get_fontproperties()))
        if lacking := frozenset(letter for letter in lacking if letter.isprintable() and not letter.isspace()):
            text.set_fontweight("normal")  # which every font has
            text.set_fontfamily(list(dict.fromkeys([*text.get_fontfamily(), *fonts_with(lacking)])))


def drawn_texts(artist: Artist) -> Iterator[Text]:
    """All texts of a figure or a part of it; not those of axes that are off, which would be made first, at a great cost."""
    if isinstance(artist, Axis) and not artist.axes.axison:
        return
    if isinstance(artist, Text):
        yield artist
    for part in artist.get_children():
        yield from drawn_texts(part)


@lru_cache(maxsize=64)
def letters_of(path: str) -> frozenset[str]:
    """The letters that a font file draws; none where it cannot be read."""
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (RuntimeError, OSError):
        return frozenset()


@lru_cache
def fonts_with(letters: frozenset[str]) -> Sequence[str]:
    """Names of installed fonts, as few as do, that draw ``letters``; says which letters none draws."""

    def preference(path: str) -> tuple:
        name = Path(path).stem.lower()
        ornate = any(word in name for word in ("bold", "italic", "oblique", "black", "light", "thin", "mono", "emoji"))
        return ornate, "sans" not in name, name

    chosen: list[str] = []
    paths = sorted(findSystemFonts(), key=preference)
    while letters:
        path = next((path for path in paths if letters <= letters_of(path)), None)  # one for all, else one for most
        path = path or max(paths, key=lambda path: len(letters & letters_of(path)), default="")
        if not path or not letters & letters_of(path):
            say(f"note: no font here has the letters {' '.join(sorted(letters))}; pictures show boxes in their place. "
                "Install a font that has them, such as Noto Sans")  # fmt: skip
            break
        fontManager.addfont(path)
        chosen.append(get_font(path).family_name)
        letters -= letters_of(path)
    return tuple(chosen)
