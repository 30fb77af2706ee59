"""What the model sees, as a sheet: the image, its map, SAM's decision and, in pre-training, the reconstruction."""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from util.data.augment import denormalize, normalize
from util.data.images import Images
from util.data.inference import Inference
from util.data.loading import resize_whole
from util.evaluation import overlay
from util.evaluation.figure import LINE, styled
from util.evaluation.page import WIDTH
from util.evaluation.sheet import sheet
from util.maps import sources
from util.masking import SAM, Split
from util.system.workplace import Precision

IMAGES = 6  # on a sheet, always the same ones


@dataclass(frozen=True)
class Seen:
    """What a model made of a few images.

    Args:
        images: ``[N, 3, S, S]`` in [0, 1].
        maps: ``[N, g, g]`` in [0, 1].
        split: their masked, thrown and visible patches, or None where nothing is hidden.
        prediction: ``[N, M, p * p * 3]`` in [0, 1], the reconstruction of the masked patches, or None where there is none.
    """

    images: Tensor
    maps: Tensor
    split: Split | None
    prediction: Tensor | None


@styled()
def preview_sheet(
    seen: Seen, captions: list[tuple[str, ...]], title: str, decision_title: str = "SAM's decision", width: float = WIDTH
) -> Figure:
    """A row an image: the image, its map over it, SAM's decision, the reconstruction.

    Args:
        captions: lines for each image.
        title: of the sheet, which is ``width`` mm wide; ``decision_title`` of the column that shows the split.
    """
    rebuilt = seen.split is not None and seen.prediction is not None
    columns = ["image", "attention map"] + [decision_title] * (seen.split is not None) + ["reconstruction"] * rebuilt
    beside = max(1, int(width // 55))  # entries of the legend
    foot = 10 + (LINE * 1.4 * -(-3 // beside) if seen.split else 0)
    figure, frames = sheet(columns, captions, title, width, foot)
    for row, axes in enumerate(frames):
        image = seen.images[row].permute(1, 2, 0).cpu()
        axes[0].imshow(image.numpy(), interpolation="nearest")
        overlay.draw_attention(axes[1], seen.images[row].cpu(), seen.maps[row])
        if seen.split:
            patch_size = image.shape[1] // seen.maps.shape[-1]
            axes[2].imshow(overlay.decided(image, seen.split, row, patch_size).numpy(), interpolation="nearest")
        if seen.split and seen.prediction is not None:
            picture = overlay.rebuilt(image, seen.split, row, seen.prediction[row].cpu())
            axes[3].imshow(picture.numpy(), interpolation="nearest")
    overlay.draw_scale(figure, 0, figure.get_figheight() * 25.4 - foot + 1, "weight in the map")
    if seen.split:
        figure.legend(handles=overlay.legend(rebuilt), loc="lower center", ncols=min(3, beside), handleheight=1.2)
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
        width: of the sheet in millimetres.
    """

    images: Images
    inference: Inference
    source: str
    sam: SAM | None
    decision_title: str
    title: str
    width: float = WIDTH

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
            sure = f"{100 * probabilities[index, guess]:.0f} %"
            said = ("right", sure) if guess == true else ("taken for", self.images.classes[guess], sure)
            captions.append((self.images.classes[true], *said))
        seen = Seen(denormalize(pixels, mean, std), maps, split, prediction)
        return preview_sheet(seen, captions, f"{self.title}, after epoch {epoch}", self.decision_title, self.width)


def reconstructed_colours(model: torch.nn.Module, pixels: Tensor, split: Split, precision: Precision) -> Tensor:
    """What a pre-training model makes of the masked patches, ``[N, M, p * p * 3]`` in [0, 1] on the CPU."""
    device = precision.device
    model.eval()
    with precision():
        patches = model.reconstruct(pixels.to(device), Split(*(part.to(device) for part in split))).cpu()
    pixels = patches.unflatten(-1, (-1, 3)).permute(0, 3, 1, 2)
    return denormalize(pixels, model.variant.mean, model.variant.std).permute(0, 2, 3, 1).flatten(2)
