# make demo: see MSMAE work on made-up images.   make test: lint and test.   make lint: layout, mistakes, types.
# make test-ecosystem: weights and exports with transformers and ONNX Runtime.
# make bench: measure the speed.   make gpu: what to type first on a machine with a GPU.
# make stress: kill, interrupt and misuse the scripts for long.
# make ablation: compare the choices of masking and maps on made-up images.   make figures: draw the README's pictures.
# Each sets itself up in .venv first.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PHANTOMS = demo/phantoms
# the relevance points best after so short a pre-training
PRETRAIN = --protocol tuned --map relevance --map_temperature 1 --model msmae_vit_micro_patch8 --input_size 64 \
	--epochs 30 --warmup_epochs 2 --sam_epoch 15 --loc_interval 5 --blr 8e-3 --class_weight 0.5
FINETUNE = --finetune demo/pretrain/checkpoint-last.pth --epochs 25 --warmup_epochs 2 --blr 5e-3 --layer_decay 0.9 --drop_path 0
SMALL = --data_path $(PHANTOMS) --batch_size 32 --crop_scale 0.6 1 --device cpu

.PHONY: demo demo-paper lint test test-ecosystem test-oldest stress bench gpu ablation figures clean

demo: $(VENV)/ready
	rm -rf demo
	$(BIN)/python -m util.phantom $(PHANTOMS) --train 2000 --val 400 --test 400 --size 64
	$(BIN)/python main_pretrain.py $(PRETRAIN) $(SMALL) --output_dir demo/pretrain
	$(BIN)/python main_finetune.py --protocol tuned $(FINETUNE) $(SMALL) --output_dir demo/finetune
	$(BIN)/python main_finetune.py --eval --resume demo/finetune/checkpoint-last.pth --data_path $(PHANTOMS) --device cpu \
		--output_dir demo/eval
	$(BIN)/python -m util.report demo/pretrain demo/finetune demo/eval --output demo/report.html
	@echo "image, map, what SAM hides, reconstruction: demo/pretrain/sheet-29.png; all of it: demo/report.html"

# what the paper's fine-tuning, on SAM's visible patches, reaches from the demo's encoder
demo-paper: $(VENV)/ready
	test -f demo/pretrain/checkpoint-last.pth || $(MAKE) demo
	$(BIN)/python main_finetune.py $(FINETUNE) $(SMALL) --output_dir demo/paper --overwrite

lint: $(VENV)/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

test-ecosystem: $(VENV)/ready-for-ecosystem
	$(BIN)/python -m pytest tests/weights tests/export

# the oldest versions that the requirements of scripts and formats allow, in an environment of their own
test-oldest:
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	cat requirements.txt requirements-formats.txt | grep -v "^#" | sed "s/>=/==/; s/,<.*//" > .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-oldest/oldest.txt -r tests/requirements.txt
	.venv-oldest/bin/python -m pytest

stress: $(VENV)/ready-to-test
	PYTHONPATH=.:tests $(BIN)/python -m stress

bench: $(VENV)/ready-to-bench
	$(BIN)/python -m benchmarks.speed

gpu: $(VENV)/ready-to-test $(VENV)/ready-to-bench
	$(BIN)/python -m benchmarks.gpu $(if $(DATA),--data_path $(DATA))

ablation: $(VENV)/ready
	test -d ablation/data || $(BIN)/python -m util.phantom ablation/data --train 400 --val 200 --size 64
	$(BIN)/python -m benchmarks.ablation --data_path ablation/data --name phantoms --preset quick --seeds 0 --jobs 2 --results ablation \
		--rows MAE AMT "MSMAE, pre-training only" MSMAE "supervision alone" "split batch" "split batch, SAM"

figures: $(VENV)/ready
	test -f demo/pretrain/checkpoint-last.pth || $(MAKE) demo
	cp demo/pretrain/sheet-29.png Fig/sheet.png
	test -d demo/segmentation || $(BIN)/python -m util.phantom demo/segmentation --train 400 --val 100 --size 64 --segmentation
	$(BIN)/python segmentation/train.py --protocol tuned --root demo/segmentation \
		--checkpoint demo/pretrain/checkpoint-last.pth --batch_size 8 --epochs 12 --optimizer AdamW --lr 5e-4 --warmup_epochs 1 \
		--flips --device cpu --output_dir demo/segment --resume auto
	$(BIN)/python segmentation/train.py --evaluate demo/segment/checkpoint-last.pth --root demo/segmentation --device cpu \
		--output_dir demo/segment-eval --overwrite
	cp demo/segment-eval/sheet.png Fig/segment.png
	$(BIN)/python -m benchmarks.speed --parts efficiency --output benchmarks/efficiency.json
	$(BIN)/python -m benchmarks.pictures

$(VENV)/ready: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/ready-to-test: $(VENV)/ready tests/requirements.txt requirements-formats.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

$(VENV)/ready-for-ecosystem: $(VENV)/ready-to-test requirements-export.txt tests/requirements-ecosystem.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements-ecosystem.txt
	touch $@

$(VENV)/ready-to-bench: $(VENV)/ready benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	touch $@

clean:
	rm -rf demo ablation .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
