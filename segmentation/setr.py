"""SETR with progressive upsampling (Zheng et al., CVPR 2021) on the encoder of ``models_vit``."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models_vit import VisionTransformer, create_encoder
from util.variant import MAE, Variant

TAPS = (1 / 3, 1 / 2, 2 / 3, 1)  # of the encoder's depth: blocks 4, 6, 8 and 12 of 12
CHANNELS = 256


class UpsamplingHead(nn.Module):
    """Features on the patch grid to logits of pixels, doubling the side stage by stage.

    Args:
        width: channels of the features.
        num_classes: channels of the logits.
        stages: of convolution, batch normalisation, ReLU and bilinear doubling: four for patches of 16 px.
        align_corners: in doubling, corner pixels keep their place (else the corners of the corner pixels do).
    """

    def __init__(self, width: int, num_classes: int, stages: int, align_corners: bool):
        super().__init__()
        layers = []
        for stage in range(stages):
            layers += [
                nn.Conv2d(CHANNELS if stage else width, CHANNELS, 3, padding=1, bias=False),
                nn.BatchNorm2d(CHANNELS),
                nn.ReLU(inplace=True),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners),
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
        final_norm: features go through the encoder's ``norm``; without it the encoder loses its ``norm``.
        align_corners: in bilinear enlargement.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        num_classes: int,
        *,
        deep_supervision: bool,
        final_norm: bool,
        align_corners: bool,
    ):
        super().__init__()
        self.encoder, self.align_corners = encoder, align_corners
        if not final_norm:
            encoder.norm = nn.Identity()  # no parameters that nothing would train
        depth = len(encoder.blocks)
        self.taps = [round(depth * share) for share in (TAPS if deep_supervision else TAPS[-1:])]
        stages = max(1, round(math.log2(encoder.patch_size)))
        self.heads = nn.ModuleList(UpsamplingHead(encoder.embed_dim, num_classes, stages, align_corners) for _ in self.taps)
        self.heads.to(memory_format=torch.channels_last)  # as the encoder's tokens lie already; a tenth faster on CPUs

    @property
    def variant(self) -> Variant:
        """The encoder's, which says how pixels are normalised."""
        return self.encoder.variant

    def features(self, images: Tensor) -> list[Tensor]:
        """Patch features ``[B, width, gh, gw]`` after the blocks in ``taps``, counted from 1."""
        encoder, features = self.encoder, []
        tokens = encoder.embed(images)
        for number, block in enumerate(encoder.blocks, start=1):
            tokens = block(tokens)
            if number in self.taps:
                patches = encoder.norm(tokens)[:, encoder.num_prefix_tokens :]
                features.append(patches.transpose(1, 2).unflatten(2, encoder.grid_size))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` to every head's logits, ``[heads, B, classes, H, W]``; the last head's are the result."""
        logits = [head(features) for head, features in zip(self.heads, self.features(images), strict=True)]
        if logits[0].shape[-2:] != images.shape[-2:]:  # patches whose side is no power of two
            size, align = images.shape[-2:], self.align_corners
            logits = [F.interpolate(each, size, mode="bilinear", align_corners=align) for each in logits]
        return torch.stack(logits)


@torch.no_grad()
def draw_truncated_normal(encoder: VisionTransformer) -> None:
    """Give an encoder the random weights that the released scripts start from without a checkpoint.

    Linear layers, class token and position embedding: truncated normal, deviation 0.02. What leaves attention and MLP of
    block n (from 1) is divided by the root of 2n, as in BEiT. Biases zero, the patch projection as PyTorch initialises it.
    """
    encoder.patch_embed.proj.reset_parameters()
    linear = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    for weight in (encoder.cls_token, encoder.pos_embed, *(module.weight for module in linear)):
        nn.init.trunc_normal_(weight, std=0.02)
    for module in linear:
        nn.init.zeros_(module.bias)
    for number, block in enumerate(encoder.blocks, start=1):
        for last in (block.attn.proj, block.mlp.fc2):
            last.weight.div_(math.sqrt(2 * number))


def build_setr(
    model: str,
    patch_size: int,
    size: tuple[int, int],
    num_classes: int,
    *,
    deep_supervision: bool,
    final_norm: bool,
    align_corners: bool,
    encoder_init: str = "xavier",
    variant: Variant = MAE,
) -> SETR:
    """A :class:`SETR` with random weights.

    Args:
        model: name of the encoder.
        patch_size: side of a patch in pixels.
        size: height and width of the input in pixels.
        num_classes, deep_supervision, final_norm, align_corners: as in :class:`SETR`.
        encoder_init: "xavier", the encoder's own, or "truncated_normal", :func:`draw_truncated_normal`.
        variant: of the encoder, from the weights that it will get.
    """
    encoder = create_encoder(model, patch_size, img_size=size, num_classes=0, global_pool="token", variant=variant)
    if encoder_init == "truncated_normal":
        draw_truncated_normal(encoder)
    return SETR(encoder, num_classes, deep_supervision=deep_supervision, final_norm=final_norm, align_corners=align_corners)
