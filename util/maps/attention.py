"""The attention map as tensors: from heads to a map, from a map to the patch weights of an augmented image.

Implements METHOD.md "The map". A map belongs to a whole image and is a patch grid ``[gh, gw]`` of values in [0, 1].
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def average_heads(rows: Tensor) -> Tensor:
    """Scale each head to [0, 1] by its own minimum and maximum, then average the heads.

    Args:
        rows: ``[B, heads, L]``, softmax attention of the class token to each patch, without the class token itself.

    Returns:
        ``[B, L]`` in [0, 1]. A head that is constant says nothing about where to look and counts as zero.
    """
    low, high = rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)
    spread = high - low
    scaled = torch.where(spread > 0, (rows - low) / spread.clamp_min(torch.finfo(rows.dtype).tiny), 0.0)
    return scaled.mean(1)


def accumulate_relevance(attention: list[Tensor], gradients: Sequence[Tensor], read: Tensor) -> Tensor:
    """How much each token contributes to what is read at the end (Chefer et al., ICCV 2021, equations 5 and 6).

    There, a matrix R of token-to-token relevance starts as the identity and becomes R + E[(A * dA)+] R in each block, E
    being the mean over heads. Only the rows that are read are wanted, and a row needs no matrix product of N x N with N x N.

    Args:
        attention: softmax attention of each block, the first block's first, ``[B, heads, N, N]``.
        gradients: of the explained logit with respect to them.
        read: ``[B, N]``, the weights with which the head reads the tokens.

    Returns:
        ``[B, N]`` float32: ``read`` times R.
    """
    row = read.float()
    for layer, gradient in zip(reversed(attention), reversed(gradients), strict=True):
        weighted = (layer.float() * gradient.float()).clamp_min(0).mean(1)
        row = row + (row.unsqueeze(1) @ weighted).squeeze(1)
    return row


def _interpolation(start: float, length: float, extent: int, size: int, cells: int) -> Tensor:
    """Matrix ``[size, cells]`` of bilinear interpolation along one axis.

    Row ``s`` reads a line of ``cells`` map values, stretched over ``extent`` image pixels, at the place where pixel ``s``
    of the crop [start, start + length) lies once the crop is resized to ``size`` pixels.
    """
    pixel = start + (torch.arange(size, dtype=torch.float32) + 0.5) * (length / size)
    position = (pixel * (cells / extent) - 0.5).clamp(0, cells - 1)
    distance = (position[:, None] - torch.arange(cells, dtype=torch.float32)).abs()
    return (1 - distance).clamp_min(0)


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


def relative_entropy(maps: Tensor) -> Tensor:
    """Entropy of each map, seen as a distribution over its patches, relative to that of a uniform one.

    Args:
        maps: ``[..., L]``, not negative.

    Returns:
        ``[...]`` in [0, 1]: 1 for a uniform map (SAM with it is random masking), 0 when one patch has all the weight.
    """
    share = maps.double() / maps.double().sum(-1, keepdim=True).clamp_min(1e-300)
    return torch.special.entr(share).sum(-1) / torch.log(torch.tensor(float(maps.shape[-1])))
