"""--protocol paper is the paper's method and schedule; what stands without it where measurements favour another choice."""

import pytest

import main_finetune
import main_pretrain
from util.errors import InputError

DATA = ["--data_path", "DIR"]
SAM = {"masking": "attention", "mask_ratio": 0.45, "throw_ratio": 0.3, "map": "last", "map_temperature": 1}
PRETRAINING = {
    **SAM,
    **{"random_mask_ratio": 0.75, "sam_epoch": 41, "loc_interval": 40, "random_share": 0, "class_weight": 0.1},
    **{"epochs": 300, "batch_size": 64, "accum_iter": 1, "blr": 1e-3, "lr": None, "min_lr": 0, "warmup_epochs": 40},
    **{"weight_decay": 0.05, "clip_grad": None, "crop_scale": (0.2, 1), "norm_pix_loss": False},
    **{"input_size": 224, "patch_size": 16, "model": "msmae_vit_base_patch16"},
}
FINETUNING = {
    **SAM,
    **{"unmasked_epochs": 0, "loc_interval": 20, "epochs": 100, "batch_size": 256, "accum_iter": 1},
    **{"blr": 1e-3, "lr": None, "min_lr": 1e-6, "warmup_epochs": 5, "weight_decay": 0.05, "layer_decay": 0.75},
    **{"drop_path": 0.1, "smoothing": 0.1, "crop_scale": (0.2, 1), "clip_grad": None, "model": "vit_base_patch16"},
    **{"aa": None, "color_jitter": 0, "reprob": 0, "mixup": 0, "cutmix": 0, "cutmix_minmax": None},
}


@pytest.mark.parametrize(("script", "expected"), [(main_pretrain, PRETRAINING), (main_finetune, FINETUNING)])
def test_the_papers_protocol(script, expected):
    args = vars(script.get_args([*DATA, "--protocol", "paper"]))
    assert {name: args[name] for name in expected} == expected


@pytest.mark.parametrize("script", [main_pretrain, main_finetune])
def test_ours_differs_where_it_says_so_and_nowhere_else(script):
    paper, ours = (vars(script.get_args([*DATA, *options])) for options in (["--protocol", "paper"], []))
    assert {name for name in paper if paper[name] != ours[name]} == {"protocol", *script.PAPER}
    assert {name: paper[name] for name in script.PAPER} == script.PAPER


@pytest.mark.parametrize("options", ["--protocol paper --map block3", "--map block3 --protocol=paper"])
def test_given_options_go_before_the_protocol(options):
    assert main_pretrain.get_args([*DATA, *options.split()]).map == "block3"


def test_what_masks_in_fine_tuning():
    """All patches are used unless SAM's ratios, --masking or the protocol ask for less."""
    found = {
        options: main_finetune.get_args([*DATA, *options.split()]).masking
        for options in ("", "--mask_ratio 0.4", "--throw_ratio 0", "--mask_ratio 0.4 --masking random", "--protocol paper")
    }
    assert list(found.values()) == ["none", "attention", "attention", "random", "attention"]
    with pytest.raises(InputError, match="--unmasked_epochs"):
        main_finetune.get_args([*DATA, "--unmasked_epochs", "3"])
