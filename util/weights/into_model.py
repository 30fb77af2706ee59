"""Weights into a model, with a plain account: position embeddings and patch projections are resampled where sizes differ."""

import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor

from util.system.errors import InputError
from util.training.checkpoint import Checkpoint, Shape
from util.training.damage import square_side
from util.weights.files import is_square

ENCODER = ("cls_token", "pos_embed", "patch_embed.", "norm_pre.", "blocks.")  # what no encoder can do without


def load_encoder(model: torch.nn.Module, source: Checkpoint, new_head: bool, whole: bool = False) -> str:
    """Load an encoder, and a decoder where both have the same one, from what :mod:`util.weights.sources` reads.

    Args:
        model: a :class:`models_vit.VisionTransformer`, made with the ``variant`` of the source.
        source: what the model has no place for is left aside, such as a decoder.
        new_head: leave the head as it is initialised.
        whole: nothing else may be left as it is initialised, the decoder and the last norm included.

    Returns:
        Lines saying how many tensors were loaded, which were left aside and which newly initialised, and what was resampled.

    Raises:
        InputError: when the architecture differs, or a tensor of the encoder is missing or would not be used.
    """
    path, state = source.path, model.state_dict()
    there, wanted = source.shape, Shape.of(state, "the model")
    if (there.width, there.depth) != (wanted.width, wanted.depth):
        raise InputError(
            f"{path} holds another architecture: {there}; the model has {wanted}: change --model, or leave it out"
        )
    parameters, notes = resampled(source, model)
    refuse_gaps(parameters, state, source)
    if not same_decoder(parameters, state, source, model):
        parameters = {name: value for name, value in parameters.items() if not is_decoder(name)}
    chosen = {
        name: value for name, value in parameters.items() if name in state and not (new_head and name.startswith("head."))
    }
    wrong = [name for name, value in chosen.items() if value.shape != state[name].shape]
    if wrong:
        given, needed = tuple(chosen[wrong[0]].shape), tuple(state[wrong[0]].shape)
        raise InputError(f"{path} does not fit the model: {wrong[0]} is {given} there, {needed} in the model")
    model.load_state_dict(chosen, strict=False)
    aside = sorted({name.split(".")[0] for name in source.parameters if name not in chosen})
    fresh = sorted({name.split(".")[0] for name in state if name not in chosen})
    if whole and fresh:
        raise InputError(f"{path} lacks {', '.join(fresh)}, or has it in another shape: the model would be in part random")
    average = f" (averaged over steps, --ema {source.options['ema']:g})" if "trained_model" in source.content else ""
    account = (
        f"{path}: {len(chosen)} tensors loaded{average}; left aside: {', '.join(aside) or 'none'}; "
        f"newly initialised: {', '.join(fresh) or 'none'}"
    )
    differs = source.variant.describe()
    if differs:
        notes.insert(0, f"note: from {path} the encoder has {differs}")
    return "\n".join([account, *notes])


def resampled(source: Checkpoint, model: torch.nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """A source's parameters at the model's patch and input size, and a line on each that was resampled.

    timm's functions: the position embedding by bicubic interpolation, the patch projection by the pseudo-inverse of the
    resize (FlexiViT, arXiv 2212.08013).
    """
    parameters, notes = dict(source.parameters), []
    size, new_size = source.shape.patch_size, model.patch_size
    if size != new_size:
        name = "patch_embed.proj.weight"
        parameters[name] = resample_patch_embed(parameters[name].float(), [new_size] * 2)
        notes.append(f"note: patch projection resampled from {size} to {new_size} pixels")
    patches, grid = source.shape.num_patches, tuple(model.grid_size)
    if patches != grid[0] * grid[1] or (grid[0] != grid[1] and is_square(patches)):
        side = square_side(patches, source.path)
        for name in ("pos_embed", "decoder_pos_embed"):
            if name in parameters and (name == "pos_embed" or parameters[name].shape[1] == patches + 1):
                parameters[name] = resample_abs_pos_embed(parameters[name].float(), list(grid), [side, side])
        notes.append(f"note: position embedding interpolated from {side} x {side} to {grid[0]} x {grid[1]} patches")
    return parameters, notes


def refuse_gaps(parameters: dict[str, Tensor], state: dict[str, Tensor], source: Checkpoint) -> None:
    """Raise :class:`InputError` naming a tensor of the encoder that is missing, or that the model has no place for."""
    missing = [name for name in state if name.startswith(ENCODER) and name not in parameters]
    unused = [name for name in parameters if name.startswith(ENCODER) and name not in state]
    if missing:
        raise InputError(
            f"{source.path} lacks {in_short(missing)} of the encoder: it is incomplete, or no ViT as timm has it"
        )
    if unused:
        raise InputError(f"{source.path} has {in_short(unused)}, which no encoder here has: it is of another architecture")


def in_short(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more tensors"


def is_decoder(name: str) -> bool:
    return name.startswith("decoder_") or name == "mask_token"


def same_decoder(
    parameters: dict[str, Tensor], state: dict[str, Tensor], source: Checkpoint, model: torch.nn.Module
) -> bool:
    """Whether a source's decoder is the model's, tensor by tensor and in its heads where the source states them."""
    wanted = {name: value.shape for name, value in state.items() if is_decoder(name)}
    there = {name: value.shape for name, value in parameters.items() if is_decoder(name)}
    if not wanted or wanted != there:
        return False
    return source.decoder_heads in (None, model.decoder_blocks[0].attn.num_heads)
