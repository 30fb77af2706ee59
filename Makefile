# make demo: see MSMAE work on made-up images.   make test: lint and test.
# make bench: measure the speed.   make stress: kill, interrupt and misuse the scripts for long.
# make ablation: compare the choices of masking and maps on made-up images.   make figures: draw the README's pictures.
# Each sets itself up in .venv first.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PHANTOMS = demo/phantoms
EVAL ?= demo/eval
SMALL = --batch_size 32 --crop_scale 0.6 1 --device cpu

.PHONY: demo lint test stress bench ablation figures clean

demo: $(VENV)/ready
	rm -rf demo
	$(BIN)/python -m util.phantom $(PHANTOMS) --train 1200 --val 400 --size 64
	$(BIN)/python main_pretrain.py --model msmae_vit_tiny_patch16 --input_size 64 --patch_size 8 --data_path $(PHANTOMS) \
		--epochs 10 --warmup_epochs 1 --sam_epoch 5 --loc_interval 3 --blr 8e-3 $(SMALL) --output_dir demo/pretrain
	$(BIN)/python main_finetune.py --model vit_tiny_patch16 --finetune demo/pretrain/checkpoint-last.pth \
		--data_path $(PHANTOMS) --epochs 10 --warmup_epochs 1 --blr 4e-3 --layer_decay 0.9 $(SMALL) --output_dir demo/finetune
	$(BIN)/python main_finetune.py --eval --resume demo/finetune/checkpoint-last.pth --model vit_tiny_patch16 \
		--data_path $(PHANTOMS) --batch_size 32 --device cpu --output_dir demo/eval
	$(BIN)/python -m util.report demo/pretrain demo/finetune demo/eval --output demo/report.html
	@echo "pictures (image, attention map, SAM's decision, reconstruction): demo/pretrain/sheet-*.png; all of it: demo/report.html"

lint: $(VENV)/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

stress: $(VENV)/ready-to-test
	PYTHONPATH=.:tests $(BIN)/python -m stress

bench: $(VENV)/ready-to-bench
	$(BIN)/python -m benchmarks.speed

ablation: $(VENV)/ready
	test -d ablation/data || $(BIN)/python -m util.phantom ablation/data --train 400 --val 200 --size 64
	$(BIN)/python -m benchmarks.ablation --data_path ablation/data --name phantoms --preset quick --seeds 0 --jobs 2 --results ablation \
		--rows MAE AMT "MSMAE, pre-training only" MSMAE "supervision alone" "split batch" "split batch, SAM"

figures: $(VENV)/ready
	test -f $(EVAL)/roc.png || $(MAKE) demo
	test -f demo/pretrain/checkpoint-last.pth || $(MAKE) demo
	test -d demo/segmentation || $(BIN)/python -m util.phantom demo/segmentation --train 400 --val 100 --size 64 --segmentation
	$(BIN)/python segmentation/train.py --model vit_tiny_patch16 --patch_size 8 --input_w 64 --input_h 64 --root demo/segmentation \
		--checkpoint demo/pretrain/checkpoint-last.pth --batch_size 8 --epochs 12 --optimizer AdamW --lr 5e-4 --warmup_epochs 1 \
		--flips --device cpu --output_dir demo/segment --resume auto
	$(BIN)/python segmentation/train.py --evaluate demo/segment/checkpoint-last.pth --root demo/segmentation --device cpu \
		--output_dir demo/segment-eval --overwrite
	$(BIN)/python -m benchmarks.speed --parts efficiency --output benchmarks/efficiency.json
	$(BIN)/python -m benchmarks.pictures --eval $(EVAL) --segmentation demo/segment-eval

$(VENV)/ready: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/ready-to-test: $(VENV)/ready tests/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

$(VENV)/ready-to-bench: $(VENV)/ready benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	touch $@

clean:
	rm -rf demo ablation .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
