"""What a model saw, as a sheet: the image, its map, SAM's decision and, in pre-training, the reconstruction."""

from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from util.evaluation import painting
from util.evaluation.figure import LINE, styled
from util.evaluation.page import WIDTH
from util.evaluation.sheet import sheet
from util.masking import Split


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
        painting.draw_attention(axes[1], seen.images[row].cpu(), seen.maps[row])
        if seen.split:
            patch_size = image.shape[1] // seen.maps.shape[-1]
            axes[2].imshow(painting.decided(image, seen.split, row, patch_size).numpy(), interpolation="nearest")
        if seen.split and seen.prediction is not None:
            picture = painting.rebuilt(image, seen.split, row, seen.prediction[row].cpu())
            axes[3].imshow(picture.numpy(), interpolation="nearest")
    painting.draw_scale(figure, 0, figure.get_figheight() * 25.4 - foot + 1, "weight in the map")
    if seen.split:
        figure.legend(handles=painting.legend(rebuilt), loc="lower center", ncols=min(3, beside), handleheight=1.2)
    return figure
