"""Does the map look at the lesion? Three metrics where lesion masks are at hand (METHOD.md "Localisation")."""

from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from util.data.images import Images, read_mask
from util.data.inference import Inference
from util.maps import sources
from util.masking import SAM, temper
from util.system.console import say
from util.system.errors import InputError

METRICS = ("gain", "pointing", "average_precision")  # of a map


def localise(
    model: torch.nn.Module, images: Images, masks: list[Path | None], inference: Inference, used: str, sam: SAM | None
) -> dict:
    """Where every source's map looks, on the images that have a lesion mask; empty when none has.

    Args:
        images: of the set; masks: a file or None for each, from :func:`find_masks`.
        used: the source in use.
        sam: the rule that draws by its maps, or None where none does.

    Returns:
        ``map_gain``, ``map_pointing`` and ``map_average_precision`` of the source in use, flattened or sharpened as SAM
        draws by it, and ``localisation``: what :func:`measure` gives for all sources.
    """
    with_lesion = {index: mask for index, mask in enumerate(masks) if mask}
    if not with_lesion:
        return {}
    maps = sources.maps_by_source(model, images, inference, list(with_lesion))
    drawn_by = maps[sources.canonical(used, len(model.blocks))]
    if sam:
        drawn_by = temper(drawn_by.flatten(1), sam.temperature).view_as(drawn_by)
    result = measure({**maps, "in use": drawn_by}, list(with_lesion.values()), inference.input_size)
    if not result["images"]:
        say(f"note: none of the {len(with_lesion)} lesion masks of {images.split} has a lesion in it")
        return {}
    of_used = result["sources"].pop("in use")
    return {**{f"map_{name}": value for name, value in of_used.items()}, "localisation": result}


def find_masks(images: Images, folder: str | None) -> list[Path | None]:
    """Lesion mask file of each image, None where there is none.

    ``folder`` holds ``CLASS/NAME.png`` or ``NAME.png`` for the images; without it, ``DIR/masks/SPLIT`` is used where it is
    there.

    Raises:
        InputError: when ``folder`` is given and holds no mask of any image, or one file is there the mask of two images.
    """
    root = Path(folder) if folder else images.root / "masks" / images.split
    files = []
    for path in map(Path, images.paths):
        candidates = (root / path.parent.name / f"{path.stem}.png", root / f"{path.stem}.png")
        files.append(next((mask for mask in candidates if mask.is_file()), None))
    count = Counter(files)
    for mask in (mask for mask in count if mask and count[mask] > 1):
        one, other, *_ = (path for path, of in zip(images.paths, files, strict=True) if of == mask)
        both = f"{mask} is the mask of {one} and of {other}"
        if folder:
            raise InputError(f"--lesion_masks {folder}: {both}; give each image of a class a name of its own")
        say(f"note: {both}, so of neither")
        files = [None if of == mask else of for of in files]
    if folder and not any(files):
        raise InputError(f"--lesion_masks {folder}: no CLASS/NAME.png or NAME.png there for any image of {images.split}")
    return files


def measure(maps: dict[str, Tensor], masks: list[Path], size: int) -> dict:
    """:func:`localisation` of several maps of the same images.

    Args:
        maps: by the name of their source, ``[N, gh, gw]`` each.
        masks: a file for each image.
        size: pixels at which to compare.

    Returns:
        ``images`` and ``chance``, which the sources share, and ``sources``: the metrics of each.
    """
    lesions = read_masks(masks, size)
    measured = {name: localisation(each, lesions) for name, each in maps.items()}
    shared = {key: next(iter(measured.values()))[key] for key in ("images", "chance")}
    return {**shared, "sources": {name: {key: each[key] for key in METRICS} for name, each in measured.items()}}


def read_masks(paths: list[Path], size: int) -> Tensor:
    """Lesion masks ``[N, size, size]``, bool."""
    lesions = (read_lesion(path)[None, None].float() for path in paths)
    return torch.stack([F.interpolate(each, [size] * 2, mode="nearest-exact")[0, 0] > 0.5 for each in lesions])


def read_lesion(path: Path) -> Tensor:
    """One mask ``[H, W]``, bool: the brighter half of 0 to 255, and all that is not 0 in a mask of 0 and 1."""
    mask = read_mask(str(path))
    return mask > (127 if mask.max() > 1 else 0)


def localisation(maps: Tensor, masks: Tensor) -> dict[str, float]:
    """How far maps lie inside lesions, over the images that have one.

    Args:
        maps: ``[N, gh, gw]``, not negative; resized bilinearly to the masks.
        masks: ``[N, H, W]`` bool.

    Returns:
        ``gain``: share of the map inside the lesion relative to the lesion's share of the area (1 is chance), averaged
        over images; ``pointing``: share of images whose map has its maximum inside the lesion; ``average_precision``: area
        under the precision-recall curve of the patches, each counting as lesion by its share of it, averaged over images;
        ``chance``: the mean share of area, which is what pointing at random would reach, and nearly what the average
        precision of a uniform map is; ``images``: number of images with a lesion.
    """
    some = masks.flatten(1).any(1)
    maps, masks = maps[some], masks[some].float()
    if not len(maps):
        return {**dict.fromkeys((*METRICS, "chance"), float("nan")), "images": 0}
    covered = F.adaptive_avg_pool2d(masks, maps.shape[-2:])
    precision = [patch_average_precision(*pair) for pair in zip(maps.flatten(1), covered.flatten(1), strict=True)]
    pixel = F.interpolate(maps[:, None].float(), masks.shape[-2:], mode="bilinear", antialias=False)[:, 0].flatten(1)
    masks = masks.flatten(1)
    area = masks.mean(1)
    inside = (pixel * masks).sum(1) / pixel.sum(1).clamp_min(1e-12)
    peak = masks.gather(1, pixel.argmax(1, keepdim=True))
    return {
        "gain": float((inside / area).mean()),
        "pointing": float(peak.mean()),
        "average_precision": sum(precision) / len(precision),
        "chance": float(area.mean()),
        "images": len(maps),
    }


def patch_average_precision(scores: Tensor, covered: Tensor) -> float:
    """Area under the precision-recall curve of one image's patches ``[L]``, ``covered`` being the lesion's share of each.

    A patch counts as lesion with that share and as no lesion with the rest.
    """
    lesion = torch.cat([torch.ones_like(covered), torch.zeros_like(covered)])
    share = torch.cat([covered, 1 - covered])
    from sklearn.metrics import average_precision_score  # takes a second to load

    return float(average_precision_score(lesion, torch.cat([scores, scores]), sample_weight=share))


def localisation_table(where: dict) -> str:
    """What :func:`measure` gives, as lines for a reader."""
    lines = [
        f"maps of {where['images']} images with a lesion: weight in it relative to its area (gain; chance 1), maximum in it "
        f"(pointing; chance {100 * where['chance']:.1f} %)",
        f"{'map':<24}{'gain':>8}{'pointing':>13}{'average precision':>19}",
    ]
    lines += [
        f"{name:<24}{row['gain']:>8.2f}{100 * row['pointing']:>11.1f} %{row['average_precision']:>19.3f}"
        for name, row in where["sources"].items()
    ]
    return "\n".join(lines)
