"""The input pipeline, alone and under training: JPEG files, decoding, augmentation, batches, a whole epoch."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader

import engine_pretrain
import main_pretrain
from benchmarks.speed.contenders import CLASSES
from benchmarks.speed.measure import Timing, wait
from util.data.augment import Augment
from util.data.images import Images
from util.data.loading import TrainingImages, open_folders, training_loader
from util.phantom import draw_phantom


@contextmanager
def jpeg_folder(count: int, size: int) -> Iterator[str]:
    """A temporary ImageFolder of ``count`` training JPEG files of ``size`` pixels, made from a few phantoms."""
    drawn = [Image.fromarray(draw_phantom("none", (number,), size)[0]).convert("RGB") for number in range(8)]
    with tempfile.TemporaryDirectory() as root:
        for split, files in (("train", count), ("val", CLASSES)):
            for index in range(files):
                folder = Path(root) / split / f"class{index % CLASSES}"
                folder.mkdir(parents=True, exist_ok=True)
                drawn[index % len(drawn)].save(folder / f"{index}.jpg", quality=90)
        yield root


def training_images(root: str, cache: str, input_size: int, patch_size: int, policy: str | None = None) -> TrainingImages:
    """The training set as the scripts open it."""
    images = Images(open_folders(root, ("train",))[0], cache)
    grid = (input_size // patch_size,) * 2
    return TrainingImages(images, Augment(input_size, patch_size, policy=policy), grid, seed=0)


def loading_seconds(dataset: TrainingImages, batch_size: int, workers: int, rounds: int) -> Timing:
    """Seconds an image of the loader alone, nothing else running; each round is an epoch, the first one left out."""
    loader = training_loader(dataset, batch_size, workers, pin_memory=False)
    rounds_seconds = []
    for epoch in range(rounds + 1):
        dataset.set_epoch(epoch)
        start, seen = time.perf_counter(), 0
        for batch in loader:
            seen += len(batch["label"])
        rounds_seconds.append((time.perf_counter() - start) / seen)
    return Timing.of(rounds_seconds[1:])


def epoch_against_steps(
    name: str, input_size: int, batch_size: int, device: torch.device, amp: str, workers: int, batches: int, rounds: int
) -> tuple[Timing, Timing]:
    """Seconds of an epoch of the pre-training script from JPEG files, and of its steps alone on batches at hand.

    The steps alone run the same engine on batches that were loaded before. Epochs of both kinds alternate; the first of
    each is left out.
    """
    with jpeg_folder(batch_size * batches, input_size) as root, tempfile.TemporaryDirectory() as output:
        options = f"--model msmae_{name} --input_size {input_size} --batch_size {batch_size} --num_workers {workers}"
        places = ["--data_path", root, "--output_dir", output, "--device", str(device), "--amp", amp]
        run = main_pretrain.prepare(main_pretrain.get_args([*options.split(), *places]))
        loaders = {"files": run.loader, "steps": _AtHand(run.loader)}
        seconds = {"files": [], "steps": []}
        for epoch in range(rounds + 1):
            for kind, run.loader in loaders.items():
                wait(device)
                start = time.perf_counter()
                engine_pretrain.train_one_epoch(run, epoch, use_sam=True)
                wait(device)
                seconds[kind].append(time.perf_counter() - start)
        run.close()
    return Timing.of(seconds["files"][1:]), Timing.of(seconds["steps"][1:])


class _AtHand:
    """A loader whose batches were all loaded before."""

    def __init__(self, loader: DataLoader):
        self.dataset, self.sampler = loader.dataset, loader.sampler
        self.batches = list(loader)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict]:
        return iter(self.batches)
