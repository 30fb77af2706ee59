#!/usr/bin/env bash
# Brain Tumor MRI on a CPU in at most two hours of two cores, four hours of CPU time; RESULTS.md says what it reached.
# The data: python -m util.prepare btmd DOWNLOAD data/btmd. A stopped recipe goes on when it is run again.
# Labels alone, for as long: the run btmd-labels of python -m benchmarks.experiments --list.
set -euo pipefail
PYTHON=${PYTHON:-python}

$PYTHON main_pretrain.py --protocol tuned --model msmae_vit_tiny_patch16 --patch_size 8 --input_size 96 \
    --warmup_epochs 2 --blr 8e-3 --crop_scale 0.5 1 --batch_size 32 --epochs 50 --sam_epoch 25 --loc_interval 6 \
    --class_weight 0.5 --seed 0 --data_path data/btmd --output_dir runs/btmd-preset-pretrain --resume auto
$PYTHON main_finetune.py --protocol tuned --masking random --mask_ratio 0.5 --throw_ratio 0 --batch_size 32 \
    --warmup_epochs 2 --crop_scale 0.8 1 --blr 5e-3 --layer_decay 0.9 --mixup 0.2 --unmasked_epochs 15 \
    --epochs 150 --finetune runs/btmd-preset-pretrain/checkpoint-last.pth --seed 0 --data_path data/btmd \
    --output_dir runs/btmd-preset --resume auto
$PYTHON main_finetune.py --eval --resume runs/btmd-preset/checkpoint-last.pth --data_path data/btmd --output_dir runs/btmd-eval
