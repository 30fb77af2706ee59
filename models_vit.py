"""The encoder, once: timm's Vision Transformer that sees only the patches it is given and can show its attention map.

Pre-training (``models_msmae``), fine-tuning and segmentation all use it. Parameter names are MAE's. METHOD.md "Encoder".
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import build_sincos2d_pos_embed, get_act_layer
from timm.models import vision_transformer
from torch import Tensor, nn

from util.maps.attention import accumulate_relevance, average_heads, scale_to_unit
from util.sizes import ENCODERS
from util.variant import MAE, Variant


class Attention(vision_transformer.Attention):
    """timm's self-attention that can show itself; nothing is stored unless ``record`` is set.

    Attributes:
        record: keep the softmax attention of the next ``forward`` (costs its memory; off in training).
        attn: the last attention kept, ``[B, heads, N, N]`` with the class token first, or None.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool):
        super().__init__(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.record = False
        self.attn: Tensor | None = None

    def forward(self, x: Tensor, **_) -> Tensor:
        """``[B, N, D]`` to ``[B, N, D]``. (timm passes attention masks, always None here.)"""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        # PyTorch's fused kernel is the slower one on CPUs for half-precision sequences of this length
        if self.record or (x.device.type == "cpu" and q.dtype != torch.float32):
            attention = (q * self.scale @ k.transpose(-2, -1)).softmax(-1)
            if self.record:
                self.attn = attention
            x = attention @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, width))

    def class_token_row(self, x: Tensor) -> Tensor:
        """The class token's softmax attention alone, without the rest of the matrix.

        Args:
            x: ``[B, N, D]``, the (normalised) tokens that ``forward`` would take.

        Returns:
            ``[B, heads, N]`` float32: the first row of what ``attn`` would be.
        """
        width = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(x[:, :1], weight[:width], bias[:width]).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k = F.linear(x, weight[width : 2 * width], bias[width : 2 * width]).unflatten(-1, (self.num_heads, -1))
        scores = (q * self.scale) @ k.permute(0, 2, 3, 1)
        return scores.float().softmax(-1).squeeze(-2)


class Block(vision_transformer.Block):
    """timm's transformer block around :class:`Attention`."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True, **kwargs):
        super().__init__(dim, num_heads, qkv_bias=qkv_bias, **kwargs)
        self.attn = Attention(dim, num_heads, qkv_bias)


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut ``[B, C, H, W]`` into patches ``[B, L, C * p * p]``, rows first; inside a patch the order is a convolution's."""
    batch, channels, height, width = images.shape
    p = patch_size
    patches = images.reshape(batch, channels, height // p, p, width // p, p)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * p * p)


def select(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens of each image: ``[B, L, D]`` and indices ``[B, K]`` to ``[B, K, D]``."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def sincos_position_embedding(width: int, grid: tuple[int, int]) -> Tensor:
    """MAE's fixed 2-D position embedding ``[1, 1 + L, width]``: zeros for the class token, then columns and rows."""
    rows, columns = build_sincos2d_pos_embed(list(grid), width, interleave_sin_cos=True).chunk(2, dim=1)
    return torch.cat([torch.zeros(1, width), torch.cat([columns, rows], dim=1)]).unsqueeze(0)


def init_weights(module: nn.Module) -> None:
    """Linear layers Xavier-uniform with zero bias; normalisation layers as PyTorch has them."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class VisionTransformer(vision_transformer.VisionTransformer):
    """A ViT encoder with a linear head that can be given a choice of patches instead of all.

    Args:
        img_size: side of the input in pixels, or its height and width; multiples of ``patch_size``.
        patch_size: side of a patch in pixels.
        embed_dim, depth, num_heads: width, number of blocks and of attention heads.
        num_classes: outputs of the head.
        global_pool: what the head reads: "token", the class token after ``norm``, or "avg", the mean of the patches with
            MAE's ``fc_norm`` after it (there is no ``norm`` then).
        drop_path_rate: stochastic depth of the last block; earlier blocks linearly less.
        variant: how it differs from MAE's encoder, as weights from elsewhere may ask for; it also says how pixels are
            normalised.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        num_classes: int = 1000,
        global_pool: str = "token",
        drop_path_rate: float = 0.0,
        variant: Variant = MAE,
    ):
        super().__init__(
            img_size,
            patch_size,
            num_classes=num_classes,
            global_pool=global_pool,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=variant.num_heads or num_heads,
            drop_path_rate=drop_path_rate,
            norm_layer=partial(nn.LayerNorm, eps=variant.norm_eps),
            act_layer=get_act_layer(variant.act_layer),
            init_values=1.0 if variant.layer_scale else None,
            pre_norm=variant.pre_norm,
            block_fn=Block,
            weight_init="skip",
        )
        self.variant = variant
        self.patch_size = patch_size
        self.grid_size = tuple(self.patch_embed.grid_size)
        self.apply(init_weights)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.data.flatten(1))
        nn.init.normal_(self.cls_token, std=0.02)
        self.pos_embed = nn.Parameter(sincos_position_embedding(embed_dim, self.grid_size))

    def embed(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens of the class and the visible patches; hidden patches are never embedded.

        Args:
            images: ``[B, 3, H, W]``, normalised.
            visible: ``[B, V]`` patch indices, or None for all patches in order.

        Returns:
            ``[B, 1 + V, D]``, the class token first, as the first block takes them.
        """
        patches = patchify(images, self.patch_size)
        position = self.pos_embed[:, 1:]
        if visible is not None:
            patches = select(patches, visible)
            position = F.embedding(visible, position[0])
        projection = self.patch_embed.proj  # a convolution whose stride is its kernel is a matrix on patches
        tokens = F.linear(patches, projection.weight.flatten(1), projection.bias) + position
        class_token = self.cls_token + self.pos_embed[:, :1]
        tokens = torch.cat([class_token.to(tokens.dtype).expand(images.shape[0], -1, -1), tokens], dim=1)
        return self.norm_pre(tokens)

    def forward_features(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Normalised tokens ``[B, 1 + V, D]`` (arguments and shape as in :meth:`embed`)."""
        return self.norm(self.blocks(self.embed(images, visible)))

    def classify(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Logits ``[B, classes]`` (arguments as in :meth:`embed`)."""
        return self.forward_head(self.forward_features(images, visible))

    forward = classify

    @torch.no_grad()
    def attention_maps(self, images: Tensor, blocks: Sequence[int] = ()) -> Tensor:
        """Maps of whole images from the class token's attention, METHOD.md "The map"; call it in evaluation mode.

        Only the class token's row of the last block that is asked for is computed, and nothing after it.

        Args:
            images: ``[B, 3, H, W]``, normalised, not augmented.
            blocks: which blocks' attention, counted from 1, ascending; by default the last one's, which is the paper's map.

        Returns:
            ``[B, len(blocks), gh, gw]`` float32 in [0, 1].
        """
        blocks = blocks or (len(self.blocks),)
        tokens, maps = self.embed(images), []
        for number, block in enumerate(self.blocks[: blocks[-1]], start=1):
            if number in blocks:
                row = block.attn.class_token_row(block.norm1(tokens))
                maps.append(average_heads(row[:, :, self.num_prefix_tokens :]))
            if number < blocks[-1]:
                tokens = block(tokens)
        return torch.stack(maps, dim=1).unflatten(2, self.grid_size)

    def relevance_map(self, images: Tensor) -> Tensor:
        """Maps of whole images from what carries the predicted class's logit (METHOD.md "The map"), in evaluation mode.

        Chefer, Gur and Wolf, "Generic attention-model explainability", ICCV 2021: attention weighted by the logit's
        gradient, accumulated over the blocks, for the tokens alone that the head reads. It costs a forward and a backward
        pass, and the memory of all attention while it runs.

        Args:
            images: ``[B, 3, H, W]``, normalised, not augmented.

        Returns:
            ``[B, gh, gw]`` float32 in [0, 1].
        """
        layers = [block.attn for block in self.blocks]
        with torch.enable_grad(), recorded(layers):
            logits = self.classify(images)
            predicted = logits.detach().argmax(-1, keepdim=True)
            attention = [layer.attn for layer in layers]
            gradients = torch.autograd.grad(logits.gather(1, predicted).sum(), attention)
        read = torch.zeros(attention[0].shape[0], attention[0].shape[-1], device=images.device)
        if self.global_pool == "token":
            read[:, 0] = 1
        else:
            read[:, self.num_prefix_tokens :] = 1 / (read.shape[1] - self.num_prefix_tokens)
        relevance = accumulate_relevance([kept.detach() for kept in attention], gradients, read) - read
        return scale_to_unit(relevance[:, self.num_prefix_tokens :]).unflatten(1, self.grid_size)


@contextmanager
def recorded(layers: Sequence[Attention]) -> Iterator[None]:
    """In this context the layers keep their attention; afterwards it is let go."""
    try:
        for layer in layers:
            layer.record = True
        yield
    finally:
        for layer in layers:
            layer.record, layer.attn = False, None


def create_encoder(name: str, patch_size: int | None = None, **kwargs) -> VisionTransformer:
    """Build an encoder of :data:`ENCODERS`; ``patch_size`` replaces the one in its name."""
    return VisionTransformer(**{**ENCODERS[name], **({"patch_size": patch_size} if patch_size else {}), **kwargs})
