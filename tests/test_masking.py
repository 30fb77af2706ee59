"""The masking rule: counts, the law of the draw, zero weights."""

import itertools
from fractions import Fraction

import pytest
import torch

from util.masking import draw_order, hidden_counts, split_patches, temper, weight_shares


def noise(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_counts_of_the_paper():
    split = split_patches(torch.rand(5, 196), noise(5, 196), 0.45, 0.3)
    assert [part.shape[1] for part in split] == [49, 88, 59]


@pytest.mark.parametrize("patches", [4, 9, 10, 36, 49, 64, 100, 144, 196, 256, 1000, 1024])
def test_counts_are_floors_of_the_decimal_ratios(patches):
    for a, b in itertools.product(range(0, 20), repeat=2):
        if a + b >= 20:
            continue
        exact = (patches * Fraction(a, 20) // 1, patches * Fraction(a + b, 20) // 1)
        assert hidden_counts(patches, a / 20, b / 20) == exact


@pytest.mark.parametrize(
    ("patches", "mask", "throw", "expected"),
    [
        (10, 0.6, 0.1, (6, 7)),
        (100, 0.45, 0.3, (45, 75)),
        (10, 0.7, 0.1, (7, 8)),
        (100, 0.29, 0.28, (29, 57)),
        (10, 0.1, 0.2, (1, 3)),
    ],
)
def test_counts_survive_binary_rounding(patches, mask, throw, expected):
    assert hidden_counts(patches, mask, throw) == expected


@pytest.mark.parametrize(("patches", "mask", "throw"), [(196, 0.45, 0.3), (64, 0.75, 0.0), (10, 0.6, 0.1), (7, 0.2, 0.5)])
def test_every_patch_is_in_exactly_one_part(patches, mask, throw):
    split = split_patches(torch.rand(8, patches), noise(8, patches), mask, throw)
    everything = torch.cat(list(split), dim=1).sort(dim=1).values
    assert torch.equal(everything, torch.arange(patches).expand(8, -1))


def test_order_follows_the_exact_law_of_drawing_without_replacement():
    weights = torch.tensor([0.5, 0.1, 0.0, 0.3, 0.1])
    draws = 200_000
    orders = draw_order(weights.expand(draws, -1), noise(draws, 5))
    codes, counts = (orders * torch.tensor([10000, 1000, 100, 10, 1])).sum(1).unique(return_counts=True)
    seen = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    total_chance = 0.0
    for order in itertools.permutations([0, 1, 3, 4]):
        chance, left = 1.0, 1.0
        for patch in order:
            chance *= weights[patch].item() / left
            left -= weights[patch].item()
        total_chance += chance
        code = int("".join(map(str, [*order, 2])))
        spread = (chance * (1 - chance) / draws) ** 0.5
        assert abs(seen.get(code, 0) / draws - chance) < 5 * spread, order
    assert total_chance == pytest.approx(1)
    assert sum(seen.values()) == draws and all(str(code).endswith("2") for code in seen)  # the zero weight always last


def test_zero_weights_come_last_in_random_order():
    weights = torch.zeros(4000, 6)
    weights[:, 1], weights[:, 4] = 1e-30, 1.0
    orders = draw_order(weights, noise(4000, 6))
    assert (orders[:, :2].sort(dim=1).values == torch.tensor([1, 4])).all()
    assert (orders[:, 0] == 4).all()  # 1e30 times as likely
    first_of_the_zeros = torch.bincount(orders[:, 2], minlength=6)[[0, 2, 3, 5]]
    assert (first_of_the_zeros - 1000).abs().max() < 150


def test_all_weights_zero_is_random_masking():
    orders = draw_order(torch.zeros(6000, 4), noise(6000, 4))
    assert (torch.bincount(orders[:, 0], minlength=4) - 1500).abs().max() < 200


def test_extreme_noise_is_no_trouble():
    edge = torch.tensor([[0.0, 1 - 2**-53, 0.5, 0.0]], dtype=torch.float64)
    order = draw_order(torch.tensor([[0.0, 1.0, 1e-40, 1.0]]), edge)
    assert order[0].tolist()[-1] == 0 and sorted(order[0].tolist()) == [0, 1, 2, 3]


def test_large_weights_are_hidden_more_often():
    weights = torch.linspace(0.01, 1, 100).expand(2000, -1)
    split = split_patches(weights, noise(2000, 100), 0.45, 0.3)
    masked = torch.bincount(split.masked.flatten(), minlength=100).double()
    assert masked[80:].mean() > 2 * masked[:20].mean()


def test_weight_shares_add_up():
    weights = torch.rand(3, 64)
    shares = weight_shares(weights, split_patches(weights, noise(3, 64), 0.45, 0.3))
    assert sum(shares.values()).item() == pytest.approx(1, abs=1e-6)
    assert shares["map_on_masked"] > 28 / 64  # more than its share of patches


def test_same_noise_same_split():
    weights = torch.rand(2, 50)
    a, b = (split_patches(weights, noise(2, 50, seed=3), 0.4, 0.2) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_temperature():
    weights = torch.tensor([[0.0, 1.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(temper(weights, 1.0)[0], torch.tensor([0, 1, 4, 4]).double() / 9)
    torch.testing.assert_close(temper(weights, 2.0)[0], torch.tensor([0, 1, 2, 2]).double() / 5)
    torch.testing.assert_close(temper(weights, 0.5)[0], torch.tensor([0, 1, 16, 16]).double() / 33)
    assert temper(weights, 1.0)[1].sum() == 0


def test_temperature_1_changes_no_order():
    weights = torch.rand(50, 144) ** 8
    assert torch.equal(draw_order(temper(weights, 1.0), noise(50, 144)), draw_order(weights, noise(50, 144)))
