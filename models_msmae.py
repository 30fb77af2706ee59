"""The masked autoencoder for pre-training: the encoder of ``models_vit``, a decoder for masked patches, and the losses.

METHOD.md "Decoder" and "Pre-training"; paper section 3.1; MAE (arXiv 2111.06377) for the autoencoder itself.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import get_act_layer
from torch import Tensor, nn

from models_vit import (
    Block,
    VisionTransformer,
    create_encoder,
    init_weights,
    patchify,
    select,
    sincos_position_embedding,
)
from util.data.reading import Reading
from util.masking import Split
from util.sizes import AUTOENCODERS, ENCODERS
from util.training.balance import cross_entropy
from util.training.checkpoint import Checkpoint
from util.weights.into_model import load_encoder
from util.weights.sources import load_weights


class PretrainOutput(NamedTuple):
    """What a pre-training step computes from a batch."""

    reconstruction: Tensor  # scalar, mean squared error over the masked patches
    classification: Tensor  # scalar, cross-entropy of the class-token head
    logits: Tensor  # [B, classes]


class MaskedAutoencoder(VisionTransformer):
    """MSMAE's pre-training model.

    Args:
        decoder_embed_dim, decoder_depth, decoder_num_heads: width, blocks and heads of the decoder.
        norm_pix_loss: reconstruct each patch normalised by its own mean and variance.
        kwargs: those of :class:`models_vit.VisionTransformer`.
    """

    def __init__(
        self,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        norm_pix_loss: bool = False,
        **kwargs,
    ):
        super().__init__(global_pool="token", **kwargs)
        self.norm_pix_loss = norm_pix_loss
        self.pos_embed.requires_grad_(False)
        norm_layer = partial(nn.LayerNorm, eps=self.variant.norm_eps)
        act_layer = get_act_layer(self.variant.act_layer)
        self.decoder_embed = nn.Linear(self.embed_dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.decoder_pos_embed = nn.Parameter(
            sincos_position_embedding(decoder_embed_dim, self.grid_size), requires_grad=False
        )
        self.decoder_blocks = nn.Sequential(
            *(
                Block(decoder_embed_dim, decoder_num_heads, norm_layer=norm_layer, act_layer=act_layer)
                for _ in range(decoder_depth)
            )
        )
        self.decoder_norm = norm_layer(decoder_embed_dim)
        self.decoder_pred = nn.Linear(decoder_embed_dim, self.patch_size**2 * 3)
        for name, part in self.named_children():
            if name.startswith("decoder"):
                part.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def decode(self, features: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predict the masked patches; thrown patches are not there, and order does not matter to attention.

        Args:
            features: ``[B, 1 + V, D]``, the encoder's normalised tokens, the class token first.
            visible: ``[B, V]`` and masked: ``[B, M]`` patch indices.

        Returns:
            ``[B, M, p * p * 3]``.
        """
        position = self.decoder_pos_embed[0, 1:]
        tokens = self.decoder_embed(features)
        known = tokens[:, self.num_prefix_tokens :] + F.embedding(visible, position)
        unknown = self.mask_token + F.embedding(masked, position)
        tokens = torch.cat([tokens[:, :1] + self.decoder_pos_embed[:, :1], known, unknown], dim=1)
        tokens = self.decoder_blocks(tokens)[:, -masked.shape[1] :]
        return self.decoder_pred(self.decoder_norm(tokens))

    def pixels(self, images: Tensor, masked: Tensor) -> Tensor:
        """Pixels ``[B, M, p * p * 3]`` of the masked patches in the order that MAE's ``decoder_pred`` predicts them."""
        patches = select(patchify(images, self.patch_size), masked)
        return patches.unflatten(-1, (3, -1)).transpose(-1, -2).flatten(-2)

    def targets(self, images: Tensor, masked: Tensor) -> Tensor:
        """Pixels ``[B, M, p * p * 3]`` of the masked patches, as the loss wants them (``norm_pix_loss``)."""
        target = self.pixels(images, masked)
        if self.norm_pix_loss:
            target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return target

    # as in MAE, the autoencoder's forward gives losses, for which it needs more than the encoder's does
    def forward(  # type: ignore[override]
        self, images: Tensor, split: Split, labels: Tensor, class_weights: Tensor | None = None
    ) -> PretrainOutput:
        """Losses of a batch: ``images`` [B, 3, H, W] normalised, the split of their patches, ``labels`` [B].

        A label of -100 leaves its image out of the classification loss; ``class_weights`` [classes] say how much each
        class's images count there.
        """
        features = self.forward_features(images, split.visible)
        logits = self.forward_head(features).float()
        prediction = self.decode(features, split.visible, split.masked).float()
        return PretrainOutput(
            reconstruction=F.mse_loss(prediction, self.targets(images, split.masked)),
            classification=cross_entropy(logits, labels, weights=class_weights),
            logits=logits,
        )

    @torch.no_grad()
    def reconstruct(self, images: Tensor, split: Split) -> Tensor:
        """The model's guess of the masked patches in pixels ``[B, M, p * p * 3]``, normalised like ``images``.

        With ``norm_pix_loss`` the model predicts no brightness; the true mean and variance of each patch are put back, as
        is the habit for showing MAE's reconstructions.
        """
        features = self.forward_features(images, split.visible)
        prediction = self.decode(features, split.visible, split.masked).float()
        if self.norm_pix_loss:
            pixels = self.pixels(images, split.masked)
            prediction = prediction * (pixels.var(-1, keepdim=True) + 1e-6).sqrt() + pixels.mean(-1, keepdim=True)
        return prediction


def create_autoencoder(name: str, patch_size: int | None = None, **kwargs) -> MaskedAutoencoder:
    """Build a model of :data:`AUTOENCODERS`; ``patch_size`` replaces the one in its name."""
    return MaskedAutoencoder(**{**AUTOENCODERS[name], **({"patch_size": patch_size} if patch_size else {}), **kwargs})


def load_model(path: str | Path) -> VisionTransformer:
    """The model of any source of weights (docs/weights.md): :func:`model_of` what :func:`load_weights` reads.

    Raises:
        InputError: when there are no weights, or they are of an encoder that is not built here.
    """
    return model_of(load_weights(path))


def model_of(origin: Checkpoint) -> VisionTransformer:
    """The model of weights that were read, in evaluation mode on the CPU.

    Shapes come from the tensors; head counts from the source, else from the encoder of that width and depth.

    Returns:
        A :class:`MaskedAutoencoder` where there is a decoder, else the encoder with its head and pooling. Its ``reading``
        says how its images were read.

    Raises:
        InputError: when they are of an encoder that is not built here.
    """
    name = origin.encoder_name(ENCODERS)
    common = {"img_size": origin.input_size, "num_classes": origin.outputs, "variant": origin.variant}
    if "decoder_pred.weight" in origin.parameters:
        stated = {"decoder_num_heads": origin.decoder_heads} if origin.decoder_heads else {}
        model = create_autoencoder(
            f"msmae_{name}",
            origin.shape.patch_size,
            decoder_embed_dim=origin.parameters["decoder_embed.weight"].shape[0],
            decoder_depth=len({key.split(".")[1] for key in origin.parameters if key.startswith("decoder_blocks.")}),
            norm_pix_loss=origin.options.get("norm_pix_loss", False),
            **stated,
            **common,
        )
    else:
        model = create_encoder(name, origin.shape.patch_size, global_pool=origin.pooling, **common)
    load_encoder(model, origin, new_head=False, whole=True)
    model.reading = Reading.of(origin.options)
    return model.eval()
