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
from benchmarks.speed.contenders import CLASSES, PAPERS_SAM, stepper_for
from benchmarks.speed.measure import Timing, wait
from models_msmae import create_autoencoder
from util.data.augment import Augment
from util.data.folders import open_splits
from util.data.images import Images
from util.data.loading import TrainingImages, training_loader
from util.phantom import draw_phantom
from util.system.device import Precision
from util.training.epoch import Epoch
from util.training.log import RunLog
from util.training.save_every import SaveEvery
from util.training.saver import Saver


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
    images = Images(open_splits(root, ("train",))[0], cache)
    maps = torch.ones(len(images), input_size // patch_size, input_size // patch_size)
    return TrainingImages(images, Augment(input_size, patch_size, policy=policy), maps, seed=0)


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
    """Seconds of an epoch of pre-training from JPEG files, and of its steps alone on batches at hand.

    The steps alone run the same engine on batches that were loaded before. Epochs of both kinds alternate; the first of
    each is left out.
    """
    with jpeg_folder(batch_size * batches, input_size) as root, tempfile.TemporaryDirectory() as output:
        model = create_autoencoder(f"msmae_{name}", img_size=input_size, num_classes=CLASSES).to(device)
        stepper = stepper_for(model, Precision(device, amp))
        dataset = training_images(root, "auto", input_size, model.patch_size)
        loader = training_loader(dataset, batch_size, workers, pin_memory=device.type == "cuda")
        log = RunLog(Path(output), Path(output), 0, len(loader))
        saver = Saver(Path(output), SaveEvery(epochs=rounds + 2, steps=0), None, content=lambda _: {})
        loaders = {"files": loader, "steps": _AtHand(loader)}
        seconds: dict[str, list[float]] = {"files": [], "steps": []}
        for number in range(rounds + 1):
            for kind, batches_from in loaders.items():
                epoch = Epoch(number, batches_from, stepper, saver, log, seed=0, print_freq=20)
                wait(device)
                start = time.perf_counter()
                engine_pretrain.train_one_epoch(model, epoch, PAPERS_SAM, random_share=0.0, class_weight=0.1)
                wait(device)
                seconds[kind].append(time.perf_counter() - start)
        log.close()
    return Timing.of(seconds["files"][1:]), Timing.of(seconds["steps"][1:])


class _AtHand:
    """A loader whose batches were all loaded before."""

    def __init__(self, loader: DataLoader):
        self.dataset, self.sampler, self.batch_size = loader.dataset, loader.sampler, loader.batch_size
        self.batches = list(loader)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict]:
        return iter(self.batches)
