"""What the model sees, as a sheet: the image, its map, SAM's decision and, in pre-training, the reconstruction."""

from dataclasses import dataclass

import torch
from matplotlib import patheffects
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from util.data.augment import denormalize, normalize
from util.data.images import Images
from util.data.inference import Inference
from util.data.loading import resize_whole
from util.evaluation.pictures import draw_attention
from util.maps import sources
from util.masking import SAM, Split
from util.system.workplace import Precision

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
    figure = Figure(figsize=(1.9 * columns, 1.9 * rows + 0.9), layout="constrained", dpi=120)
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
        if split and prediction is not None:
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
        Patch(facecolor=MASKED, label="masked: hidden" if prediction is None else "masked: hidden, reconstructed"),
        Patch(facecolor=THROWN, label=f"thrown: hidden, never used{'' if prediction is None else ' (grey at right)'}"),
        Patch(facecolor="white", edgecolor="grey", label="untinted: visible"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=columns - 1, fontsize=7, frameon=False)
    return figure


@dataclass(frozen=True)
class Preview:
    """What the model sees in the same few validation images, each time anew.

    Args:
        images: of the validation set, of which a few are shown, spread over it.
        inference: how they pass through the model.
        source: of the maps.
        sam: the rule that hides patches, or None: nothing is hidden.
        decision_title: of the column that shows what it hides.
        title: of the sheet; the epoch is added.
    """

    images: Images
    inference: Inference
    source: str
    sam: SAM | None
    decision_title: str
    title: str

    def draw(self, model: torch.nn.Module, epoch: int, probabilities: Tensor) -> Figure:
        """The sheet of an epoch.

        Args:
            model: what it reconstructs is shown where it can (``model.reconstruct``).
            probabilities: ``[N, classes]`` of all validation images.
        """
        chosen = torch.linspace(0, len(self.images) - 1, min(IMAGES, len(self.images))).long().tolist()
        maps = sources.maps(model, self.images, self.inference, self.source, chosen)
        split = self.sam.example(maps.flatten(1)) if self.sam else None
        mean, std = model.variant.mean, model.variant.std
        whole = torch.stack([resize_whole(self.images[index], self.inference.input_size) for index in chosen])
        pixels = normalize(whole, mean, std)
        prediction = None
        if split and hasattr(model, "reconstruct"):
            prediction = reconstructed_colours(model, pixels, split, self.inference.precision)
        captions = []
        for index in chosen:
            true, guess = self.images.labels[index], probabilities[index].argmax()
            sure = f"{self.images.classes[guess]} {100 * probabilities[index, guess]:.0f} %"
            captions.append(f"{self.images.classes[true]}\n{'predicted' if guess == true else 'taken for'} {sure}")
        title = f"{self.title}, after epoch {epoch}"
        return sheet(denormalize(pixels, mean, std), maps, split, prediction, captions, title, self.decision_title)


def reconstructed_colours(model: torch.nn.Module, pixels: Tensor, split: Split, precision: Precision) -> Tensor:
    """What a pre-training model makes of the masked patches, ``[N, M, p * p * 3]`` in [0, 1] on the CPU."""
    device = precision.device
    model.eval()
    with precision():
        patches = model.reconstruct(pixels.to(device), Split(*(part.to(device) for part in split))).cpu()
    pixels = patches.unflatten(-1, (-1, 3)).permute(0, 3, 1, 2)
    return denormalize(pixels, model.variant.mean, model.variant.std).permute(0, 2, 3, 1).flatten(2)
