"""What an encoder's size does not tell: small differences between published ViTs, and how their pixels are scaled."""

from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

from util.system.errors import InputError

IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu")  # timm's names


@dataclass(frozen=True)
class Variant:
    """An encoder's deviations from MAE's, and the normalisation of its pixels. A checkpoint keeps it; models have it.

    Args:
        norm_eps: of all layer normalisations.
        layer_scale: each block's two outputs are scaled channel by channel (timm's LayerScale).
        pre_norm: the tokens are normalised before the first block; then the patch projection has no bias.
        act_layer: of the blocks' MLPs, one of :data:`ACTIVATIONS`.
        num_heads: attention heads, where the source states them; None: those of a model of this size.
        mean, std: of the red, green and blue pixels in [0, 1], taken out of every image.
    """

    norm_eps: float = 1e-6
    layer_scale: bool = False
    pre_norm: bool = False
    act_layer: str = "gelu"
    num_heads: int | None = None
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD

    def plain(self) -> dict:
        """Plain values, as a checkpoint and JSON hold them; :meth:`of` reads them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def of(cls, values: dict, path: str | Path) -> "Variant":
        """What a file says of its encoder; raises :class:`InputError` where that makes no sense."""
        unknown = values.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise InputError(f"{path}: its encoder has {min(unknown)}, which this version of the project does not know")
        given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        made = cls(**given)
        sound = {
            "norm_eps": isinstance(made.norm_eps, float) and 0 < made.norm_eps < 1,
            "layer_scale": isinstance(made.layer_scale, bool),
            "pre_norm": isinstance(made.pre_norm, bool),
            "act_layer": made.act_layer in ACTIVATIONS,
            "num_heads": made.num_heads is None or (type(made.num_heads) is int and made.num_heads > 0),  # True is no number
            "mean": are_colours(made.mean),
            "std": are_colours(made.std) and min(made.std) > 0,
        }
        wrong = [name for name, is_sound in sound.items() if not is_sound]
        if wrong:
            raise InputError(f"{path}: {wrong[0]} of its encoder is {getattr(made, wrong[0])!r}, which cannot be")
        return made

    def describe(self) -> str:
        """In words, what differs from MAE's encoder; empty where nothing does."""
        parts = [
            f"layer normalisation eps {self.norm_eps:g}" if self.norm_eps != MAE.norm_eps else "",
            "LayerScale" if self.layer_scale else "",
            "a norm before the blocks" if self.pre_norm else "",
            self.act_layer if self.act_layer != MAE.act_layer else "",
            f"pixel mean {in_words(self.mean)} and deviation {in_words(self.std)}"
            if (self.mean, self.std) != (MAE.mean, MAE.std)
            else "",
        ]
        return ", ".join(each for each in parts if each)


def are_colours(values: Any) -> bool:
    """Whether these are three finite numbers: for red, green and blue."""
    numbers = isinstance(values, tuple) and len(values) == 3 and all(type(each) in (int, float) for each in values)
    return numbers and all(map(isfinite, values))


def in_words(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


MAE = Variant()
