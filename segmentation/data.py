"""Images with their masks: found, checked before any work, and moved together."""

from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from util.data.augment import recolour
from util.data.copies import groups_of_copies, indices_to_train_on
from util.data.images import (
    UnreadableImages,
    available_memory,
    decoded_bytes,
    default_threads,
    read_mask,
    read_pixels,
    settled,
)
from util.data.intensity import Levels, colours, levels_of
from util.data.loading import SeededDataset
from util.data.opening import opened_together
from util.data.readers import is_image
from util.data.readers.base import MissingPackage, Pixels
from util.data.reading import AS_IT_IS, Reading
from util.data.seen_files import SeenFiles
from util.data.walk import class_names, is_hidden, refuse_shared
from util.system.console import say, track
from util.system.errors import InputError
from util.system.text import counted, some


class Files(NamedTuple):
    """An image and its masks, one for each class."""

    image: Path
    masks: list[Path]


def mask_folders(root: Path, split: str) -> list[Path]:
    """``root/split/masks/*``, a folder for each class, in the order of their names (numbers by value)."""
    folder = root / split / "masks"
    folders = [folder / name for name in class_names(folder)] if folder.is_dir() else []
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
    images = sorted(path for path in folder.glob(f"*{img_ext}") if not is_hidden(path.name))
    if not images:
        others = Counter(
            path.suffix for path in folder.iterdir() if path.is_file() and not is_hidden(path.name)
        ).most_common(3)
        there = ", ".join(f"{count} {suffix or 'without extension'}" for suffix, count in others) or "nothing"
        raise InputError(f"{folder}: no image *{img_ext} (--img_ext); it holds {there}")
    classes = mask_folders(root, split)
    files = [Files(image, [kind / f"{image.name.removesuffix(img_ext)}{mask_ext}" for kind in classes]) for image in images]
    lacking = [mask for each in files for mask in each.masks if not mask.is_file()]
    if lacking:
        named = some(map(str, lacking))
        raise InputError(f"{counted(len(lacking), 'mask is', 'masks are')} missing: {named} (--mask_ext {mask_ext})")
    return files


def note_other_images(folder: Path, img_ext: str) -> None:
    """Say which images in a folder have another extension, and are not used."""
    left = [path.name for path in sorted(folder.iterdir()) if not is_hidden(path.name) and not path.name.endswith(img_ext)]
    if others := [name for name in left if is_image(str(folder / name))]:
        which = counted(len(others), "image is", "images are")
        say(f"note: {which} not *{img_ext} (--img_ext) in {folder} and not used: {some(others)}")


def read_binary(path: Path, size: tuple[int, int], reading: Reading) -> Tensor:
    """A mask ``[H, W]`` bool; raise :class:`InputError` unless it is as large as its image, of 0 and 255 (or 1) only."""
    mask = read_mask(str(path), reading)
    if tuple(mask.shape) != size:
        raise InputError(f"mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[1]} x {size[0]}")
    values = mask.unique().tolist()
    if not set(values) <= {0, 255} and not set(values) <= {0, 1}:
        raise InputError(f"mask {path} is not binary: it holds {len(values)} values, such as {values[:4]}; use 0 and 255")
    return mask > 0


def read(files: Files, reading: Reading) -> tuple[Pixels, Tensor]:
    """An image, not scaled yet, and its masks ``[classes, H, W]`` bool."""
    pixels = read_pixels(str(files.image), reading)
    return pixels, torch.stack([read_binary(path, tuple(pixels.values.shape[-2:]), reading) for path in files.masks])


class Pairs:
    """The images and masks of a split, all read once to find what is wrong before any work, and kept where they fit.

    ``pairs[index]`` is an image ``[3, H, W]``, 0 to 255, uint8 where all images have 8 bits, else float32; and its masks
    ``[classes, H, W]`` bool.

    Args:
        root, split, img_ext, mask_ext: of :func:`find_files`.
        without: paths of images to leave out.
        reading: how images are read.

    Attributes:
        root, split: where they come from.
        paths, sizes: of the images, and their height and width; classes: names of the mask folders.
        reading: with the intensity range, found in these images where none was given.

    Raises:
        UnreadableImages: naming the files that cannot be used.
    """

    def __init__(
        self,
        root: str,
        split: str,
        img_ext: str,
        mask_ext: str,
        without: Collection[str] = (),
        reading: Reading = AS_IT_IS,
    ):
        self.root, self.split = Path(root), split
        files = find_files(self.root, split, img_ext, mask_ext)
        note_other_images(self.root / split / "images", img_ext)
        self.files = [each for each in files if str(each.image) not in without]
        self.paths = [str(each.image) for each in self.files]
        self.classes = [mask.parent.name for mask in self.files[0].masks]
        keep = decoded_bytes(self.paths, reading) * (3 + len(self.classes)) / 3 < available_memory() / 3
        problems, full, empty = [], [], []

        def check(files: Files) -> tuple[tuple[Pixels, Tensor] | None, Levels | None, tuple[int, int]]:
            try:
                pixels, masks = read(files, reading)
            except MissingPackage:
                raise
            except InputError as error:
                problems.append(str(error))
                return None, None, (0, 0)
            if masks.all():
                full.append(files.image)
            if not masks.any():
                empty.append(files.image)
            return (pixels, masks) if keep else None, levels_of(pixels), tuple(masks.shape[-2:])

        with ThreadPoolExecutor(default_threads()) as pool:
            checked = list(track(pool.map(check, self.files), f"reading {root}/{split}", total=len(self.files)))
        if problems:
            raise UnreadableImages(sorted(problems), "repair or remove")
        if len(full) == len(self.files):
            say(f"note: all masks of {split} cover their images whole; transparency is not read: save shapes as 0 and 255")
        if len(empty) == len(self.files):
            say(f"note: all masks of {split} are empty; save shapes as 0 and 255")
        kept, levels, sizes = zip(*checked, strict=True)
        self._kept, self.sizes, self._deep = kept if keep else None, sizes, any(levels)
        self.reading = settled(reading, levels, split)

    @property
    def decoded(self) -> bool:
        """Whether images and masks are kept decoded."""
        return self._kept is not None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels, masks = self._kept[index] if self._kept else read(self.files[index], self.reading)
        image = colours(pixels, self.reading.ends)
        return (image.float() if self._deep else image), masks


def open_for_training(
    root: str, img_ext: str, mask_ext: str, num_classes: int | None, on_leak: str, reading: Reading
) -> tuple[Pairs, Pairs]:
    """The training and validation pairs, checked to have the same classes, ``num_classes`` of them unless that is None.

    Args:
        on_leak: what to do about validation images among the training images, byte for byte
            (:func:`util.data.copies.indices_to_train_on`).
        reading: how images are read; those of validation as the training images.

    Raises:
        UnreadableImages: of both splits together.
    """
    refuse_shared([Path(root, split) for split in ("train", "val")])
    paths, judged = (
        [str(each.image) for each in find_files(Path(root), split, img_ext, mask_ext)] for split in ("train", "val")
    )
    kept = indices_to_train_on(paths, judged, "val", groups_of_copies([*judged, *paths]), on_leak)
    if not kept:
        raise InputError(f"--on_leak drop leaves no training image in {root}: all are copies of images of val")
    without = set(paths) - {paths[index] for index in kept}

    def open_one(split: str, reading: Reading) -> Pairs:
        if split == "train":
            return Pairs(root, split, img_ext, mask_ext, without, reading)
        return open_split(root, split, img_ext, mask_ext, num_classes, reading)

    train, val = opened_together(open_one, ("train", "val"), reading)
    if train.classes != val.classes:
        raise InputError(f"--root {root}: val/masks/ holds the folders {val.classes}, train/masks/ {train.classes}")
    return train, val


def open_split(root: str, split: str, img_ext: str, mask_ext: str, num_classes: int | None, reading: Reading) -> Pairs:
    """The pairs of a split, checked to have ``num_classes`` classes unless that is None."""
    pairs = Pairs(root, split, img_ext, mask_ext, reading=reading)
    classes = pairs.classes
    if num_classes not in (None, len(classes)):
        raise InputError(f"--num_classes {num_classes}: {split}/masks/ has {len(classes)} folders ({', '.join(classes)})")
    return pairs


def image_paths(root: str, split: str, img_ext: str) -> list[str]:
    """The images of a split, none where they are not at hand."""
    return sorted(map(str, (Path(root) / split / "images").glob(f"*{img_ext}")))


def seen_files(*splits: Pairs) -> SeenFiles:
    """What a checkpoint keeps of the images and masks of splits."""
    masks = {each.split: [[mask.stat().st_size for mask in files.masks] for files in each.files] for each in splits}
    return SeenFiles(splits[0].root, {each.split: (each.paths, masks[each.split]) for each in splits})


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


class Recolour(v2.Transform):
    """Brightness, contrast and saturation jitter of this strength, of images 0 to 255."""

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, strength: float):
        super().__init__()
        self.jitter = v2.ColorJitter(*3 * [strength])

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        return tv_tensors.wrap(recolour(self.jitter, inpt), like=inpt)


class Masks(tv_tensors.Mask):
    """Masks whose pixels keep their centres when they are resized, as those of images do.

    torchvision takes the nearest pixel to the corner: half an input pixel beside the image.
    """


@functional.register_kernel(functional.resize, Masks)
def resize_masks(masks: Masks, size: list[int], max_size: int | None = None, **_: Any) -> Masks:
    plain = functional.resize_image(masks.as_subclass(Tensor), size, InterpolationMode.NEAREST_EXACT, max_size)
    return tv_tensors.wrap(plain, like=masks)


@functional.register_kernel(functional.resized_crop, Masks)
def crop_and_resize_masks(masks: Masks, top: int, left: int, height: int, width: int, size: list[int], **_: Any) -> Masks:
    return resize_masks(functional.crop(masks, top, left, height, width), size)


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
        steps.append(Recolour(color_jitter))
    return v2.Compose(steps)


def apply(transform: v2.Transform, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Transform an image and its masks alike; masks come back as uint8, 0 or 1."""
    image, masks = transform(tv_tensors.Image(image), Masks(masks.to(torch.uint8)))
    return image.as_subclass(Tensor), masks.as_subclass(Tensor)


class TrainingPairs(SeededDataset):
    """Augmented images and masks; ``image`` [3, h, w], 0 to 255 (:class:`Pairs`), and ``masks`` [classes, h, w] uint8."""

    def __init__(self, pairs: Pairs, augment: v2.Transform, seed: int):
        super().__init__(pairs.paths, seed)
        self.pairs, self.augment = pairs, augment

    def draw(self, index: int) -> dict:
        image, masks = apply(self.augment, *self.pairs[index])
        return {"image": image, "masks": masks}
