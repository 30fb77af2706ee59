"""SETR with progressive upsampling (Zheng et al., CVPR 2021) on the encoder of ``models_vit``."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models_vit import VisionTransformer

TAPS = (1 / 3, 1 / 2, 2 / 3, 1)  # of the encoder's depth: blocks 4, 6, 8 and 12 of 12
CHANNELS = 256


class UpsamplingHead(nn.Module):
    """Features on the patch grid to logits of pixels, doubling the side stage by stage.

    Args:
        width: channels of the features.
        num_classes: channels of the logits.
        stages: of convolution, batch normalisation, ReLU and bilinear doubling: four for patches of 16 px.
    """

    def __init__(self, width: int, num_classes: int, stages: int):
        super().__init__()
        layers = []
        for stage in range(stages):
            layers += [
                nn.Conv2d(CHANNELS if stage else width, CHANNELS, 3, padding=1, bias=False),
                nn.BatchNorm2d(CHANNELS),
                nn.ReLU(inplace=True),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(CHANNELS, num_classes, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        """``[B, width, gh, gw]`` to ``[B, classes, gh * 2**stages, gw * 2**stages]``."""
        return self.layers(features)


class SETR(nn.Module):
    """The encoder, and a head on its last features; under deep supervision one on features from earlier blocks too.

    Args:
        encoder: with class token and ``norm`` (``global_pool="token"``); its classification head is not used.
        num_classes: masks to predict, each for itself (they may overlap).
        deep_supervision: train heads on earlier features as well.
    """

    def __init__(self, encoder: VisionTransformer, num_classes: int, deep_supervision: bool):
        super().__init__()
        self.encoder = encoder
        depth = len(encoder.blocks)
        self.taps = [round(depth * share) for share in (TAPS if deep_supervision else TAPS[-1:])]
        stages = max(1, round(math.log2(encoder.patch_size)))
        self.heads = nn.ModuleList(UpsamplingHead(encoder.embed_dim, num_classes, stages) for _ in self.taps)
        self.heads.to(memory_format=torch.channels_last)  # as the encoder's tokens lie already; a tenth faster on CPUs

    def features(self, images: Tensor) -> list[Tensor]:
        """Normalised patch features ``[B, width, gh, gw]`` after the blocks in ``taps``, counted from 1."""
        encoder, found = self.encoder, []
        tokens = encoder.embed(images)
        for number, block in enumerate(encoder.blocks, start=1):
            tokens = block(tokens)
            if number in self.taps:
                patches = encoder.norm(tokens)[:, encoder.num_prefix_tokens :]
                found.append(patches.transpose(1, 2).unflatten(2, encoder.grid_size))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` to every head's logits, ``[heads, B, classes, H, W]``; the last head's are the result."""
        logits = [head(features) for head, features in zip(self.heads, self.features(images), strict=True)]
        if logits[0].shape[-2:] != images.shape[-2:]:  # patches whose side is no power of two
            logits = [F.interpolate(each, images.shape[-2:], mode="bilinear", align_corners=False) for each in logits]
        return torch.stack(logits)
