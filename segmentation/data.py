"""Images with their masks: found, checked before any work, and moved together."""

from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from util.data.copies import indices_to_train_on
from util.data.images import available_memory, decoded_bytes, default_threads, read_image
from util.data.loading import SeededDataset
from util.data.records import some
from util.system.console import track
from util.system.errors import InputError


class Files(NamedTuple):
    """An image and its masks, one for each class."""

    image: Path
    masks: list[Path]


def mask_folders(root: Path, split: str) -> list[Path]:
    """``root/split/masks/*``, a folder for each class, in the order of their names (numbers by value)."""
    folder = root / split / "masks"
    folders = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if not folders:
        raise InputError(f"--root {root}: no {split}/masks/0/ in it; masks belong in {folder}/0/, further classes in 1/ ...")
    return sorted(folders, key=lambda path: (int(path.name) if path.name.isdigit() else float("inf"), path.name))


def find_files(root: Path, split: str, img_ext: str, mask_ext: str) -> list[Files]:
    """The images of a split, by name, with their masks.

    Raises:
        InputError: when a folder is missing or holds no image of that extension, or an image has no mask.
    """
    if not root.is_dir():
        raise InputError(f"--root {root}: no such folder")
    folder = root / split / "images"
    if not folder.is_dir():
        raise InputError(f"--root {root}: no {split}/images/ in it")
    images = sorted(folder.glob(f"*{img_ext}"))
    if not images:
        others = Counter(path.suffix for path in folder.iterdir() if path.is_file()).most_common(3)
        there = ", ".join(f"{count} {suffix or 'without extension'}" for suffix, count in others) or "nothing"
        raise InputError(f"{folder}: no image *{img_ext} (--img_ext); it holds {there}")
    classes = mask_folders(root, split)
    files = [Files(image, [kind / f"{image.name.removesuffix(img_ext)}{mask_ext}" for kind in classes]) for image in images]
    lacking = [mask for each in files for mask in each.masks if not mask.is_file()]
    if lacking:
        named = some(map(str, lacking))
        raise InputError(f"{len(lacking)} images have no mask: {named} not found (--mask_ext {mask_ext})")
    return files


def read_mask(path: Path, size: tuple[int, int]) -> Tensor:
    """A mask ``[H, W]`` bool; raise :class:`InputError` unless it is as large as its image, of 0 and 255 (or 1) only."""
    mask = read_image(str(path))[0]
    if tuple(mask.shape) != size:
        raise InputError(f"mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[1]} x {size[0]}")
    values = mask.unique().tolist()
    if not set(values) <= {0, 255} and not set(values) <= {0, 1}:
        raise InputError(f"mask {path} is not binary: it holds {len(values)} values, such as {values[:4]}; use 0 and 255")
    return mask > 0


def read(files: Files) -> tuple[Tensor, Tensor]:
    """An image ``[3, H, W]`` uint8 and its masks ``[classes, H, W]`` bool."""
    image = read_image(str(files.image))
    return image, torch.stack([read_mask(path, tuple(image.shape[-2:])) for path in files.masks])


class Pairs:
    """The images and masks of a split, all read once to find what is wrong before any work, and kept where they fit.

    Args:
        root, split, img_ext, mask_ext: of :func:`find_files`.
        without: paths of images to leave out.

    Attributes:
        paths: of the images; classes: names of the mask folders.

    Raises:
        InputError: naming all files (the first ten) that cannot be used.
    """

    def __init__(self, root: str, split: str, img_ext: str, mask_ext: str, without: Collection[str] = ()):
        found = find_files(Path(root), split, img_ext, mask_ext)
        self.files = [each for each in found if str(each.image) not in without]
        self.paths = [str(each.image) for each in self.files]
        self.classes = [mask.parent.name for mask in self.files[0].masks]
        keep = decoded_bytes(self.paths) * (3 + len(self.classes)) / 3 < available_memory() / 3
        problems = []

        def check(files: Files) -> tuple[Tensor, Tensor] | None:
            try:
                pair = read(files)
            except InputError as error:
                problems.append(str(error))
                return None
            return pair if keep else None

        with ThreadPoolExecutor(default_threads()) as pool:
            checked = list(track(pool.map(check, self.files), f"reading {root}/{split}", total=len(self.files)))
        if problems:
            more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
            raise InputError("; ".join([*sorted(problems)[:10], *more]))
        self._kept = checked if keep else None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._kept[index] if self._kept else read(self.files[index])


def open_for_training(root: str, img_ext: str, mask_ext: str, num_classes: int | None, on_leak: str) -> tuple[Pairs, Pairs]:
    """The training and validation pairs, checked to have the same classes, ``num_classes`` of them unless that is None.

    Args:
        on_leak: what to do about validation images among the training images, byte for byte
            (:func:`util.data.copies.indices_to_train_on`).
    """
    val = open_split(root, "val", img_ext, mask_ext, num_classes)
    paths = [str(each.image) for each in find_files(Path(root), "train", img_ext, mask_ext)]
    kept = indices_to_train_on(paths, val.paths, "val", on_leak)
    train = Pairs(root, "train", img_ext, mask_ext, without=set(paths) - {paths[index] for index in kept})
    if train.classes != val.classes:
        raise InputError(f"--root {root}: val/masks/ holds the folders {val.classes}, train/masks/ {train.classes}")
    return train, val


def open_split(root: str, split: str, img_ext: str, mask_ext: str, num_classes: int | None) -> Pairs:
    """The pairs of a split, checked to have ``num_classes`` classes unless that is None."""
    pairs = Pairs(root, split, img_ext, mask_ext)
    classes = pairs.classes
    if num_classes not in (None, len(classes)):
        raise InputError(f"--num_classes {num_classes}: {split}/masks/ has {len(classes)} folders ({', '.join(classes)})")
    return pairs


def training_paths(root: str, img_ext: str) -> list[str]:
    """The training images where they are at hand, to know which of them are evaluated."""
    return sorted(map(str, (Path(root) / "train" / "images").glob(f"*{img_ext}")))


class RandomQuarterTurns(v2.Transform):
    """Turn by 0, 90, 180 or 270 degrees, each as likely, exactly.

    Args:
        probability: that an image is turned so; three quarters of these images end up turned.
    """

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        turns = int(torch.randint(4, ()))
        if self.probability < 1 and torch.rand(()) >= self.probability:
            turns = 0
        return {"turns": turns}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        return tv_tensors.wrap(torch.rot90(inpt, params["turns"], (-2, -1)), like=inpt)


def resize(size: tuple[int, int], antialias: bool = True) -> v2.Resize:
    """To height and width: images bilinearly, masks to the nearest pixel."""
    return v2.Resize(list(size), antialias=antialias)


def augmentation(
    size: tuple[int, int],
    *,
    turn_probability: float,
    flips: bool,
    crop_scale: tuple[float, float],
    color_jitter: float,
    antialias: bool,
) -> v2.Compose:
    """Random changes of images and their masks alike, ending at ``size``, height and width."""
    steps = [RandomQuarterTurns(turn_probability)] if turn_probability else []
    if flips:
        steps += [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    whole = crop_scale == (1.0, 1.0)
    steps.append(resize(size, antialias) if whole else v2.RandomResizedCrop(list(size), crop_scale, antialias=antialias))
    if color_jitter:
        steps.append(v2.ColorJitter(*3 * [color_jitter]))
    return v2.Compose(steps)


def apply(transform: v2.Transform, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Transform an image and its masks alike; masks come back as uint8, 0 or 1."""
    image, masks = transform(tv_tensors.Image(image), tv_tensors.Mask(masks.to(torch.uint8)))
    return image.as_subclass(Tensor), masks.as_subclass(Tensor)


class TrainingPairs(SeededDataset):
    """Augmented images and masks; ``image`` [3, h, w] uint8 and ``masks`` [classes, h, w] uint8."""

    def __init__(self, pairs: Pairs, augment: v2.Transform, seed: int):
        super().__init__(pairs.paths, seed)
        self.pairs, self.augment = pairs, augment

    def draw(self, index: int) -> dict:
        image, masks = apply(self.augment, *self.pairs[index])
        return {"image": image, "masks": masks}
