"""On a GPU: the device is never waited for within a step, and results agree with the CPU's. Skipped without one."""

import pytest
import torch
from conftest import TINY_PRETRAIN, content_of

from models_msmae import create_autoencoder
from util.maps import sources
from util.masking import split_patches, temper, weight_shares
from util.system.device import Precision
from util.training.log import Averages
from util.training.optimisation import Schedule, Stepper, parameter_groups

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def test_a_step_does_not_wait_for_the_device():
    device = torch.device("cuda")
    model = create_autoencoder("msmae_vit_tiny_patch16", patch_size=8, img_size=32, num_classes=3).to(device)
    precision = Precision(device, "bf16")
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-4, fused=True)
    stepper, averages = Stepper(model, optimizer, Schedule(1e-4, 1, 0), precision), Averages()
    images, labels = torch.randn(4, 3, 32, 32, device=device), torch.arange(4, device=device) % 3
    weights, noise = torch.rand(2, 4, 16, dtype=torch.float64, device=device)

    def step():
        split = split_patches(temper(weights.float(), 2.0), noise, 0.45, 0.3)
        with precision():
            output = model(images, split, labels)
        stepper.backward(output.reconstruction + output.classification, last_of_window=True)
        averages.add(loss=output.reconstruction, **weight_shares(weights.float(), split))

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert averages.first_not_finite() is None


def test_gpu_and_cpu_agree(call, phantoms, tmp_path):
    command = f"main_pretrain.py {TINY_PRETRAIN} --epochs 2 --warmup_epochs 0 --sam_epoch 1 --lr 1e-4 --amp fp32"
    for device in ("cpu", "cuda"):
        options = command.replace("--device cpu", f"--device {device}")
        assert call(f"{options} --data_path {phantoms} --output_dir {tmp_path / device}")[0] == 0
    one, two = (content_of(tmp_path / device / "checkpoint-last.pth") for device in ("cpu", "cuda"))
    for name in one["model"]:
        torch.testing.assert_close(one["model"][name], two["model"][name], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("amp", ["fp32", "bf16", "fp16"])
def test_maps_agree_with_the_cpu(amp):
    torch.manual_seed(0)
    model = create_autoencoder("msmae_vit_tiny_patch16", patch_size=8, img_size=64, num_classes=3).eval()
    images, tolerance = torch.randn(4, 3, 64, 64), {"fp32": 1e-3, "bf16": 0.2, "fp16": 0.05}[amp]
    with torch.no_grad():
        expected = {name: sources.map_of(sources.View(model, images), name) for name in sources.names(12)}
        with Precision(torch.device("cuda"), amp)():
            view = sources.View(model.cuda(), images.cuda())
            on_gpu = {name: sources.map_of(view, name).float().cpu() for name in sources.names(12)}
    for name, maps in on_gpu.items():
        assert (maps - expected[name]).abs().mean() < tolerance and maps.isfinite().all(), name
