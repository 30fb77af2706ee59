"""Without a GPU: what computes on tensors runs on PyTorch's fake CUDA tensors, which know shapes and devices but no values.

A tensor left on the CPU fails here, and so does what would wait for the device: ``.item()``, boolean indexing, shapes that
depend on values. Fake tensors have neither a backward pass nor autocast; tests/test_cuda.py has them, on a GPU.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)

from engine_pretrain import first_only
from models_msmae import create_autoencoder
from models_vit import create_encoder
from segmentation import metrics
from segmentation.losses import LOSSES
from segmentation.setr import build_setr
from util.data import augment
from util.data.augment import mix_batch
from util.maps import sources
from util.masking import SAM, temper, weight_shares
from util.training.log import Averages
from util.variant import MAE


def there_are_fake_gpus() -> bool:
    """Older PyTorch makes no fake CUDA tensor without a GPU, and its CPU builds never do."""
    try:
        with FakeTensorMode():
            return torch.rand(1).to("cuda").device.type == "cuda"
    except (RuntimeError, AssertionError):
        return False


pytestmark = pytest.mark.skipif(not there_are_fake_gpus(), reason="this PyTorch makes no fake CUDA tensors")
SIZE, CLASSES, BATCH, PATCHES = 32, 3, 4, 16
RULE = SAM(0.45, 0.3)


@pytest.fixture
def cuda(monkeypatch) -> Iterator[Callable]:
    """In a test, tensors are fake and new ones are on CUDA; the value makes a model and gives it fake parameters there."""
    monkeypatch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
    with FakeTensorMode() as mode, torch.device("cuda"):

        def on_cuda(make: Callable[..., nn.Module], *arguments, **options) -> nn.Module:
            with unset_fake_temporarily(), torch.device("cpu"):  # timm reads values while it builds
                model = make(*arguments, **options)
            return model._apply(lambda tensor: mode.from_tensor(tensor).to("cuda"))

        yield on_cuda


@pytest.fixture
def batch(cuda) -> dict:
    return {
        "image": torch.randn(BATCH, 3, SIZE, SIZE),
        "label": torch.arange(BATCH) % CLASSES,
        "weights": torch.rand(BATCH, PATCHES),
        "noise": torch.rand(BATCH, PATCHES, dtype=torch.float64),
    }


ENCODER = {"name": "vit_micro_patch8", "img_size": SIZE, "num_classes": CLASSES}
AUTOENCODER = {**ENCODER, "name": "msmae_vit_micro_patch8"}


@pytest.mark.parametrize("fault", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool((x > 0).any())])
def test_what_waits_for_the_device_fails_here(cuda, fault):
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        fault(torch.rand(4))


def test_a_tensor_left_on_the_cpu_fails_here(cuda):
    with pytest.raises(RuntimeError, match="device"):
        torch.rand(4) + torch.rand(4, device="cpu")


def test_normalisation(cuda):
    augment._mean_and_std.cache_clear()
    try:
        assert (
            augment.normalize(torch.zeros(BATCH, 3, SIZE, SIZE, dtype=torch.uint8), MAE.mean, MAE.std).device.type == "cuda"
        )
    finally:
        augment._mean_and_std.cache_clear()  # it keeps what it made, and that was fake


@pytest.mark.parametrize("rule", [RULE, SAM(0.5, 0.0), SAM(0.45, 0.3, 0.4)])
@pytest.mark.parametrize("at_random", [0, 2])
def test_masking(batch, rule, at_random):
    split = rule.split(batch["weights"], batch["noise"], at_random)
    assert {part.device.type for part in split} == {"cuda"} and split.visible.shape[0] == BATCH
    assert all(share.device.type == "cuda" for share in weight_shares(batch["weights"], split).values())
    assert temper(batch["weights"], 2.0).device.type == rule.split_at_random(batch["noise"]).visible.device.type == "cuda"


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_a_pre_training_step_up_to_its_losses(cuda, batch, norm_pix_loss):
    model = cuda(create_autoencoder, **AUTOENCODER, norm_pix_loss=norm_pix_loss)
    split = RULE.split(batch["weights"], batch["noise"], 2)
    output = model(batch["image"], split, first_only(batch["label"], 2))
    averages = Averages()
    top1 = (output.logits.argmax(-1) == batch["label"]).float().mean()
    averages.add(loss=output.reconstruction + 0.1 * output.classification, train_top1=top1)
    assert output.reconstruction.device.type == output.classification.device.type == "cuda"
    assert output.reconstruction.shape == () and output.logits.shape == (BATCH, CLASSES)


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_a_fine_tuning_step_up_to_its_loss(cuda, batch, pool):
    model = cuda(create_encoder, **ENCODER, global_pool=pool, drop_path_rate=0.1).train()
    for split in (RULE.split(batch["weights"], batch["noise"]), None):
        logits = model(batch["image"], split and split.visible)
        loss = F.cross_entropy(logits.float(), batch["label"], label_smoothing=0.1)
        assert loss.device.type == "cuda" and logits.shape == (BATCH, CLASSES)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_mixing(batch, mode):
    for mixup, cutmix in ((0.8, 0.0), (0.0, 1.0)):
        mixing = Mixup(mixup, cutmix, mode=mode, label_smoothing=0.1, num_classes=CLASSES)
        images, weights, targets = mix_batch(mixing, batch["image"], batch["weights"], batch["label"])
        assert {each.device.type for each in (images, weights, targets)} == {"cuda"}
        assert targets.shape == (BATCH, CLASSES) and weights.shape == (BATCH, PATCHES)


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_erasing(batch, mode):
    assert RandomErasing(1.0, mode=mode, device="cuda")(batch["image"]).device.type == "cuda"


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_evaluation(cuda, batch, pool):
    model = cuda(create_encoder, **ENCODER, global_pool=pool).eval()
    with torch.no_grad():
        features = model.forward_head(model.forward_features(batch["image"]), pre_logits=True)
        probabilities = model.head(features).float().softmax(-1)
    assert probabilities.shape == (BATCH, CLASSES) and probabilities.device.type == "cuda"


@pytest.mark.parametrize("name", [name for name in sources.names(6) if not sources.reads_head(name)])
def test_maps(cuda, batch, name):
    model = cuda(create_encoder, **ENCODER, global_pool="avg").eval()
    with torch.no_grad():
        maps = sources.map_of(sources.View(model, batch["image"]), name)
    assert maps.shape == (BATCH, 4, 4) and maps.device.type == "cuda"


@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_segmentation(cuda, batch, deep_supervision, loss):
    model = cuda(
        build_setr,
        *("vit_micro_patch8", 8, (SIZE, SIZE), CLASSES),
        encoder_init="xavier",
        deep_supervision=deep_supervision,
        final_norm=True,
        align_corners=False,
    ).train()
    logits = model(batch["image"])[0]
    masks = (torch.rand(BATCH, CLASSES, SIZE, SIZE) > 0.5).float()
    assert LOSSES[loss](logits.float(), masks).device.type == "cuda"
    counts = metrics.count(logits > 0, masks.bool())
    assert counts.tp.shape == (BATCH, CLASSES) and counts.tp.device.type == "cuda"
