"""Model, losses and schedules of segmentation, part by part, against PyTorch's own, literal values and counts."""

import numpy as np
import pytest
import torch

from models_vit import create_encoder
from segmentation.data import RandomQuarterTurns, apply, augmentation, resize
from segmentation.losses import LOSSES
from segmentation.schedules import EveryEpoch, MultiStep, Plateau
from segmentation.setr import SETR, build_setr
from util.training.optimisation import Schedule


def test_features_without_the_final_norm():
    encoder = create_encoder("vit_tiny_patch16", 8, img_size=32, num_classes=0, global_pool="token").eval()
    images = torch.randn(2, 3, 32, 32)
    raw, normalised = encoder.blocks(encoder.embed(images))[:, 1:], encoder.forward_features(images)[:, 1:]
    model = SETR(encoder, 1, deep_supervision=False, final_norm=False, align_corners=True)
    found = model.features(images)[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, raw)
    assert not torch.allclose(found, normalised, atol=0.1)
    assert not any("norm." in name for name, _ in model.encoder.named_parameters() if not name.startswith("blocks"))
    model(images).sum().backward()  # several processes need a gradient for every parameter
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("align", [True, False])
def test_corners(align):
    """Aligned, a value moves linearly from corner pixel to corner pixel; else a pixel's share of the side is kept."""
    options = {"deep_supervision": False, "final_norm": True, "align_corners": align}
    model = build_setr("vit_tiny_patch16", 16, (32, 32), 1, **options)
    doubled = [layer for layer in model.heads[0].layers if isinstance(layer, torch.nn.Upsample)]
    expected = [0, 1 / 3, 2 / 3, 1] if align else [0, 0.25, 0.75, 1]
    assert len(doubled) == 4
    for layer in doubled:
        assert layer(torch.tensor([0.0, 1.0]).expand(1, 1, 2, 2))[0, 0, 0].tolist() == pytest.approx(expected)


def test_random_weights_as_the_released_scripts_draw_them():
    options = {"deep_supervision": False, "final_norm": False, "align_corners": True}
    torch.manual_seed(0)
    encoder = build_setr("vit_small_patch16", 16, (224, 224), 1, encoder_init="truncated_normal", **options).encoder
    for weight in (encoder.pos_embed, encoder.blocks[3].attn.qkv.weight, encoder.blocks[5].mlp.fc1.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02) and weight.requires_grad
    for number in (1, 12):
        for layer in (encoder.blocks[number - 1].attn.proj, encoder.blocks[number - 1].mlp.fc2):
            assert layer.weight.std().item() == pytest.approx(0.02 / np.sqrt(2 * number), rel=0.02)
            assert not layer.bias.any()
    bound = 1 / np.sqrt(3 * 16 * 16)
    assert encoder.patch_embed.proj.bias.any() and encoder.patch_embed.proj.weight.abs().max() <= bound
    xavier = build_setr("vit_small_patch16", 16, (224, 224), 1, **options).encoder
    assert xavier.blocks[11].mlp.fc2.weight.std().item() == pytest.approx(np.sqrt(2 / (5 * 384)), rel=0.02)


@pytest.mark.parametrize(("probability", "turned"), [(0.5, 0.375), (1.0, 0.75), (0.0, 0.0)])
def test_how_many_images_are_turned(probability, turned):
    torch.manual_seed(0)
    draws, transform = 4000, RandomQuarterTurns(probability)
    counts = np.bincount([transform.make_params([])["turns"] for _ in range(draws)], minlength=4)
    shares = counts / draws
    for share, expected in ((1 - shares[0], turned), *((share, turned / 3) for share in shares[1:])):
        assert abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / draws)


def test_images_made_smaller():
    """Without smoothing a pixel is mixed from its four nearest; with it, from all that it covers."""
    image, mask = torch.zeros(3, 32, 32, dtype=torch.uint8), torch.zeros(1, 32, 32, dtype=bool)
    image[:, ::8] = 255
    for antialias, brightest in ((False, 0), (True, 20)):
        small, _ = apply(resize((8, 8), antialias), image, mask)
        assert (small.amax() > brightest) == antialias
    literal = torch.nn.functional.interpolate(image[None].float(), (12, 20), mode="bilinear").round()[0]
    assert (apply(resize((12, 20), False), image, mask)[0] - literal).abs().max() <= 1


@pytest.mark.parametrize("crop_scale", [(1.0, 1.0), (0.5, 1.0)])
def test_masks_stay_where_their_images_are(crop_scale):
    """The centre of a disc and that of its mask, in input pixels, over many draws."""
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    disc = (x - 120) ** 2 + (y - 130) ** 2 < 40**2
    image = 255 * disc.byte().expand(3, -1, -1)
    torch.manual_seed(0)
    change = augmentation((32, 32), turn_probability=1, flips=True, crop_scale=crop_scale, color_jitter=0, antialias=True)
    apart = []
    for _ in range(100):
        shown, mask = apply(change, image, disc[None])
        centres = [torch.stack([(each * of).sum() / each.sum() for of in (x[:32, :32], y[:32, :32])])
                   for each in (shown[0].float(), mask[0].float())]  # fmt: skip
        apart.append(centres[1] - centres[0])
    assert torch.stack(apart).mean(0).abs().max() < 0.06


def test_a_cosine_stepped_once_an_epoch_is_that_of_pytorch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-4)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30, eta_min=1e-5)
    ours, smooth = EveryEpoch(Schedule(1e-4, 30, 0, 1e-5)), Schedule(1e-4, 30, 0, 1e-5)
    for epoch in range(30):
        rate = optimizer.param_groups[0]["lr"]
        assert [ours.at(epoch + step / 7) for step in range(7)] == pytest.approx([rate] * 7, rel=1e-6)
        assert smooth.at(epoch) == pytest.approx(rate, rel=1e-6) and smooth.at(epoch + 0.9) < rate
        optimizer.step()
        theirs.step()
    warm = EveryEpoch(Schedule(1.0, 10, 1.5))
    assert [warm.at(epoch) for epoch in (0, 0.75, 1.2)] == pytest.approx([0, 0.5, 0.8])
    assert [warm.at(epoch) for epoch in (1.5, 1.9, 2, 2.9)] == [1, 1, warm.at(2), warm.at(2)] and 0.9 < warm.at(2) < 1


def test_losses_equal_literal_ones():
    logits, masks = torch.randn(3, 2, 4, 4), (torch.rand(3, 2, 4, 4) < 0.3).float()
    chance = 1 / (1 + (-logits).exp())
    entropy = -(masks * chance.log() + (1 - masks) * (1 - chance).log()).mean()
    dice = 0
    for image in range(3):
        overlap = sum((chance[image] * masks[image]).flatten().tolist())
        dice += (2 * overlap + 1e-5) / (chance[image].sum() + masks[image].sum() + 1e-5) / 3
    torch.testing.assert_close(LOSSES["BCEDiceLoss"](logits, masks), 0.5 * entropy + 1 - dice)
    torch.testing.assert_close(LOSSES["BCEWithLogitsLoss"](logits, masks), entropy)


@pytest.mark.parametrize(("patch", "size"), [(16, (32, 48)), (8, (32, 32)), (14, (28, 28))])
def test_shapes_of_the_model(patch, size):
    encoder = create_encoder("vit_tiny_patch16", patch, img_size=size, num_classes=0, global_pool="token")
    model = SETR(encoder, 3, deep_supervision=True, final_norm=True, align_corners=False).eval()
    images = torch.randn(2, 3, *size)
    assert model.taps == [4, 6, 8, 12] and model(images).shape == (4, 2, 3, *size)
    last = encoder.forward_features(images)[:, 1:].transpose(1, 2).unflatten(2, encoder.grid_size)
    torch.testing.assert_close(model.features(images)[-1], last)
    assert len(model.heads[0].layers) == 4 * round(np.log2(patch)) + 1
    assert len(SETR(encoder, 1, deep_supervision=False, final_norm=True, align_corners=False).heads) == 1


def test_learning_rates():
    steps = MultiStep(1.0, (4, 2), 0.1)
    assert [steps.at(epoch) for epoch in (0, 1.9, 2, 3.5, 4, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    plateau, rates = Plateau(optimizer, factor=0.5, patience=1, min_lr=0.2), []
    for loss in (3, 2, 2, 2, 2, 2, 2, 2):
        plateau.observe(loss)
        rates.append(plateau.at(0))
    assert rates == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.2]
    other = Plateau(optimizer, factor=0.5, patience=1, min_lr=0.2)
    other.load_state_dict(plateau.state_dict())
    assert other.state_dict() == plateau.state_dict()


def test_plateau_goes_on_with_its_rate_or_with_the_one_that_is_given():
    """A resumed run has the rate as it was lowered, in the optimiser's state; another --lr or schedule begins with --lr."""
    for content, rate in (
        ({"plateau": {"best": 2.0}, "args": {"lr": 1.0}}, 0.25),
        ({"plateau": {"best": 2.0}, "args": {"lr": 0.5}}, 1.0),
        ({"args": {"lr": 1.0}}, 1.0),
    ):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        plateau = Plateau(optimizer, factor=0.5, patience=1, min_lr=0.2)
        optimizer.param_groups[0]["lr"] = 0.25  # as Stepper.load_state_dict leaves it
        plateau.load_state_dict(content)
        assert plateau.at(0) == rate
