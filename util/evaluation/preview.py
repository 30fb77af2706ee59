"""What the model sees in a few validation images, again and again while it learns."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from util.data.augment import denormalize, normalize
from util.data.images import Images
from util.data.inference import Inference
from util.data.loading import resize_whole
from util.evaluation.page import WIDTH
from util.maps import sources
from util.masking import SAM, Split
from util.system.device import Precision

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = 6  # on a sheet, always the same ones


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

    def draw(self, model: torch.nn.Module, epoch: int, probabilities: Tensor) -> "Figure":
        """The sheet of an epoch.

        Args:
            model: what it reconstructs is shown where it can (``model.reconstruct``).
            probabilities: ``[N, classes]`` of all validation images.
        """
        from util.evaluation.seen import Seen, preview_sheet  # matplotlib, which takes a second to load

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
