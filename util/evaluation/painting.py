"""What is laid over an image: a map, a tint on masked patches, stripes on thrown ones."""

from collections.abc import Callable

import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from util.evaluation.figure import axes_at, write
from util.masking import Split

MASKED, THROWN = (0.90, 0.62, 0.0), (0.0, 0.45, 0.70)  # orange and blue that colour-blind readers tell apart
TINT = 0.55  # of a patch whose image shows through
COLORMAP, SCALE, ALPHA = "magma", Normalize(0, 1), 0.6  # of all maps, so that they can be compared


def draw_attention(axis: Axes, image: Tensor, attention: Tensor) -> None:
    """An image ``[3, H, W]`` in [0, 1] as greyscale with its map ``[gh, gw]`` in [0, 1] over it."""
    height, width = image.shape[-2:]
    where = (0, width, height, 0)
    axis.imshow(image.mean(0).numpy(), cmap="gray", extent=where, vmin=0, vmax=1)
    axis.imshow(attention.numpy(), COLORMAP, SCALE, extent=where, interpolation="bilinear", alpha=ALPHA)


def draw_scale(figure: Figure, left: float, top: float, label: str) -> None:
    """The colour bar of :func:`draw_attention`, on middle grey as maps lie on an image, 45 mm long, its label beside it."""
    axes = axes_at(figure, left + 3, top, 45, 2.2)
    axes.set_axis_on()
    axes.set_facecolor("0.5")
    figure.colorbar(ScalarMappable(SCALE, COLORMAP), cax=axes, orientation="horizontal", alpha=ALPHA)
    write(figure, left + 52, top - 0.6, label)


def stripes(patch_size: int) -> Tensor:
    """The look of a thrown patch: blue and white diagonals ``[p, p, 3]``, which no reconstruction resembles."""
    period = max(2, patch_size // 2)
    row = torch.arange(patch_size)
    blue = (row[:, None] + row) % period < period / 2
    return torch.where(blue[..., None], torch.tensor(THROWN), torch.ones(3))


def paint_patches(image: Tensor, index: Tensor, patch_size: int, paint: Callable[[int, Tensor], Tensor]) -> None:
    """Replace patches of an image ``[H, W, 3]`` in place by ``paint(n, pixels)``, n counting along ``index``."""
    columns = image.shape[1] // patch_size
    for n, patch in enumerate(index.tolist()):
        top, left = patch // columns * patch_size, patch % columns * patch_size
        area = image[top : top + patch_size, left : left + patch_size]
        area.copy_(paint(n, area))


def decided(image: Tensor, split: Split, row: int, patch_size: int) -> Tensor:
    """An image ``[H, W, 3]`` with its masked patches tinted and its thrown ones striped; both still show the image."""
    picture = image.clone()
    masked, thrown = torch.tensor(MASKED), stripes(patch_size)
    paint_patches(picture, split.masked[row], patch_size, lambda _, area: (1 - TINT) * area + TINT * masked)
    paint_patches(picture, split.thrown[row], patch_size, lambda _, area: (1 - TINT) * area + TINT * thrown)
    return picture


def rebuilt(image: Tensor, split: Split, row: int, prediction: Tensor) -> Tensor:
    """An image ``[H, W, 3]`` with its masked patches as predicted, ``[M, p * p * 3]`` in [0, 1], its thrown ones striped."""
    picture = image.clone()
    patch_size = round((prediction.shape[-1] / 3) ** 0.5)
    blocks = prediction.reshape(-1, patch_size, patch_size, 3)
    paint_patches(picture, split.masked[row], patch_size, lambda n, _: blocks[n])
    paint_patches(picture, split.thrown[row], patch_size, lambda *_: stripes(patch_size))
    return picture


def legend(reconstructed: bool) -> list[Patch]:
    """What the looks of patches mean, for a legend."""
    return [
        Patch(facecolor=MASKED, label="masked: hidden, reconstructed" if reconstructed else "masked: hidden"),
        Patch(facecolor="white", edgecolor=THROWN, hatch="//////", label="thrown: hidden, never used"),
        Patch(facecolor="white", edgecolor="grey", label="unchanged: visible"),
    ]
