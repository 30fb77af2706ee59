"""From a folder of images to batches: augmented with their maps in an order fixed by the seed, or whole and in order."""

import sys
import tempfile
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from multiprocessing.connection import Listener
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from util.data.augment import Augment
from util.data.images import Images, default_threads
from util.system import cores, distributed, interruption
from util.system.console import say
from util.system.errors import InputError
from util.system.seeds import derive_seed, seed_everything

T = TypeVar("T")


class WholeImages(Protocol):
    """Images that can be counted and read by index, ``[3, H, W]``, 0 to 255 (uint8, or float32 of more bits), and a name."""

    split: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


class SeededDataset(Dataset, ABC):
    """Training images whose randomness depends on nothing but the run's seed, the epoch and the image's index.

    So neither the number of workers nor a stop and resume changes anything.

    Args:
        paths: of the images.
        seed: the run's.
    """

    def __init__(self, paths: list[str], seed: int):
        self.paths, self.seed = paths, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared: workers outlive an epoch

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> dict:
        """A dictionary of tensors, ``image`` and ``index`` among them.

        Args:
            number: the index of the image, plus the length of the set for each earlier draw of it in this epoch.
        """
        times, index = divmod(number, len(self))
        seed_everything(self.seed, "image", int(self._epoch), index, *([times] if times else []))
        return {**self.draw(index), "index": index}

    @abstractmethod
    def draw(self, index: int) -> dict:
        """An image and what belongs to it, augmented by PyTorch's, NumPy's and Python's generators as they are."""


class TrainingImages(SeededDataset):
    """Augmented images with the patch weights of their maps and the noise that masks them.

    Args:
        images: of the training set.
        augment: of an image and its map.
        maps: ``[images, gh, gw]`` float32 in shared memory; loader workers see what is written there later.
        seed: the run's.
    """

    def __init__(self, images: Images, augment: Augment, maps: Tensor, seed: int):
        super().__init__(images.paths, seed)
        self.images, self.augment, self.maps = images, augment, maps
        if images.deep and augment.policy:
            say("note: --aa works in 8 bits: training images are rounded to 256 levels once they are cropped")

    def draw(self, index: int) -> dict:
        """``image`` [3, S, S], 0 to 255, ``weights`` [L] float32, ``noise`` [L] float64 in [0, 1), ``label``."""
        image, weights = self.augment(self.images[index], self.maps[index])
        noise = torch.rand(weights.shape, dtype=torch.float64)
        return {"image": image, "weights": weights, "noise": noise, "label": self.images.labels[index]}


def resize_whole(image: Tensor, size: int) -> Tensor:
    """A whole image ``[3, H, W]`` resized bilinearly to a square ``[3, size, size]``, its aspect not kept."""
    return TF.resize(image, [size] * 2, InterpolationMode.BILINEAR, antialias=True)


def prepared(prepare: Callable[[int], T], indices: Sequence[int], batch_size: int) -> Iterator[list[T]]:
    """``prepare(index)`` for each index, in order and in batches; with several processes, every n-th.

    Threads work two batches ahead, which starts at once, where loader workers would take a second to start.
    """
    shard = indices[distributed.rank() :: distributed.world_size()]
    with ThreadPoolExecutor(default_threads()) as pool:
        ahead: deque[Iterator[T]] = deque()
        for start in range(0, len(shard), batch_size):
            ahead.append(pool.map(prepare, shard[start : start + batch_size]))
            if len(ahead) > 2:
                yield list(ahead.popleft())
        for batch in ahead:
            yield list(batch)


def whole_batches(images: WholeImages, size: int, batch_size: int, chosen: Sequence[int] | None = None) -> Iterator[Tensor]:
    """Whole images in order, resized to squares; with several processes, every n-th.

    Args:
        images: of which ``chosen``, indices, are used (None: all).
        size: side of the squares in pixels.
        batch_size: images in a batch; the last one may be smaller.

    Yields:
        ``[B, 3, size, size]``, 0 to 255 (:class:`Images`).
    """
    indices = range(len(images)) if chosen is None else chosen
    for batch in prepared(lambda index: resize_whole(images[index], size), indices, batch_size):
        yield torch.stack(batch)


class EpochSampler(DistributedSampler):
    """The order of an epoch, without the first ``skip`` images of this process.

    Args:
        chances: ``[N]``, how likely each image is to be drawn, in any unit. As many images as there are are drawn from all,
            so that some come twice and some not at all. None: each comes once.
    """

    skip = 0

    def __init__(self, *args, chances: Tensor | None = None, **named):
        super().__init__(*args, **named)
        self.chances = chances

    def __iter__(self) -> Iterator[int]:
        order = super().__iter__() if self.chances is None else iter(self._own(self.drawn().tolist()))
        return islice(order, self.skip, None)

    def drawn(self) -> Tensor:
        """The images drawn by chance in this epoch, over all processes."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "balance", self.epoch))
        return torch.multinomial(self.chances, len(self.dataset), replacement=True, generator=generator)

    def _own(self, drawn: list[int]) -> list[int]:
        """Those of this process; an image that comes again is asked for by a number beyond the set, and augmented anew."""
        times: Counter[int] = Counter()
        numbers = []
        for index in drawn:
            numbers.append(index + times[index] * len(self.dataset))
            times[index] += 1
        return numbers[self.rank : self.total_size : self.num_replicas]


def check_workers(num_workers: int | None) -> None:
    """Raise :class:`InputError` unless sockets can be opened in the temporary folder: workers hand batches over by them.

    A worker that cannot open one drops its batches, and training would wait for the first one for ever. Nothing is checked
    of None, a number that :func:`loader_workers` chooses later.
    """
    if not num_workers:
        return
    try:
        Listener().close()
    except OSError as error:
        raise InputError(
            f"--num_workers: workers cannot open a socket in the temporary folder {tempfile.tempdir or ''} "
            f"({error.strerror or error}); set TMPDIR to a folder with room and a short path, or give --num_workers 0"
        ) from None


def loader_workers(asked: int | None, device: torch.device, *, decoded: bool) -> int:
    """How many processes load images: ``asked``, or a number that suits the machine.

    That is one a core, ten at most as in MAE; but none where one or two cores train and images are kept ``decoded``: to crop
    them takes less there than to hand batches over, and the threads that compute wait for no loader
    (benchmarks/README.md "Small models").

    Raises:
        InputError: where workers could not hand batches over.
    """
    if asked is not None:
        return asked  # checked before anything else
    count = 0 if decoded and device.type == "cpu" and cores.usable() <= 2 else min(10, cores.usable())
    check_workers(count)
    return count


def training_loader(
    dataset: SeededDataset, batch_size: int, num_workers: int, pin_memory: bool, chances: Tensor | None = None
) -> DataLoader:
    """Batches in an order that is new every epoch; the last incomplete batch is dropped; sharded over processes.

    With ``chances`` ``[N]``, images are drawn by them (:class:`EpochSampler`).
    """
    sampler = EpochSampler(
        dataset,
        distributed.world_size(),
        distributed.rank(),
        shuffle=True,
        seed=dataset.seed,
        drop_last=True,
        chances=chances,
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
        worker_init_fn=interruption.leave_to_parent,
    )
