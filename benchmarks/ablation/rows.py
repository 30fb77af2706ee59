"""The rows of the ablation: what each changes, and why; and the presets, which all rows have in common.

Settings are options of the entry scripts by name; a function is asked for the value, given the preset. Every row follows the
paper except in what it is named after.
"""

from typing import NamedTuple

CONSENSUS = {"map": "consensus", "map_temperature": 0.4}
SPLIT = CONSENSUS | {"random_share": 0.5}
PRETRAININGS: dict[str, dict] = {
    "MAE": {"masking": "random", "class_weight": 0},
    "AMT": {"class_weight": 0},
    "MSMAE": {},
    "supervision alone": {"masking": "random"},
    "consensus map": CONSENSUS,
    "split batch": SPLIT,
    "split batch, class weight 0.3": SPLIT | {"class_weight": 0.3},
    "split batch, three quarters random": SPLIT | {"random_share": 0.75},
    "split batch, SAM sooner": SPLIT | {"sam_epoch": lambda preset: preset["sam_epoch"] // 2},
}

ALL = {"masking": "none"}
SAM = {"masking": "attention"}
RANDOM = {"masking": "random"}
# The time of 60 and 20 epochs of the preset cpu, spent on labels alone
BOTH_PHASES = {"epochs": lambda preset: int(preset["epochs"] * 3.25)}
# A masked epoch takes about a third of the time: with the last ones on all patches, about the time of the other rows
LONGER = {
    "epochs": lambda preset: int(preset["epochs"] * 2.5),
    "unmasked_epochs": lambda preset: max(1, preset["epochs"] // 4),
}


class Row(NamedTuple):
    """A row of the tables, and the row that it is compared with to answer its question."""

    name: str
    against: str | None
    asks: str
    finetuning: dict = ALL
    start: str = ""  # the pre-training, where it is not the one of the row's name, if there is one

    @property
    def pretraining(self) -> str:
        return self.start or self.name


ROWS = (
    Row("MAE", None, "What does reconstruction alone reach?"),
    Row("AMT", "MAE", "Does masking by the map help without supervision?"),
    Row("MSMAE, pre-training only", "supervision alone", "Does masking by the map help supervision?", start="MSMAE"),
    Row("MSMAE", "MSMAE, pre-training only", "Does SAM help in fine-tuning?", SAM),
    Row("supervision alone", "MAE", "Does supervision help?"),
    Row("no pre-training", "split batch", "What is pre-training worth?"),
    Row("no pre-training, as long as both phases", "split batch", "Is its time worth as much?", ALL | BOTH_PHASES),
    Row("MSMAE, fine-tuned on a random quarter", "MSMAE", "Is it the map that costs, or hiding as such?", RANDOM, "MSMAE"),
    Row("consensus map", "split batch", "Does the class loss hurt where SAM masks?"),
    Row("split batch", "MSMAE, pre-training only", "Is a split batch, with the consensus, better?"),
    Row("split batch, class weight 0.3", "split batch", "Does a heavier class loss help?"),
    Row("split batch, three quarters random", "split batch", "Does a larger random share help?"),
    Row("split batch, SAM sooner", "split batch", "Does it help to start SAM after half as many epochs?"),
    Row("split batch, class token", "split batch", "Which pooling is better?", ALL | {"cls_token": True}, "split batch"),
    Row("split batch, SAM", "split batch", "Does SAM by the consensus help fine-tuning?", SAM | CONSENSUS, "split batch"),
    Row("MAE, random longer, then all", "MAE", "Do longer, cheaper epochs help?", RANDOM | LONGER, "MAE"),
    Row("MSMAE, longer, then all", "MSMAE, pre-training only", "Does SAM help at equal time?", SAM | LONGER, "MSMAE"),
    Row(
        *("split batch, random longer, then all", "MAE, random longer, then all", "Does supervision help there too?"),
        *(RANDOM | LONGER, "split batch"),
    ),
)

CPU = {"input_size": 96, "patch_size": 8, "warmup_epochs": 2, "batch_size": 16}
QUICK = {"input_size": 64, "warmup_epochs": 1, "batch_size": 32, "crop_scale": (0.6, 1), "epochs": 4}
PRESETS: dict[str, tuple[dict, dict]] = {  # of pre-training, and of fine-tuning
    "quick": (
        {"model": "msmae_vit_micro_patch8", **QUICK, "blr": 8e-3},
        {"model": "vit_micro_patch8", **QUICK, "blr": 4e-3, "layer_decay": 0.9},
    ),
    "cpu": (
        {"model": "msmae_vit_tiny_patch16", **CPU, "epochs": 12, "blr": 4.8e-3, "crop_scale": (0.5, 1)},
        {"model": "vit_tiny_patch16", **CPU, "epochs": 8, "blr": 5e-3, "crop_scale": (0.8, 1)}
        | {"layer_decay": 0.9, "drop_path": 0},
    ),
    "paper": (
        {"model": "msmae_vit_base_patch16", "epochs": 300, "sam_epoch": 41, "loc_interval": 40},
        {"model": "vit_base_patch16", "epochs": 100},
    ),
}
pretraining, finetuning = PRESETS["cpu"]
PRESETS["slow-cpu"] = pretraining | {"input_size": 64}, finetuning | {"input_size": 64}  # for a CPU without bf16


def pretraining_settings(preset: dict, name: str) -> dict:
    """Half of the epochs before SAM, and eight looks at the maps, unless the preset says otherwise."""
    schedule = {"sam_epoch": preset["epochs"] // 2, "loc_interval": max(1, preset["epochs"] // 8)}
    return settle(schedule | preset, PRETRAININGS[name])


def finetuning_settings(preset: dict, row: Row) -> dict:
    """The maps are refreshed five times in a run."""
    settings = settle(preset, row.finetuning)
    return {**settings, "loc_interval": max(1, settings["epochs"] // 5)}


def settle(preset: dict, changes: dict) -> dict:
    """The preset, and over it the settings of a row."""
    changes = {name: value(preset) if callable(value) else value for name, value in changes.items()}
    return {"protocol": "paper", **preset, **changes}
