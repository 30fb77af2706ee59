"""The masking rule, SAM (supervised attention-driven masking; paper section 3.2, METHOD.md "SAM"), and nothing else.

One image has L patches, each with a weight. SAM draws an order of the patches without replacement, the chance of each
being proportional to its weight, and cuts that order in three:

    order of the draw   |<----- m masked ----->|<-- k - m thrown -->|<----- L - k visible ----->|
    encoder                     hidden                 hidden                    sees
    decoder                 reconstructs            never used                   sees

Random masking, MAE's, is the same draw with equal weights and nothing thrown.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Split(NamedTuple):
    """Patch indices (int64, 0 to L - 1) of a batch after masking; the three parts together are each patch once."""

    visible: Tensor  # [B, L - k]
    masked: Tensor  # [B, m]
    thrown: Tensor  # [B, k - m]


def hidden_counts(num_patches: int, mask_ratio: float, throw_ratio: float) -> tuple[int, int]:
    """Number of masked patches ``m`` and of hidden (masked or thrown) patches ``k``.

    ``m = floor(L * mask_ratio)`` and ``k = floor(L * (mask_ratio + throw_ratio))`` of the decimal ratios as written: the
    rounding absorbs binary error, so that 0.6 + 0.1 of 10 patches is 7 and not 6.
    """
    masked = math.floor(round(num_patches * mask_ratio, 6))
    hidden = math.floor(round(num_patches * (mask_ratio + throw_ratio), 6))
    return masked, hidden


def draw_order(weights: Tensor, noise: Tensor) -> Tensor:
    """Order patches by a draw without replacement with probability proportional to weight.

    Each patch waits an exponential time of rate ``weight``; the order of arrival has exactly that law. Patches of weight
    zero come last, in random order.

    Args:
        weights: ``[B, L]``, not negative, in any unit.
        noise: ``[B, L]`` float64, independent and uniform in [0, 1); the same noise gives the same order.

    Returns:
        ``[B, L]`` int64, patch indices, the first drawn first.
    """
    smallest_rate = 1e-300  # beyond any positive float32, so that zero weights wait longer than all others
    waiting = -torch.log1p(-noise.double())
    waiting = waiting.clamp_min(1e-17) / weights.double().clamp_min(smallest_rate)
    return waiting.argsort(dim=-1)


def temper(weights: Tensor, temperature: float) -> Tensor:
    """Weights flattened or sharpened, ``[B, L]`` adding up to 1 in each image (all zero where all weights are).

    Args:
        weights: ``[B, L]``, not negative.
        temperature: weights are raised to its inverse: 1 leaves them, larger ones flatten them, smaller ones sharpen them.
            Above 0.
    """
    weights = weights.double() ** (1 / temperature)
    return weights / weights.sum(-1, keepdim=True).clamp_min(1e-300)


def split_patches(weights: Tensor, noise: Tensor, mask_ratio: float, throw_ratio: float = 0.0) -> Split:
    """Choose the masked, thrown and visible patches of each image by SAM.

    Args:
        weights: ``[B, L]`` patch weights, such as an attention map; equal weights give random masking.
        noise: ``[B, L]`` float64, uniform in [0, 1).
        mask_ratio: share of patches to mask (hide and reconstruct), in [0, 1).
        throw_ratio: share of patches to throw (hide and never use), in [0, 1); the sum must stay below 1.
    """
    masked, hidden = hidden_counts(weights.shape[-1], mask_ratio, throw_ratio)
    order = draw_order(weights, noise)
    return Split(visible=order[:, hidden:], masked=order[:, :masked], thrown=order[:, masked:hidden])


@dataclass(frozen=True)
class SAM:
    """The rule with its settings: how much it masks and throws, and how sharply it follows the weights."""

    mask_ratio: float = 0.45
    throw_ratio: float = 0.3
    temperature: float = 1.0

    def split(self, weights: Tensor, noise: Tensor, at_random: int = 0) -> Split:
        """Split the patches of a batch.

        Args:
            weights: ``[B, L]``, not negative.
            noise: ``[B, L]`` float64, uniform in [0, 1).
            at_random: number of images, the first of the batch, in which all patches count alike.
        """
        weights = temper(weights, self.temperature)
        weights[:at_random] = 1
        return split_patches(weights, noise, self.mask_ratio, self.throw_ratio)

    def split_at_random(self, noise: Tensor) -> Split:
        """The same number of patches in each part, all patches counting alike."""
        return split_patches(torch.ones_like(noise), noise, self.mask_ratio, self.throw_ratio)

    def example(self, weights: Tensor, seed: int = 0) -> Split:
        """One decision for images that are looked at, ``weights`` ``[B, L]``: the draw is fixed by the seed."""
        generator = torch.Generator().manual_seed(seed)
        return self.split(weights, torch.rand(weights.shape, dtype=torch.float64, generator=generator))


def weight_shares(weights: Tensor, split: Split) -> dict[str, Tensor]:
    """Share of an image's weight on its visible, masked and thrown patches, averaged over the batch (0 to 1)."""
    total = weights.sum(-1).clamp_min(torch.finfo(weights.dtype).tiny)
    return {f"map_on_{name}": (weights.gather(1, index).sum(-1) / total).mean() for name, index in split._asdict().items()}
