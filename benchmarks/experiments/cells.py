"""Every run of the paper's experiment on a CPU, by name: the command as a user types it in the project's folder.

``data/btmd`` and ``data/busi`` are what ``python -m util.prepare NAME DOWNLOAD data/NAME`` writes, ``data/phantoms`` are the
demo's phantoms. A run lies in ``runs/NAME``.
"""

from typing import NamedTuple

SEEDS = (0, 1, 2)
MASKINGS = {"SAM": ("sam", "attention"), "a random quarter": ("quarter", "random"), "all patches": ("all", "none")}

MICRO = "vit_micro_patch8 --input_size 96"
PRETRAIN = "--warmup_epochs 2 --blr 8e-3 --crop_scale 0.5 1"
FINETUNE = "--warmup_epochs 2 --blr 5e-3 --layer_decay 0.9 --drop_path 0"
SCHEDULES = {  # of pre-training, of both phases, epochs of the tuned protocol's fine-tuning
    "btmd": ("--epochs 40 --sam_epoch 20 --loc_interval 5", "--batch_size 32", 30),
    "busi": ("--epochs 120 --sam_epoch 60 --loc_interval 15", "--batch_size 16", 100),
}
DEMO_PRETRAIN = (  # the Makefile's
    "--protocol tuned --map relevance --map_temperature 1 --model msmae_vit_micro_patch8 --input_size 64 --epochs 30 "
    "--warmup_epochs 2 --sam_epoch 15 --loc_interval 5 --blr 8e-3 --class_weight 0.5"
)
DEMO = "--batch_size 32 --crop_scale 0.6 1"
HALF = (  # of the patches, at random, in most epochs: cheaper, and no image is learnt by heart so soon
    "--protocol tuned --masking random --mask_ratio 0.5 --throw_ratio 0 --batch_size 32 --warmup_epochs 2 --crop_scale 0.8 1"
)
AS_PRETRAINED, FROM_NOTHING = "--blr 5e-3 --layer_decay 0.9", "--blr 8e-3 --drop_path 0 --layer_decay 1"
MIXED = "--mixup 0.2 --unmasked_epochs 15"


class Run(NamedTuple):
    """A run: of which name, with which options, data and seed; ``start`` is the pre-training that it begins from."""

    name: str
    options: str
    data: str
    seed: int = 0
    start: str = ""

    @property
    def pretrains(self) -> bool:
        return "--model msmae" in self.options

    def command(self) -> str:
        script = "main_pretrain.py" if self.pretrains else "main_finetune.py"
        start = f" --finetune runs/{self.start}/checkpoint-last.pth" if self.start else ""
        folders = f"--seed {self.seed} --data_path data/{self.data} --output_dir runs/{self.name}"
        return f"python {script} {self.options}{start} {folders}"


def of_seed(seed: int) -> list[Run]:
    """The small model on the paper's split under both protocols; and from one pre-training, 100 epochs of each masking."""
    runs, of_both = [Run(f"phantoms-pretrain-{seed}", f"{DEMO_PRETRAIN} {DEMO}", "phantoms", seed)], {"phantoms": DEMO}
    for data, (schedule, batch, epochs) in SCHEDULES.items():
        of_both[data] = f"{batch} --crop_scale 0.8 1"
        for protocol in ("paper", "tuned"):
            options = f"--protocol {protocol} --model msmae_{MICRO} {batch} {PRETRAIN} {schedule}"
            runs.append(Run(f"{data}-{protocol}-pretrain-{seed}", options, data, seed))
        options = f"--protocol tuned --masking none --epochs {epochs} {FINETUNE} {of_both[data]}"
        runs.append(Run(f"{data}-tuned-{seed}", options, data, seed, f"{data}-tuned-pretrain-{seed}"))
    for data, settings in of_both.items():
        start = f"phantoms-pretrain-{seed}" if data == "phantoms" else f"{data}-paper-pretrain-{seed}"
        for name, masking in MASKINGS.values():
            options = f"--protocol paper --masking {masking} --epochs 100 {FINETUNE} {settings}"
            runs.append(Run(f"{data}-long-{name}-{seed}", options, data, seed, start))
    return runs


PRESETS = [  # the preset, from the tuned pre-training; labels alone for about as long; and a shorter run
    Run("btmd-preset", f"{HALF} {AS_PRETRAINED} {MIXED} --epochs 140", "btmd", start="btmd-tuned-pretrain-0"),
    Run("btmd-labels", f"{HALF} --model {MICRO} --blr 8e-3 --layer_decay 1 {MIXED} --epochs 180", "btmd"),
    Run("btmd-labels-short", f"{HALF} --model {MICRO} {FROM_NOTHING} --epochs 60 --unmasked_epochs 6", "btmd"),
]
LONG = {  # of the table on long schedules: as ROWS
    data: {title: [f"{data}-long-{name}-{seed}" for seed in SEEDS[:2]] for title, (name, _) in MASKINGS.items()}
    for data in ("phantoms", "busi", "btmd")
}
ROWS = {  # of the table on the paper's split, by data set: names of runs, one a seed
    data: {f"small model, --protocol {word}": [f"{data}-{name}-{seed}" for seed in SEEDS]
           for word, name in (("paper", "long-sam"), ("tuned", "tuned"))}
    for data in SCHEDULES
}  # fmt: skip
ROWS["btmd"] = {
    "the preset": ["btmd-preset"],
    "labels alone, as long": ["btmd-labels"],
    "labels alone, small model": ["btmd-labels-short"],
    **ROWS["btmd"],
}
RUNS = {run.name: run for run in (*PRESETS, *(run for seed in SEEDS for run in of_seed(seed)))}
IN_TABLES = {name for rows in (*ROWS.values(), *LONG.values()) for names in rows.values() for name in names}
STARTS = {RUNS[name].start for name in IN_TABLES}
RUNS = {name: run for name, run in RUNS.items() if name in IN_TABLES | STARTS}
