"""What the model sees, as a sheet: the image, its map, SAM's decision and, in pre-training, the reconstruction."""

from collections.abc import Callable

import torch
from matplotlib import patheffects
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from util.data.augment import denormalize, normalize
from util.data.loading import resize_whole
from util.evaluation.pictures import draw_attention
from util.maps import sources as map_source
from util.masking import Split, split_patches, temper
from util.system import distributed
from util.training.classification import ClassificationRun

IMAGES = 6  # on a sheet, always the same ones

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
    split: Split | None,
    prediction: Tensor | None,
    captions: list[str],
    title: str,
    decision_title: str = "SAM's decision",
) -> Figure:
    """Draw one row an image: the image, its map over it, SAM's decision, the reconstruction.

    Args:
        images: ``[N, 3, H, W]`` in [0, 1].
        maps: ``[N, gh, gw]`` in [0, 1].
        split: their masked, thrown and visible patches, or None where nothing is hidden.
        prediction: ``[N, M, p * p * 3]`` in [0, 1], the reconstruction of the masked patches, or None where there is none.
        captions: one a row.
        title: of the sheet; ``decision_title`` of the column that shows the split.
    """
    names = ("image", "attention map", decision_title, "reconstruction")[
        : 2 + (split is not None) + (prediction is not None)
    ]
    rows, columns = len(images), len(names)
    side = images.shape[-1]
    patch_size = side // maps.shape[-1]
    figure = Figure(figsize=(1.9 * columns, 2.02 * rows + 1.0), layout="constrained", dpi=120)
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=9)
    for row in range(rows):
        image = images[row].permute(1, 2, 0).cpu()
        for axis in axes[row]:
            axis.set_xticks([])
            axis.set_yticks([])
        axes[row][0].imshow(image.numpy(), interpolation="nearest")
        draw_attention(axes[row][1], images[row].cpu(), maps[row])
        if split:
            decision = image.clone()
            for index, colour in ((split.masked[row], MASKED), (split.thrown[row], THROWN)):
                tint = image.new_tensor(colour)
                paint_patches(decision, index, patch_size, lambda _, area, tint=tint: 0.45 * area + 0.55 * tint)
            axes[row][2].imshow(decision.numpy(), interpolation="nearest")
        if prediction is not None:
            rebuilt = image.clone()
            blocks = prediction[row].reshape(-1, patch_size, patch_size, 3).cpu()
            paint_patches(rebuilt, split.masked[row], patch_size, lambda n, _, blocks=blocks: blocks[n])
            paint_patches(rebuilt, split.thrown[row], patch_size, lambda _, area: area.new_full(area.shape, 0.5))
            axes[row][3].imshow(rebuilt.numpy(), interpolation="nearest")
        label = axes[row][0].text(0.03, 0.04, captions[row], transform=axes[row][0].transAxes, fontsize=7, color="white")
        label.set_path_effects([patheffects.withStroke(linewidth=1.5, foreground="black")])
    if not split:
        return figure
    legend = [
        Patch(facecolor=MASKED, label="masked: hidden" + ", reconstructed" * (prediction is not None)),
        Patch(facecolor=THROWN, label="thrown: hidden, never used" + " (grey at right)" * (prediction is not None)),
        Patch(facecolor="white", edgecolor="grey", label="untinted: visible"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=columns - 1, fontsize=7, frameon=False)
    return figure


def draw_sheet(
    run: ClassificationRun,
    epoch: int,
    probabilities: Tensor,
    reconstruct: Callable[[Tensor, Split], Tensor] | None = None,
) -> None:
    """Draw the sheet of an epoch: ``sheet-EPOCH.png`` in the run's folder, and TensorBoard's "sheet".

    Args:
        run: with its model.
        epoch: the one just done.
        probabilities: ``[N, classes]`` of all validation images.
        reconstruct: the pre-training model's guess of the masked patches, ``model.reconstruct``.
    """
    images, model, args = run.val_images, run.model, run.args
    chosen = torch.linspace(0, len(images) - 1, min(IMAGES, len(images))).long().tolist()
    maps = map_source.maps(model, images, args, run.precision, run.source_in_use(len(model.blocks)), chosen)
    if not distributed.is_main():
        return
    pixels = normalize(torch.stack([resize_whole(images[i], args.input_size) for i in chosen])).to(run.device)
    split = prediction = None
    if args.masking != "none":
        weights = temper(maps.flatten(1), args.map_temperature)
        noise = torch.rand(weights.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        split = split_patches(weights, noise, args.mask_ratio, args.throw_ratio)
    if reconstruct:
        model.eval()
        with run.precision():
            found = reconstruct(pixels, Split(*(part.to(run.device) for part in split))).cpu()
        prediction = denormalize(found.unflatten(-1, (-1, 3)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(2)
    captions = []
    for index in chosen:
        true, guess = images.labels[index], probabilities[index].argmax()
        sure = f"{images.classes[guess]} {100 * probabilities[index, guess]:.0f} %"
        captions.append(f"{images.classes[true]}\n{'predicted' if guess == true else 'taken for'} {sure}")
    title = f"{args.model}, {run.folder.name}, after epoch {epoch}"
    decision_title = "SAM's decision" if args.masking == "attention" else "what SAM would hide"
    figure = sheet(denormalize(pixels).cpu(), maps, split, prediction, captions, title, decision_title)
    figure.savefig(run.folder / f"sheet-{epoch}.png")
    run.log.figure("sheet", figure, epoch)
