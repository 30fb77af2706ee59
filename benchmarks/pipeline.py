"""The input pipeline, alone and under training: JPEG files, decoding, augmentation, batches, a whole epoch."""

import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from PIL import Image

import engine_pretrain
from benchmarks.contenders import CLASSES, MASKED, THROWN, stepper_for
from benchmarks.measure import Timing, wait
from models_msmae import create_autoencoder
from util.augment import Augment
from util.data import Images, TrainingImages, open_folders, training_loader
from util.log import RunLog
from util.optimisation import Precision
from util.phantom import draw_phantom


@contextmanager
def jpeg_folder(count: int, size: int) -> Iterator[str]:
    """A temporary ImageFolder of ``count`` training JPEG files of ``size`` pixels, made from a few phantoms."""
    drawn = [Image.fromarray(draw_phantom("none", (number,), size)[0]).convert("RGB") for number in range(8)]
    with tempfile.TemporaryDirectory() as root:
        for index in range(count):
            folder = Path(root) / "train" / f"class{index % CLASSES}"
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
    """Seconds of an epoch from JPEG files through the training engine, and of its steps alone on batches at hand.

    The steps alone run the same engine on batches that were loaded before. Epochs of both kinds alternate; the first of
    each is left out.
    """
    precision = Precision(device, amp)
    model = create_autoencoder(f"msmae_{name}", img_size=input_size, num_classes=CLASSES).to(device)
    stepper = stepper_for(model, precision)
    args = Namespace(
        seed=0,
        batch_size=batch_size,
        accum_iter=1,
        print_freq=20,
        mask_ratio=MASKED,
        throw_ratio=THROWN,
        class_weight=0.1,
    )
    with jpeg_folder(batch_size * batches, input_size) as root, tempfile.TemporaryDirectory() as output:
        dataset = training_images(root, "auto", input_size, model.patch_size)
        loader = training_loader(dataset, batch_size, workers, pin_memory=device.type == "cuda")
        at_hand = _AtHand(loader)
        log = RunLog(Path(output), Path(output), 0, batches)
        seconds = {"files": [], "steps": []}
        for epoch in range(rounds + 1):
            for kind, source in (("files", loader), ("steps", at_hand)):
                wait(device)
                start = time.perf_counter()
                engine_pretrain.train_one_epoch(model, source, stepper, log, args, epoch, use_sam=True)
                wait(device)
                seconds[kind].append(time.perf_counter() - start)
        log.close()
    return Timing.of(seconds["files"][1:]), Timing.of(seconds["steps"][1:])


class _AtHand:
    """A loader whose batches were all loaded before."""

    def __init__(self, loader):
        self.dataset, self.sampler = loader.dataset, loader.sampler
        self.batches = list(islice(loader, len(loader)))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)
