"""Does the map look at the lesion? Two figures where lesion masks are at hand (METHOD.md "Localisation")."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from util.errors import InputError
from util.images import Images, read_image


def find_masks(images: Images, folder: str | None) -> list[Path | None]:
    """Lesion mask file of each image, None where there is none.

    ``folder`` holds ``CLASS/NAME.png`` or ``NAME.png`` for the images of ``DIR/val``; without it, ``DIR/masks/val`` is
    used when it is there.

    Raises:
        InputError: when ``folder`` is given and holds no mask of any image.
    """
    root = Path(folder) if folder else images.root.parent / "masks" / images.root.name
    found = []
    for path in map(Path, images.paths):
        candidates = (root / path.parent.name / f"{path.stem}.png", root / f"{path.stem}.png")
        found.append(next((mask for mask in candidates if mask.is_file()), None))
    if folder and not any(found):
        raise InputError(f"--lesion_masks {folder}: no CLASS/NAME.png or NAME.png there for any image of {images.root}")
    return found


def measure(maps: Tensor, masks: list[Path | None], size: int) -> dict[str, float]:
    """:func:`localisation` of the images that have a mask file, as ``map_gain`` and so on; empty when none has.

    Args:
        maps: ``[N, gh, gw]`` of all images.
        masks: from :func:`find_masks`.
        size: pixels at which to compare.
    """
    index = [i for i, mask in enumerate(masks) if mask]
    if not index:
        return {}
    figures = localisation(maps[index], read_masks([masks[i] for i in index], size))
    return {f"map_{name}": value for name, value in figures.items()}


def read_masks(paths: list[Path], size: int) -> Tensor:
    """Lesion masks ``[N, size, size]``, bool."""
    masks = torch.stack([F.interpolate(read_image(str(path))[None, :1].float(), [size] * 2)[0, 0] for path in paths])
    return masks > 127


def localisation(maps: Tensor, masks: Tensor) -> dict[str, float]:
    """How far maps lie inside lesions, over the images that have one.

    Args:
        maps: ``[N, gh, gw]``, not negative; resized bilinearly to the masks.
        masks: ``[N, H, W]`` bool.

    Returns:
        ``gain``: share of the map inside the lesion relative to the lesion's share of the area (1 is chance), averaged
        over images; ``pointing``: share of images whose map has its maximum inside the lesion; ``chance``: the mean share
        of area, which is what pointing at random would reach; ``images``: number of images with a lesion.
    """
    some = masks.flatten(1).any(1)
    maps, masks = maps[some], masks[some].float()
    if not len(maps):
        return {"gain": float("nan"), "pointing": float("nan"), "chance": float("nan"), "images": 0}
    pixel = F.interpolate(maps[:, None].float(), masks.shape[-2:], mode="bilinear", antialias=False)[:, 0].flatten(1)
    masks = masks.flatten(1)
    area = masks.mean(1)
    inside = (pixel * masks).sum(1) / pixel.sum(1).clamp_min(1e-12)
    peak = masks.gather(1, pixel.argmax(1, keepdim=True))
    return {
        "gain": float((inside / area).mean()),
        "pointing": float(peak.mean()),
        "chance": float(area.mean()),
        "images": len(maps),
    }
