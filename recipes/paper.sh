# The paper's three command lines, for one data set. Sourced by the scripts beside it, which set NAME and CLASSES.
# Run from the project's folder, on a GPU: bash recipes/btmd.sh [DATA]. A stopped recipe goes on when it is run again.
set -euo pipefail
DATA=${1:-data/$NAME}
RUNS=runs/$NAME
PYTHON=${PYTHON:-python}

$PYTHON main_pretrain.py --model msmae_vit_base_patch16 --batch_size 64 --mask_ratio 0.45 --throw_ratio 0.3 \
    --num_classes "$CLASSES" --data_path "$DATA" --output_dir "$RUNS/pretrain" --resume auto
$PYTHON main_finetune.py --model vit_base_patch16 --batch_size 256 --mask_ratio 0.45 --throw_ratio 0.3 \
    --finetune "$RUNS/pretrain/checkpoint-last.pth" --num_classes "$CLASSES" --data_path "$DATA" \
    --output_dir "$RUNS/finetune" --resume auto
$PYTHON main_finetune.py --eval --resume "$RUNS/finetune/checkpoint-last.pth" --model vit_base_patch16 \
    --num_classes "$CLASSES" --data_path "$DATA" --output_dir "$RUNS/eval"
