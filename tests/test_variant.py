"""What a file says of its encoder beside its size: taken where it makes sense, refused by name where it does not."""

import math

import pytest

from util.system.errors import InputError
from util.variant import MAE, Variant


def test_plain_values_come_back():
    variant = Variant(norm_eps=1e-5, layer_scale=True, num_heads=3, mean=(0.5, 0.5, 0.5), std=(0.5, 1, 0.25))
    assert Variant.of(variant.plain(), "x.pth") == variant
    assert Variant.of({}, "x.pth") == MAE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("norm_eps", value) for value in (0.0, 1.0, math.nan, True, "1e-6", None)),
        *(("layer_scale", value) for value in (1, "yes", None)),
        *(("pre_norm", value) for value in (0, [])),
        *(("act_layer", value) for value in ("relu", ["gelu"], None)),
        *(("num_heads", value) for value in (True, 0, -3, 2.5, "12")),
        *(("mean", value) for value in (0.5, [0.5, 0.5], [0.5, 0.5, math.nan], [0.5, 0.5, True], ["a", "b", "c"], None)),
        *(("std", value) for value in (0.5, [0.5, 0.5], [0.5, 0.5, math.inf], [0.5, 0.5, 0.0], [0.5, 0.5, "a"], None)),
    ],
)
def test_what_cannot_be_is_named(name, value):
    with pytest.raises(InputError, match=f"x.pth: {name} of its encoder is"):
        Variant.of({name: value}, "x.pth")


def test_what_is_not_known_is_named():
    with pytest.raises(InputError, match="its encoder has registers"):
        Variant.of({"registers": 4}, "x.pth")
