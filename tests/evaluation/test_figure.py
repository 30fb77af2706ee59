"""Pictures for print: their size on paper, letters that can be read and stay letters, one scale, one colour a class."""

import re

import numpy as np
import pytest
import torch
from matplotlib import get_data_path, rc_context
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from util.evaluation import figure as figures
from util.evaluation import painting, pictures
from util.evaluation.calibration import calibration_metrics
from util.evaluation.gallery import arrange, gallery_cases, gallery_figure
from util.evaluation.metrics import classification_metrics
from util.evaluation.seen import Seen, preview_sheet
from util.masking import SAM

DEJAVU = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
NAMES = [
    ["ring", "none"],
    ["NORMAL", "سليم", "Менингиома", "pneumonia, bacterial or viral, of an origin that nobody knows"],
    [f"class {n}" for n in range(12)],
]


def made_up(classes, images=200):
    rng = np.random.default_rng(0)
    labels = np.arange(images) % classes
    scores = rng.random((images, classes)) + 1.5 * rng.random((images, 1)) * np.eye(classes)[labels]
    return labels, scores / scores.sum(1, keepdims=True)


def gallery(labels, probabilities, names, width):
    cases = gallery_cases(labels, probabilities)
    shown = {image for case in cases for image in case.all()}
    images = {image: torch.rand(3, 32, 32) for image in shown}
    maps = {image: 0.1 + 0.5 * torch.rand(4, 4) for image in shown}
    return gallery_figure(cases, images, maps, probabilities, names, "test: 200 images", width)


def preview(names, width, rebuilt):
    images, maps = torch.rand(6, 3, 32, 32), torch.rand(6, 4, 4)
    seen = Seen(images, maps, SAM().example(maps.flatten(1)), torch.rand(6, 7, 192) if rebuilt else None)
    return preview_sheet(seen, [(name, "taken for", name, "37 %") for name in 6 * names][:6], "epoch 3", width=width)


def all_pictures(names, width):
    labels, probabilities = made_up(len(names))
    confusion = classification_metrics(labels, probabilities, names)["confusion"]
    title = "test: 200 images, top-1 83.50 %"
    return {
        "roc": pictures.roc_figure(labels, probabilities, names, title, width),
        "confusion": pictures.confusion_figure(confusion, names, title, width),
        "reliability": pictures.reliability_figure(calibration_metrics(labels, probabilities), title, width),
        "tsne": pictures.tsne_figure(probabilities, labels, names, title, width),
        "attention": gallery(labels, probabilities, names, width),
        "pretraining": preview(names, width, rebuilt=True),
        "finetuning": preview(names, width, rebuilt=False),
    }


@pytest.mark.parametrize(("names", "width"), [(NAMES[0], 85), (NAMES[1], 85), (NAMES[1], 180), (NAMES[2], 180)])
def test_letters_are_large_enough_and_inside(names, width, monkeypatch):
    drawn, draw = [], Text.draw
    monkeypatch.setattr(Text, "draw", lambda text, renderer: (drawn.append(text), draw(text, renderer)))
    for kind, figure in all_pictures(names, width).items():
        drawn.clear()
        figure.draw_without_rendering()
        assert figure.get_figwidth() == pytest.approx(width / 25.4) and len(drawn) > 5
        millimetre = figure.dpi / 25.4
        for text in filter(Text.get_text, drawn):
            assert text.get_fontsize() >= 7, (kind, text)
            box = text.get_window_extent()
            assert box.x0 > -millimetre and box.x1 < figure.bbox.x1 + millimetre, (kind, text)
            assert box.y0 > -millimetre and box.y1 < figure.bbox.y1 + millimetre, (kind, text)


def test_size_on_paper_and_text_as_text(tmp_path):
    labels, probabilities = made_up(4)
    figure = pictures.roc_figure(labels, probabilities, ["a$1$", "b", "c", "d"], "title", width=120)
    assert figures.save(figure, tmp_path, "roc", ("png", "pdf", "svg")) == ["roc.png", "roc.pdf", "roc.svg"]
    pdf, svg = (tmp_path / "roc.pdf").read_bytes(), (tmp_path / "roc.svg").read_text()
    points = float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", pdf)[1])
    assert points * 25.4 / 72 == pytest.approx(120, abs=0.1)
    assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) * 25.4 / 72 == pytest.approx(120, abs=0.1)
    with Image.open(tmp_path / "roc.png") as png:
        assert png.width == 120 * figures.PIXELS_PER_MM and png.width / 120 * 25.4 >= 300
    assert b"/Type3" not in pdf and b"/CIDFontType2" in pdf  # TrueType, not outlines
    assert ">sensitivity</text>" in svg and ">a$1$ (AUC" in svg
    first = [(tmp_path / name).read_bytes() for name in ("roc.pdf", "roc.svg")]
    again = pictures.roc_figure(labels, probabilities, ["a$1$", "b", "c", "d"], "title", width=120)
    figures.save(again, tmp_path, "roc", ("png", "pdf", "svg"))
    assert [(tmp_path / name).read_bytes() for name in ("roc.pdf", "roc.svg")] == first
    assert not list(tmp_path.glob(".*"))


def test_letters_are_borrowed_from_installed_fonts(monkeypatch, tmp_path, capsys):
    figures.fonts_with.cache_clear()
    monkeypatch.setattr(figures, "findSystemFonts", lambda: [DEJAVU])
    with rc_context({"font.family": ["cmr10"]}):  # which has no Cyrillic
        figure = figures.new(100, 50)
        russian, latin = figure.text(0, 0, "Менингиома"), figure.text(0, 0.5, "ring")
        figures.save(figure, tmp_path, "named")
    assert russian.get_fontfamily() == ["cmr10", "DejaVu Sans"] and latin.get_fontfamily() == ["cmr10"]
    assert not capsys.readouterr().out


def test_letters_are_borrowed_for_what_is_drawn():
    """The titles of a frame without axes are; its ticks are not, and making them takes longer than the picture."""
    figure = figures.new(100, 50, layout=None)
    figure.add_axes((0, 0, 0.4, 0.4)).set_xticks([0.5], ["tick"])
    frame = figures.axes_at(figure, 50, 10, 20, 20)
    frame.set_title("title")
    figure.text(0, 0, "written")
    figures.borrow_letters(figure)
    assert {"tick", "title", "written"} <= {text.get_text() for text in figures.drawn_texts(figure)}
    assert sorted(text.get_text() for text in figures.drawn_texts(frame)) == ["", "", "title"]  # left, right, centre


def test_letters_that_no_font_has_are_named_once(monkeypatch, tmp_path, capsys, recwarn):
    figures.fonts_with.cache_clear()
    monkeypatch.setattr(figures, "findSystemFonts", lambda: [])
    figure = figures.new(100, 50)
    figure.subplots().set_xticks([0, 1], ["脑", "ring"])
    figures.save(figure, tmp_path, "named", ("png", "pdf"))
    assert re.fullmatch(r"note: no font here has the letters 脑; .* Install .*\n", capsys.readouterr().out)
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    figures.fonts_with.cache_clear()


@pytest.mark.parametrize("width", [10, 20, 40])
def test_long_names_are_shortened_in_the_middle(width):
    for name in ("pneumonia of unknown origin, bacterial or viral", "脑膜瘤" * 9, "short"):
        short = figures.shorten(name, width)
        cells = len(short) + sum("一" <= letter <= "鿿" for letter in short)
        assert cells * 1.55 <= width + 1e-9 or short == name
        head, dots, tail = short.partition("…")
        assert (short == name) if not dots else name.startswith(head) and name.endswith(tail) and head and tail
    assert figures.shorten("سليم", 40).strip("\u200e") == "سليم"


@pytest.mark.parametrize("classes", [2, 4, 12])
def test_a_class_has_one_colour(classes):
    names = [f"class {n}" for n in range(classes)]
    labels, probabilities = made_up(classes)
    roc = pictures.roc_figure(labels, probabilities, names, "title").axes[0].lines
    tsne = pictures.tsne_figure(probabilities, labels, names, "title").axes[0].collections
    dots = {each.get_label(): tuple(each.get_facecolor()[0][:3]) for each in tsne}
    assert len(set(dots.values())) == classes
    curves = {line.get_label().split(" (")[0]: line.get_color() for line in roc if "class" in line.get_label()}
    for name, color in curves.items():
        assert to_rgb(color) == pytest.approx(dots[name], abs=1e-6)


@pytest.mark.parametrize(("classes", "width"), [(2, 180), (4, 180), (4, 85), (12, 180)])
def test_gallery_shows_the_surest_of_every_class_on_one_scale(classes, width):
    names = [f"class {n}" for n in range(classes)]
    labels, probabilities = made_up(classes)
    figure = gallery(labels, probabilities, names, width)
    shown = [text.get_text() for text in figure.findobj(Text)]
    assert set(names) <= set(shown)
    each, _, side = arrange(classes, width)
    assert side * figures.PIXELS_PER_MM >= 224 and each >= (1 if classes == 12 else 2)
    drawn = [image for axes in figure.axes for image in axes.images]
    maps = [image for image in drawn if image.get_cmap().name == painting.COLORMAP]
    cases = gallery_cases(labels, probabilities, each)
    assert len(maps) == sum(len(case.all()) for case in cases)
    assert {image.get_clim() for image in maps} == {(0, 1)}
    bars = [axes for axes in figure.axes if axes.axison]
    assert len(bars) == 1 and bars[0].get_xlim() == (0, 1)
    for index, case in enumerate(cases):
        guesses, own = probabilities.argmax(1), np.flatnonzero(labels == index)
        assert case.counts == ((guesses[own] == index).sum(), (guesses[own] != index).sum())
        for chosen, right in ((case.right, True), (case.wrong, False)):
            others = [image for image in own if (guesses[image] == index) == right and image not in chosen]
            assert all(labels[image] == index and (guesses[image] == index) == right for image in chosen)
            sure = probabilities.max(1)
            assert not others or (len(chosen) == each and sure[chosen].min() >= sure[others].max())


def test_a_class_without_mistakes_says_so():
    labels, probabilities = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    figure = gallery(labels, probabilities, ["a", "b", "c"][:2], 180)
    shown = [text.get_text() for text in figure.findobj(Text)]
    assert "none wrong" in shown and shown.count("1 right") == 2 and "1 wrong" in shown


def test_thrown_patches_look_like_nothing_else():
    """Striped in the reconstruction, striped and see-through in the decision; masked ones tinted; the rest untouched."""
    image, maps, prediction = torch.rand(16, 16, 3), torch.rand(1, 4, 4), torch.rand(7, 48)
    split = SAM().example(maps.flatten(1))
    seen, decision = painting.rebuilt(image, split, 0, prediction), painting.decided(image, split, 0, 4)
    look = painting.stripes(4)
    assert {tuple(pixel) for pixel in look.flatten(0, 1).tolist()} == {
        tuple(torch.tensor(painting.THROWN).tolist()),
        (1, 1, 1),
    }
    for patch in range(16):
        area = (slice(patch // 4 * 4, patch // 4 * 4 + 4), slice(patch % 4 * 4, patch % 4 * 4 + 4))
        if patch in split.thrown:
            assert torch.equal(seen[area], look)
            torch.testing.assert_close(decision[area], 0.45 * image[area] + 0.55 * look)
        elif patch in split.masked:
            place = split.masked[0].tolist().index(patch)
            assert torch.equal(seen[area], prediction[place].view(4, 4, 3))
            torch.testing.assert_close(decision[area], 0.45 * image[area] + 0.55 * torch.tensor(painting.MASKED))
        else:
            assert torch.equal(seen[area], image[area]) and torch.equal(decision[area], image[area])
    figure = preview(["a", "b"], 180, rebuilt=True)
    (legend,) = figure.legends
    hatched = [patch.get_hatch() for patch in legend.get_patches()]
    told = [text.get_text() for text in legend.get_texts()]
    assert [bool(hatch) for hatch in hatched] == ["thrown" in text for text in told] == [False, True, False]
