"""The rows of ``benchmarks.ablation``, what they have in common, and the commands of the entry scripts that they come to."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

PROTOCOL = ("--protocol", "paper")  # a row says what it has otherwise
CONSENSUS = "--map consensus --map_temperature 0.4"
PRETRAINING = {
    "MAE": "--masking random --class_weight 0",
    "AMT": "--class_weight 0",
    "MSMAE": "",
    "supervised": "--masking random",
    "consensus": CONSENSUS,
    "split": f"{CONSENSUS} --random_share 0.5",
    "split, auto": "--map auto --random_share 0.5",
    "split, softened": "--map consensus --map_uniform 0.2 --random_share 0.5",
    "split, registers": f"{CONSENSUS} --random_share 0.5 --registers 4",
    "split, class weight 0.3": f"{CONSENSUS} --random_share 0.5 --class_weight 0.3",
    "split, three quarters random": f"{CONSENSUS} --random_share 0.75",
    "split, map of the label": "--map label --random_share 0.5",
    "split, SAM sooner": f"{CONSENSUS} --random_share 0.5 --sam_epoch {{sooner}}",
}
FINETUNING = {
    "all": "--masking none",
    "SAM": "",
    "random": "--masking random",
    "random, then all": "--masking random --unmasked_epochs {tail}",
    "SAM, then all": "--unmasked_epochs {tail}",
    "consensus": CONSENSUS,
    "consensus, high": f"{CONSENSUS} --visible_end high",
    "consensus, high, then all": f"{CONSENSUS} --visible_end high --unmasked_epochs {{tail}}",
    "class token": "--masking none --cls_token",
}


@dataclass(frozen=True)
class Row:
    """A row of the table: the keys of :data:`PRETRAINING` (None: no pre-training) and :data:`FINETUNING`."""

    name: str
    pretraining: str | None
    finetuning: str
    longer: float = 1.0  # epochs of fine-tuning relative to the other rows'


BOTH_PHASES = 3.25  # the preset cpu's time of pre-training and fine-tuning, 60 and 20 epochs, spent on labels alone
MASKED_LONGER = 2.5  # with the last quarter of the others' epochs on all patches: about the same time
ROWS = (
    Row("MAE", "MAE", "all"),
    Row("AMT", "AMT", "all"),
    Row("MSMAE, pre-training only", "MSMAE", "all"),
    Row("MSMAE", "MSMAE", "SAM"),
    Row("supervision alone", "supervised", "all"),
    Row("no pre-training", None, "all"),
    Row("no pre-training, as long as both phases", None, "all", BOTH_PHASES),
    Row("MSMAE, fine-tuned on a random quarter", "MSMAE", "random"),
    Row("consensus map", "consensus", "all"),
    Row("split batch", "split", "all"),
    Row("split batch, map by the rule", "split, auto", "all"),
    Row("split batch, softened", "split, softened", "all"),
    Row("split batch, registers", "split, registers", "all"),
    Row("split batch, class weight 0.3", "split, class weight 0.3", "all"),
    Row("split batch, three quarters random", "split, three quarters random", "all"),
    Row("split batch, map of the label", "split, map of the label", "all"),
    Row("split batch, SAM sooner", "split, SAM sooner", "all"),
    Row("split batch, class token", "split", "class token"),
    Row("split batch, SAM", "split", "consensus"),
    Row("split batch, high end visible", "split", "consensus, high"),
    Row("MAE, random longer, then all", "MAE", "random, then all", MASKED_LONGER),
    Row("MSMAE, longer, then all", "MSMAE", "SAM, then all", MASKED_LONGER),
    Row("split batch, random longer, then all", "split", "random, then all", MASKED_LONGER),
    Row("split batch, high end longer, then all", "split", "consensus, high, then all", MASKED_LONGER),
)


@dataclass(frozen=True)
class Preset:
    """What all rows have in common; epochs and other options can be given anew on the command line."""

    pretrain: str
    finetune: str
    pretrain_epochs: int
    finetune_epochs: int


TINY = "--model {}vit_tiny_patch16 --input_size {} --patch_size 8 --warmup_epochs {}"
PRETRAIN_CPU, FINETUNE_CPU = (
    " --batch_size 16 --blr 4.8e-3 --crop_scale 0.5 1",
    " --batch_size 16 --blr 5e-3 --layer_decay 0.9 --drop_path 0 --crop_scale 0.8 1",
)
PRESETS = {
    "quick": Preset(
        TINY.format("msmae_", 64, 1) + " --batch_size 32 --blr 8e-3 --crop_scale 0.6 1",
        TINY.format("", 64, 1) + " --batch_size 32 --blr 4e-3 --layer_decay 0.9 --crop_scale 0.6 1",
        *(4, 4),
    ),
    "cpu": Preset(
        TINY.format("msmae_", 96, 2) + PRETRAIN_CPU,
        TINY.format("", 96, 2) + FINETUNE_CPU,
        *(12, 8),
    ),
    "slow-cpu": Preset(  # two fifths of its operations an image, for a CPU without bf16
        TINY.format("msmae_", 64, 2) + PRETRAIN_CPU,
        TINY.format("", 64, 2) + FINETUNE_CPU,
        *(12, 8),
    ),
    "paper": Preset("--model msmae_vit_base_patch16", "--model vit_base_patch16", 300, 100),
}


def stage_folder(work: Path, *parts: str) -> Path:
    return work / "-".join(part.replace(", ", "-").replace(" ", "_") for part in parts)


def pretraining_command(options, preset: Preset, name: str, seed: int, folder: Path, leads: bool) -> list[str]:
    """Half of the epochs by chance, then SAM (the paper's 41 of 300 with its preset); eight looks at the maps in all.

    "Sooner" is after half as many. One that ``leads`` keeps its checkpoint from before SAM, where others of its seed begin.
    """
    epochs = options.pretrain_epochs or preset.pretrain_epochs
    sam, interval = (41, 40) if options.preset == "paper" else (epochs // 2, max(1, epochs // 8))
    own = shlex.split(PRETRAINING[name].format(sooner=sam // 2))
    return [
        *("main_pretrain.py", *PROTOCOL, *shlex.split(preset.pretrain), "--epochs", str(epochs)),
        *(() if "--sam_epoch" in own else ("--sam_epoch", str(sam))),
        *("--loc_interval", str(interval), *own),
        *common(options, seed, folder, keep=max(1, sam - 1) if leads else 1000),
    ]


def finetuning_command(options, preset: Preset, row: Row, seed: int, folder: Path, start: Path | None) -> list[str]:
    """The refresh of the maps comes five times in a run; "then all" is the last quarter of the other rows' epochs."""
    epochs = options.finetune_epochs or preset.finetune_epochs
    longer = round(epochs * row.longer)
    tail = max(1, round(epochs / 4))
    return [
        *("main_finetune.py", *PROTOCOL, *shlex.split(preset.finetune), "--epochs", str(longer)),
        *("--loc_interval", str(max(1, longer // 5)), *shlex.split(FINETUNING[row.finetuning].format(tail=tail))),
        *(("--finetune", str(start / "checkpoint-last.pth")) if start else ()),
        *common(options, seed, folder, keep=1000),
    ]


def common(options, seed: int, folder: Path, keep: int) -> list[str]:
    masks = ("--lesion_masks", options.lesion_masks) if options.lesion_masks else ()
    cores = os.cpu_count() // options.jobs
    return [
        *("--data_path", options.data_path, "--seed", str(seed), "--num_workers", str(cores if cores > 1 else 0)),
        *(("--device", options.device) if options.device else ()),
        *masks,
        *("--save_every", str(keep), "--output_dir", str(folder)),
    ]


def shown(command: list[str], options) -> str:
    """A command as a reader would give it: paths of this machine replaced, what does not change the result left out."""
    hidden = {options.data_path: options.name, options.lesion_masks: f"{options.name}_masks"}
    words = [hidden.get(word, word).replace(str(options.work), "runs") for word in command]
    for name in ("--num_workers", "--save_every"):
        if name in words:
            at = words.index(name)
            del words[at : at + 2]
    return shlex.join(["python", *words])
