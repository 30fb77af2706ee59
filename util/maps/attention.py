"""From attention to a map: a patch grid ``[gh, gw]`` in [0, 1] that belongs to a whole image (METHOD.md "The map")."""

from collections.abc import Sequence

import torch
from torch import Tensor


def scale_to_unit(values: Tensor) -> Tensor:
    """Scale ``[..., L]`` to [0, 1] by its own minimum and maximum; where all values are equal, to zero."""
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (values - low) / spread.clamp_min(torch.finfo(values.dtype).tiny), 0.0)


def average_heads(rows: Tensor) -> Tensor:
    """Scale each head to [0, 1], then average the heads.

    Args:
        rows: ``[B, heads, L]``, softmax attention of the class token to each patch, without the class token itself.

    Returns:
        ``[B, L]`` in [0, 1]. A head that is constant says nothing about where to look and counts as zero.
    """
    return scale_to_unit(rows).mean(1)


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


def relative_entropy(maps: Tensor) -> Tensor:
    """Entropy of each map, seen as a distribution over its patches, relative to that of a uniform one.

    Args:
        maps: ``[..., L]``, not negative.

    Returns:
        ``[...]`` in [0, 1]: 1 for a uniform map (SAM with it is random masking), 0 when one patch has all the weight.
    """
    share = maps.double() / maps.double().sum(-1, keepdim=True).clamp_min(1e-300)
    return torch.special.entr(share).sum(-1) / torch.log(torch.tensor(float(maps.shape[-1])))
