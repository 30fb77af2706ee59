"""What the model predicts, as pictures: a contact sheet from the best to the worst case, and the masks themselves."""

from contextlib import suppress
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from torch import Tensor

from segmentation.data import Pairs, apply, resize
from util.data.tables import read_table
from util.evaluation.figure import styled
from util.evaluation.page import FORMATS, WIDTH
from util.evaluation.sheet import sheet
from util.system.errors import InputError

# Colours that colour-blind readers tell apart
TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE = (0.0, 0.62, 0.45), (0.90, 0.62, 0.0), (0.0, 0.45, 0.70)
EACH = 3  # best, median and worst images on the sheet


def cases(iou: Tensor) -> list[int]:
    """The images to show: the best, the median and the worst :data:`EACH`, by IoU, best first."""
    order = iou.argsort(descending=True).tolist()
    if len(order) <= 3 * EACH:
        return order
    middle = (len(order) - EACH) // 2
    return order[:EACH] + order[middle : middle + EACH] + order[-EACH:]


def overlay(image: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """An image ``[H, W, 3]`` in [0, 1] with true positive, false negative and false positive pixels tinted."""
    picture = image.clone()
    parts = (
        (predicted & true, TRUE_POSITIVE),
        (true & ~predicted, FALSE_NEGATIVE),
        (predicted & ~true, FALSE_POSITIVE),
    )
    for part, colour in parts:
        picture[part] = 0.5 * picture[part] + 0.5 * picture.new_tensor(colour)
    return picture


@styled()
def contact_sheet(pairs: Pairs, predicted: Tensor, true: Tensor, iou: Tensor, title: str, width: float = WIDTH) -> Figure:
    """Image, truth, prediction and overlay of the cases of :func:`cases`, best first; several classes are drawn as one.

    Args:
        pairs: of the set.
        predicted, true: ``[N, classes, h, w]`` bool.
        iou: ``[N]``, of each image.
        title: of the sheet, which is ``width`` mm wide.
    """
    chosen, size = cases(iou), true.shape[-2:]
    captions = [(f"IoU {100 * iou[index]:.1f} %", Path(pairs.paths[index]).stem) for index in chosen]
    figure, frames = sheet(
        ("image", "truth", "prediction", "overlay"), captions, title, width, foot=6, aspect=size[0] / size[1]
    )
    for row, index in zip(frames, chosen, strict=True):
        image = apply(resize(size), *pairs[index])[0].permute(1, 2, 0) / 255
        union, drawn = true[index].any(0), predicted[index].any(0)
        for axis, picture in zip(row, (image, union, drawn, overlay(image, drawn, union)), strict=True):
            axis.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    legend = [Patch(facecolor=colour, label=name) for colour, name in
              ((TRUE_POSITIVE, "found"), (FALSE_NEGATIVE, "missed"), (FALSE_POSITIVE, "not in the truth"))]  # fmt: skip
    figure.legend(handles=legend, loc="lower center", ncols=3)
    return figure


def refuse_other_masks(folder: Path) -> None:
    """Raise :class:`InputError` where ``folder/masks`` is of no evaluation, so that no data set loses its true masks."""
    if (folder / "masks").exists() and not (folder / "predictions.csv").exists():
        raise InputError(f"--output_dir {folder}: its masks/ were not predicted by an evaluation; choose another folder")


def clear(folder: Path) -> None:
    """Remove the sheet of an earlier evaluation, and the masks that it wrote: those of the images in its predictions.csv."""
    for suffix in FORMATS:
        (folder / f"sheet.{suffix}").unlink(missing_ok=True)
    with suppress(InputError):  # there is none, or it is something else
        for row in read_table(folder / "predictions.csv", ["file", "class"]).rows:
            (folder / "masks" / row["class"] / f"{Path(row['file']).stem}.png").unlink(missing_ok=True)


def write_masks(folder: Path, pairs: Pairs, predicted: Tensor) -> None:
    """Write every predicted mask as ``folder/CLASS/NAME.png``, 0 or 255, as large as its image.

    Args:
        folder: made where it is missing.
        pairs: of the set.
        predicted: ``[N, classes, h, w]`` uint8, probabilities in 1/255.
    """
    for column, name in enumerate(pairs.classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path, (height, width), masks in zip(pairs.paths, pairs.sizes, predicted, strict=True):
            mask = Image.fromarray(masks[column].numpy()).resize((width, height), Image.Resampling.BILINEAR)
            mask.point(lambda value: 255 * (value > 127)).save(folder / name / f"{Path(path).stem}.png")
