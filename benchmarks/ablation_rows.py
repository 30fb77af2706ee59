"""The rows of ``benchmarks.ablation``, what they have in common, and the commands of the entry scripts that they come to."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

PRETRAINING = {
    "MAE": "--masking random --class_weight 0",
    "AMT": "--class_weight 0",
    "MSMAE": "",
    "supervised": "--masking random",
    "found": "--map auto",
    "split": "--map auto --random_share 0.5",
    "split, soft": "--map auto --random_share 0.5 --map_temperature 2 --map_uniform 0.2",
    "split, registers": "--map auto --random_share 0.5 --registers 4",
}
FINETUNING = {
    "all": "--masking none",
    "SAM": "",
    "random": "--masking random",
    "random, then all": "--masking random --unmasked_epochs {tail}",
    "SAM, then all": "--unmasked_epochs {tail}",
    "found": "--map auto",
    "found, high": "--map auto --visible_end high",
    "found, high, then all": "--map auto --visible_end high --unmasked_epochs {tail}",
    "class token": "--masking none --cls_token",
}


@dataclass(frozen=True)
class Row:
    """A row of the table: the keys of :data:`PRETRAINING` (None: no pre-training) and :data:`FINETUNING`."""

    name: str
    pretraining: str | None
    finetuning: str
    longer: float = 1.0  # epochs of fine-tuning relative to the other rows'


MASKED_LONGER = 3.0  # masked epochs cost about a third of an epoch on all patches: equal time, about
ROWS = (
    Row("MAE", "MAE", "all"),
    Row("AMT", "AMT", "all"),
    Row("MSMAE, pre-training only", "MSMAE", "all"),
    Row("MSMAE", "MSMAE", "SAM"),
    Row("supervision alone", "supervised", "all"),
    Row("no pre-training", None, "all"),
    Row("MSMAE, fine-tuned on a random quarter", "MSMAE", "random"),
    Row("found map", "found", "all"),
    Row("split batch", "split", "all"),
    Row("split batch, softened", "split, soft", "all"),
    Row("split batch, registers", "split, registers", "all"),
    Row("split batch, class token", "split", "class token"),
    Row("split batch, SAM by the found map", "split", "found"),
    Row("split batch, high end visible", "split", "found, high"),
    Row("MSMAE, longer", "MSMAE", "SAM", MASKED_LONGER),
    Row("MSMAE, longer, then all", "MSMAE", "SAM, then all", MASKED_LONGER),
    Row("split batch, random longer, then all", "split", "random, then all", MASKED_LONGER),
    Row("split batch, high end longer, then all", "split", "found, high, then all", MASKED_LONGER),
)


@dataclass(frozen=True)
class Preset:
    """What all rows have in common; epochs and other options can be given anew on the command line."""

    pretrain: str
    finetune: str
    pretrain_epochs: int
    finetune_epochs: int


TINY = "--model {}vit_tiny_patch16 --input_size {} --patch_size 8 --batch_size 32 --warmup_epochs {}"
PRESETS = {
    "quick": Preset(
        TINY.format("msmae_", 64, 1) + " --blr 8e-3 --crop_scale 0.6 1",
        TINY.format("", 64, 1) + " --blr 4e-3 --layer_decay 0.9 --crop_scale 0.6 1",
        *(4, 4),
    ),
    "cpu": Preset(
        TINY.format("msmae_", 96, 2) + " --blr 8e-3 --crop_scale 0.3 1",
        TINY.format("", 96, 2) + " --blr 5e-3 --layer_decay 0.9 --drop_path 0 --crop_scale 0.8 1",
        *(12, 8),
    ),
    "paper": Preset("--model msmae_vit_base_patch16", "--model vit_base_patch16", 300, 100),
}


def stage_folder(work: Path, *parts: str) -> Path:
    return work / "-".join(part.replace(", ", "-").replace(" ", "_") for part in parts)


def pretraining_command(options, preset: Preset, name: str, seed: int, folder: Path) -> list[str]:
    """Half of the epochs by chance, then SAM (the paper's 41 of 300 with its preset); eight looks at the maps in all."""
    epochs = options.pretrain_epochs or preset.pretrain_epochs
    sam, interval = (41, 40) if options.preset == "paper" else (epochs // 2, max(1, epochs // 8))
    return [
        *("main_pretrain.py", *shlex.split(preset.pretrain), "--epochs", str(epochs)),
        *("--sam_epoch", str(sam), "--loc_interval", str(interval), *shlex.split(PRETRAINING[name])),
        *common(options, seed, folder),
    ]


def finetuning_command(options, preset: Preset, row: Row, seed: int, folder: Path, start: Path | None) -> list[str]:
    """The refresh of the maps comes five times in a run; "then all" is its last eighth, in steps of the other rows."""
    epochs = options.finetune_epochs or preset.finetune_epochs
    longer = round(epochs * row.longer)
    tail = max(1, round(epochs / 8))
    return [
        *("main_finetune.py", *shlex.split(preset.finetune), "--epochs", str(longer)),
        *("--loc_interval", str(max(1, longer // 5)), *shlex.split(FINETUNING[row.finetuning].format(tail=tail))),
        *(("--finetune", str(start / "checkpoint-last.pth")) if start else ()),
        *common(options, seed, folder),
    ]


def common(options, seed: int, folder: Path) -> list[str]:
    masks = ("--lesion_masks", options.lesion_masks) if options.lesion_masks else ()
    cores = os.cpu_count() // options.jobs
    return [
        *("--data_path", options.data_path, "--seed", str(seed), "--num_workers", str(cores if cores > 1 else 0)),
        *(("--device", options.device) if options.device else ()),
        *masks,
        *("--save_every", "1000", "--output_dir", str(folder)),
    ]


def shown(command: list[str], options) -> str:
    """A command as a reader would give it: paths of this machine replaced, what does not change the result left out."""
    hidden = {options.data_path: options.name, options.lesion_masks: f"{options.name}_masks"}
    words = [hidden.get(word, word).replace(str(options.work), "runs") for word in command]
    for name in ("--num_workers", "--save_every"):
        at = words.index(name)
        del words[at : at + 2]
    return shlex.join(["python", *words])
