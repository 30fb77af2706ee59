"""Schedule, layer decay, accumulation, clipping and precision."""

import math

import pytest
import torch
from torch import nn

from models_msmae import create_autoencoder
from models_vit import create_encoder
from util.system.device import Precision
from util.training.optimisation import Schedule, Stepper, layer_index, parameter_groups

CPU = torch.device("cpu")


def test_schedule_against_the_formula():
    schedule = Schedule(lr=1e-3, epochs=300, warmup_epochs=40, min_lr=1e-6)
    for step in range(300 * 7):
        epoch = step / 7
        if epoch < 40:
            expected = 1e-3 * epoch / 40
        else:
            expected = 1e-6 + (1e-3 - 1e-6) * 0.5 * (1 + math.cos(math.pi * (epoch - 40) / 260))
        assert schedule.at(epoch) == pytest.approx(expected, rel=1e-12, abs=1e-18)


def test_schedule_ends_and_degenerate_lengths():
    assert Schedule(1.0, 10, 2).at(10) == pytest.approx(0, abs=1e-12)
    assert Schedule(1.0, 10, 0).at(0) == 1.0
    assert Schedule(1.0, 4, 8).at(3.5) == pytest.approx(3.5 / 8)  # a warm-up longer than the run


def test_layer_numbers_are_those_of_mae():
    numbers = {
        "cls_token": 0, "pos_embed": 0, "patch_embed.proj.weight": 0, "blocks.0.norm1.bias": 1,
        "blocks.11.mlp.fc2.weight": 12, "norm.weight": 13, "fc_norm.bias": 13, "head.weight": 13,
    }  # fmt: skip
    assert {name: layer_index(name, 12) for name in numbers} == numbers


def test_groups_of_fine_tuning():
    model = create_encoder("vit_tiny_patch16", img_size=32, num_classes=3, global_pool="avg")
    groups = parameter_groups(model, 0.05, 0.75, never_decay=("cls_token", "pos_embed"))
    names = {id(p): name for name, p in model.named_parameters()}
    seen = {names[id(p)]: (group["weight_decay"], group["lr_scale"]) for group in groups for p in group["params"]}
    assert len(seen) == len(names)
    for name, (decay, scale) in seen.items():
        undecayed = name in ("cls_token", "pos_embed") or name.endswith("bias") or "norm" in name
        assert decay == (0.0 if undecayed else 0.05), name
        assert scale == pytest.approx(0.75 ** (13 - layer_index(name, 12))), name


def test_groups_of_pretraining():
    model = create_autoencoder("msmae_vit_tiny_patch16", img_size=32, num_classes=3)
    groups = parameter_groups(model, 0.05)
    assert len(groups) == 2 and all(group["lr_scale"] == 1 for group in groups)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    every = {id(p) for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in every) == ("pos_embed" not in name), name
        assert (id(parameter) in decayed) == (parameter.ndim > 1 and "pos_embed" not in name), name


def linear_stepper(accum_iter=1, clip_grad=None, amp="fp32"):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    groups = [{"params": list(model.parameters()), "lr_scale": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    return model, Stepper(model, optimizer, Schedule(0.2, 10, 0), Precision(CPU, amp), accum_iter, clip_grad)


def test_accumulated_batches_equal_one_large_batch():
    x = torch.randn(8, 4)
    results = []
    for parts in (1, 4):
        model, stepper = linear_stepper(accum_iter=parts)
        stepper.set_learning_rate(0.0)
        for n, part in enumerate(x.chunk(parts)):
            stepper.backward(model(part).square().mean(), n + 1 == parts)
        results.append(model.weight.detach().clone())
    torch.testing.assert_close(results[0], results[1])


def test_steps_of_an_epoch_are_whole_windows():
    assert linear_stepper(accum_iter=4)[1].steps_per_epoch(11) == 8


def test_learning_rate_is_scaled_by_group():
    _, stepper = linear_stepper()
    assert stepper.set_learning_rate(5.0) == pytest.approx(0.1)
    assert stepper.optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_clipping_bounds_the_update():
    model, stepper = linear_stepper(clip_grad=0.01)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    stepper.set_learning_rate(0.0)
    stepper.backward(1000 * model(torch.randn(8, 4)).square().mean(), True)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01 * 0.1, rel=1e-3)


@pytest.mark.parametrize(("amp", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)])
def test_precision(amp, dtype):
    model, stepper = linear_stepper(amp=amp)
    with stepper.precision():
        output = model(torch.randn(2, 4))
    assert output.dtype == dtype and stepper.scaler.is_enabled() == (amp == "fp16")
    weight = model.weight.detach().clone()
    stepper.set_learning_rate(0.0)
    stepper.backward(output.float().square().mean(), True)
    assert model.weight.dtype == torch.float32 and not torch.equal(model.weight, weight)
