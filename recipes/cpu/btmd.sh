#!/usr/bin/env bash
# Brain Tumor MRI on a CPU with a small model, in about two hours of CPU time; RESULTS.md says what it reached.
# The data: python -m util.prepare btmd DOWNLOAD data/btmd. A stopped recipe goes on when it is run again.
# Labels alone, for as long: the run btmd-labels of python -m benchmarks.experiments --list.
set -euo pipefail
PYTHON=${PYTHON:-python}

$PYTHON main_pretrain.py --protocol tuned --model msmae_vit_micro_patch8 --input_size 96 --batch_size 32 \
    --warmup_epochs 2 --blr 8e-3 --crop_scale 0.5 1 --epochs 40 --sam_epoch 20 --loc_interval 5 \
    --seed 0 --data_path data/btmd --output_dir runs/btmd-tuned-pretrain-0 --resume auto
$PYTHON main_finetune.py --protocol tuned --masking random --mask_ratio 0.5 --throw_ratio 0 --batch_size 32 \
    --warmup_epochs 2 --crop_scale 0.8 1 --blr 5e-3 --layer_decay 0.9 --mixup 0.2 --unmasked_epochs 15 \
    --epochs 140 --finetune runs/btmd-tuned-pretrain-0/checkpoint-last.pth --seed 0 --data_path data/btmd \
    --output_dir runs/btmd-preset --resume auto
$PYTHON main_finetune.py --eval --resume runs/btmd-preset/checkpoint-last.pth --data_path data/btmd --output_dir runs/btmd-eval
