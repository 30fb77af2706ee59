"""From a folder of images to batches: checking, decoding once, augmenting with the map, in an order fixed by the seed."""

import os
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from util import distributed
from util.augment import Augment
from util.errors import InputError
from util.progress import track
from util.seeds import seed_everything


def open_folders(data_path: str, splits: tuple[str, ...], num_classes: int | None = None) -> list[ImageFolder]:
    """The folders ``train`` and ``val`` of a data set, checked: all there, the same classes, no class empty.

    Args:
        data_path: the folder that holds them.
        splits: names of those to open.
        num_classes: what the user says there should be, or None.

    Raises:
        InputError: naming the folder and what to do.
    """
    root = Path(data_path)
    if not root.is_dir():
        raise InputError(f"--data_path {root}: no such folder")
    folders = []
    for split in (root / name for name in splits):
        if not split.is_dir():
            raise InputError(f"--data_path {root}: no {split.name}/ in it; images belong in {split}/CLASS/")
        try:
            folders.append(ImageFolder(str(split)))
        except FileNotFoundError as error:  # no class folder, or classes without an image
            raise InputError(f"{split}: {error}") from None
    train, val = folders[0], folders[-1]
    if train.classes != val.classes:
        only_train = ", ".join(sorted(set(train.classes) - set(val.classes))) or "none"
        only_val = ", ".join(sorted(set(val.classes) - set(train.classes))) or "none"
        raise InputError(
            f"--data_path {root}: train/ and val/ must have the same classes; only in train/: {only_train}; "
            f"only in val/: {only_val}"
        )
    if len(train.classes) < 2:
        raise InputError(f"--data_path {root}: only one class, {train.classes[0]}; at least two are needed")
    if num_classes is not None and num_classes != len(train.classes):
        raise InputError(
            f"--num_classes {num_classes}: {train.root} holds {len(train.classes)} classes "
            f"({', '.join(train.classes)}); leave the option out to take them from the folder"
        )
    return folders


def read_image(path: str) -> Tensor:
    """Decode an image file to ``[3, H, W]`` uint8 RGB; raise :class:`InputError` naming a file that cannot be read."""
    try:
        with Image.open(path) as image:
            return TF.pil_to_tensor(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise InputError(f"cannot read image {path} ({error}); repair it or take it out") from None


def _available_memory() -> int:
    """Bytes of memory that can be taken without swapping (an estimate where the system does not tell)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 if hasattr(os, "sysconf") else 2 << 30


def default_threads() -> int:
    """As many threads for decoding and resizing as there are cores, eight at most."""
    return min(8, os.cpu_count() or 1)


class Images(Dataset):
    """The images of a folder as ``[3, H, W]`` uint8, each decoded at once to find unreadable files before any work.

    Args:
        folder: torchvision's ImageFolder.
        cache: "ram" keeps the decoded images; "off" decodes again at each use; "auto" keeps them when they take less than
            a third of the memory available.
    """

    def __init__(self, folder: ImageFolder, cache: str = "auto"):
        self.paths = [path for path, _ in folder.samples]
        self.labels = torch.tensor(folder.targets)
        self.classes = folder.classes
        self.root = Path(folder.root)
        keep = cache == "ram" or (cache == "auto" and self._decoded_bytes() < _available_memory() / 3)
        self.decoded = self._decode_all(keep)

    def _decoded_bytes(self) -> int:
        total = 0
        for path in self.paths:
            try:
                with Image.open(path) as image:  # reads the header only
                    total += 3 * image.width * image.height
            except Exception:
                read_image(path)  # raises the error that names the file
        return total

    def _decode_all(self, keep: bool) -> list[Tensor] | None:
        with ThreadPoolExecutor(default_threads()) as pool:
            images = pool.map(lambda path: read_image(path) if keep else read_image(path) is None, self.paths)
            title = f"reading {self.root}"
            decoded = list(track(images, title, total=len(self.paths)))
        return decoded if keep else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.decoded[index] if self.decoded else read_image(self.paths[index])


class TrainingImages(Dataset):
    """Augmented images with the patch weights of their maps and the noise that masks them.

    All that is random about an image is drawn from a seed made of the run's seed, the epoch and the image's index, so
    that neither the number of workers nor a stop and resume changes anything.

    Attributes:
        maps: ``[images, gh, gw]`` float32 in shared memory; ones until maps are computed, so that SAM with them would be
            random masking. Workers see what is written here.
    """

    def __init__(self, images: Images, augment: Augment, grid: tuple[int, int], seed: int):
        self.images, self.augment, self.seed = images, augment, seed
        self.maps = torch.ones(len(images), *grid).share_memory_()
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared: workers outlive an epoch

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        """``image`` [3, S, S] uint8, ``weights`` [L] float32, ``noise`` [L] float64 in [0, 1), ``label``, ``index``."""
        seed_everything(self.seed, "image", int(self._epoch), index)
        image, weights = self.augment(self.images[index], self.maps[index])
        noise = torch.rand(weights.shape, dtype=torch.float64)
        return {"image": image, "weights": weights, "noise": noise, "label": self.images.labels[index], "index": index}


def resize_whole(image: Tensor, size: int, interpolation: InterpolationMode = InterpolationMode.BICUBIC) -> Tensor:
    """A whole image ``[3, H, W]`` resized to a square ``[3, size, size]``, its aspect not kept."""
    return TF.resize(image, [size] * 2, interpolation, antialias=True)


def whole_batches(
    images: Images, size: int, batch_size: int, interpolation: InterpolationMode = InterpolationMode.BICUBIC
) -> Iterator[Tensor]:
    """Whole, un-augmented images in order, resized to squares; with several processes, every n-th.

    Threads prepare them two batches ahead, which starts at once, where loader workers would take a second to start.

    Yields:
        ``[B, 3, size, size]`` uint8; the last batch may be smaller.
    """

    shard = range(distributed.rank(), len(images), distributed.world_size())
    with ThreadPoolExecutor(default_threads()) as pool:
        ahead = deque()
        for start in range(0, len(shard), batch_size):
            indices = shard[start : start + batch_size]
            ahead.append(pool.map(lambda index: resize_whole(images[index], size, interpolation), indices))
            if len(ahead) > 2:
                yield torch.stack(list(ahead.popleft()))
        while ahead:
            yield torch.stack(list(ahead.popleft()))


def training_loader(dataset: TrainingImages, batch_size: int, num_workers: int, pin_memory: bool) -> DataLoader:
    """Batches in an order that is new every epoch; the last incomplete batch is dropped; sharded over processes."""
    sampler = DistributedSampler(
        dataset, distributed.world_size(), distributed.rank(), shuffle=True, seed=dataset.seed, drop_last=True
    )
    # forked workers share the decoded images instead of copying them
    context = "fork" if num_workers and sys.platform == "linux" else None
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        drop_last=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        multiprocessing_context=context,
        pin_memory=pin_memory,
    )
