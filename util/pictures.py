"""What the model sees, as a sheet of pictures: the image, its map, SAM's decision and the reconstruction."""

from matplotlib import colormaps, patheffects
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from util.masking import Split

MASKED, THROWN = (0.90, 0.62, 0.0), (0.0, 0.45, 0.70)  # orange and blue that colour-blind readers tell apart


def paint_patches(image: Tensor, index: Tensor, patch_size: int, paint) -> None:
    """Replace patches of an image ``[H, W, 3]`` in place by ``paint(n, pixels)``, n counting along ``index``."""
    columns = image.shape[1] // patch_size
    for n, patch in enumerate(index.tolist()):
        top, left = patch // columns * patch_size, patch % columns * patch_size
        area = image[top : top + patch_size, left : left + patch_size]
        area.copy_(paint(n, area))


def sheet(
    images: Tensor,
    maps: Tensor,
    split: Split,
    prediction: Tensor,
    captions: list[str],
    title: str,
) -> Figure:
    """Draw one row an image: the image, its map over it, SAM's decision, the reconstruction.

    Args:
        images: ``[N, 3, H, W]`` in [0, 1].
        maps: ``[N, gh, gw]`` in [0, 1].
        split: their masked, thrown and visible patches.
        prediction: ``[N, M, p * p * 3]`` in [0, 1], the reconstruction of the masked patches.
        captions: one a row.
        title: of the sheet.
    """
    rows, columns = len(images), 4
    side = images.shape[-1]
    patch_size = side // maps.shape[-1]
    figure = Figure(figsize=(1.9 * columns, 2.02 * rows + 1.0), layout="constrained", dpi=120)
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False)
    names = ("image", "attention map", "SAM's decision", "reconstruction")
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=9)
    for row in range(rows):
        image = images[row].permute(1, 2, 0).cpu()
        decision, rebuilt = image.clone(), image.clone()
        for index, colour in ((split.masked[row], MASKED), (split.thrown[row], THROWN)):
            tint = image.new_tensor(colour)
            paint_patches(decision, index, patch_size, lambda _, area, tint=tint: 0.45 * area + 0.55 * tint)
        blocks = prediction[row].reshape(-1, patch_size, patch_size, 3).cpu()
        paint_patches(rebuilt, split.masked[row], patch_size, lambda n, _, blocks=blocks: blocks[n])
        paint_patches(rebuilt, split.thrown[row], patch_size, lambda _, area: area.new_full(area.shape, 0.5))
        heat = colormaps["magma"](maps[row].numpy())[..., :3]
        for axis, picture in zip(axes[row], (image, None, decision, rebuilt), strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            if picture is None:
                axis.imshow(image.mean(-1).numpy(), cmap="gray", extent=(0, side, side, 0), vmin=0, vmax=1)
                axis.imshow(heat, alpha=0.6, extent=(0, side, side, 0), interpolation="bilinear")
            else:
                axis.imshow(picture.numpy(), interpolation="nearest")
        label = axes[row][0].text(0.03, 0.04, captions[row], transform=axes[row][0].transAxes, fontsize=7, color="white")
        label.set_path_effects([patheffects.withStroke(linewidth=1.5, foreground="black")])
    legend = [
        Patch(facecolor=MASKED, label="masked: hidden, reconstructed"),
        Patch(facecolor=THROWN, label="thrown: hidden, never used (grey at right)"),
        Patch(facecolor="white", edgecolor="grey", label="untinted: visible"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    return figure
