"""A map moves with its image: cropped as the image is, then summed over patches (METHOD.md "The map")."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


@cache  # of every image the same: made anew they would take a third of the time of a map's crop
def _centres(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float32) + 0.5


@cache
def _numbers(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float32)


def _interpolation(start: float, length: float, extent: int, size: int, cells: int) -> Tensor:
    """Matrix ``[size, cells]`` of bilinear interpolation along one axis.

    Row ``s`` reads a line of ``cells`` map values, stretched over ``extent`` image pixels, at the place where pixel ``s``
    of the crop [start, start + length) lies once the crop is resized to ``size`` pixels.
    """
    pixel = start + _centres(size) * (length / size)
    position = pixel.mul_(cells / extent).sub_(0.5).clamp_(0, cells - 1)
    distance = (position[:, None] - _numbers(cells)).abs_()
    return (1 - distance).clamp_min_(0)


def crop_map(
    grid_map: Tensor, box: tuple[int, int, int, int], image_size: tuple[int, int], size: int, cell: int = 1
) -> Tensor:
    """The bilinearly resized map of an image under a crop that is resized to a square, summed over square cells.

    Args:
        grid_map: ``[gh, gw]``, the map of the whole image.
        box: top, left, height, width of the crop in pixels of the image.
        image_size: height and width of the image in pixels.
        size: side of the augmented image in pixels.
        cell: side of a cell in pixels of the augmented image: 1 gives the map pixel by pixel, the patch size gives
            patch weights (the sum is taken before the interpolation is applied, so that no pixel map is made).

    Returns:
        ``[size / cell, size / cell]``.
    """
    top, left, height, width = box
    rows = _interpolation(top, height, image_size[0], size, grid_map.shape[0]).unflatten(0, (-1, cell)).sum(1)
    columns = _interpolation(left, width, image_size[1], size, grid_map.shape[1]).unflatten(0, (-1, cell)).sum(1)
    return rows @ grid_map @ columns.T


def patch_weights(pixel_map: Tensor, patch_size: int) -> Tensor:
    """Sum a pixel map over each patch: ``[..., H, W]`` to ``[..., (H / patch_size) * (W / patch_size)]``."""
    grid = F.avg_pool2d(pixel_map.reshape(-1, 1, *pixel_map.shape[-2:]), patch_size) * patch_size**2
    return grid.reshape(*pixel_map.shape[:-2], -1)
