"""Augmentation of one image together with its attention map, and the mixing of batches with theirs (METHOD.md "The map").

What moves the image moves the map alike; what only recolours the image leaves the map as it is.
"""

import math
import random
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import IMAGENET_DEFAULT_MEAN, Mixup
from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop, v2
from torchvision.transforms.v2 import functional as TF

from util.data.map_geometry import crop_map, patch_weights
from util.system.errors import InputError

GEOMETRIC_OPERATIONS = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateXRel", "TranslateY", "TranslateYRel")


@cache  # copying them to a GPU at every step would make the host wait for it
def _mean_and_std(device: torch.device, mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    first, second = torch.tensor((mean, std), device=device).view(2, 3, 1, 1)
    return first, second


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Bytes ``[..., 3, H, W]`` (0 to 255, RGB) to float32 with a mean and deviation, of pixels in [0, 1], taken out."""
    centre, spread = _mean_and_std(images.device, mean, std)
    return (images.float() - 255 * centre) / (255 * spread)


def denormalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """The inverse of :func:`normalize`, as float32 in [0, 1]."""
    centre, spread = _mean_and_std(images.device, mean, std)
    return (images.float() * spread + centre).clamp(0, 1)


def _operations(transform) -> list:
    """The operations of timm's RandAugment or AutoAugment."""
    return getattr(transform, "ops", None) or [op for sub_policy in transform.policy for op in sub_policy]


def _posterize(image: Image.Image, bits: int, **_) -> Image.Image:
    """timm draws 0 to 8 bits to keep; current Pillow refuses 0, which would leave a black image."""
    return ImageOps.posterize(image, max(bits, 1))


class PolicyAugment:
    """timm's AutoAugment or RandAugment by its configuration string, applied to an image and its map with one draw.

    timm draws from ``random`` and ``numpy.random`` while it works. The policy runs twice from the same random state: on
    the image as it is, and on the map with every operation that does not move pixels made idle.
    """

    def __init__(self, config: str, size: int, mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN):
        build = rand_augment_transform if config.startswith("rand") else auto_augment_transform
        self.on_image, self.on_map = (
            build(config, {"translate_const": int(size * 0.45), "img_mean": fill})
            for fill in (tuple(round(255 * value) for value in mean), 0)
        )
        for op in _operations(self.on_map):
            if op.name not in GEOMETRIC_OPERATIONS:
                op.aug_fn = lambda image, *_, **__: image
        for op in _operations(self.on_image):
            if op.name.startswith("Posterize"):
                op.aug_fn = _posterize

    @staticmethod
    def check(config: str) -> None:
        """Raise :class:`InputError` unless ``config`` is a policy that can move an image and its map alike."""
        try:
            PolicyAugment(config, size=224)
        except Exception:
            raise InputError(
                f"--aa {config}: not a policy known here; use rand-m9-mstd0.5-inc1, original, originalr, v0 or v0r"
            ) from None

    def __call__(self, image: Tensor, pixel_map: Tensor) -> tuple[Tensor, Tensor]:
        states = random.getstate(), np.random.get_state()
        moved_image = self.on_image(Image.fromarray(image.permute(1, 2, 0).numpy()))
        random.setstate(states[0])
        np.random.set_state(states[1])
        moved_map = self.on_map(Image.fromarray(pixel_map.numpy()))
        # bicubic resampling may overshoot below zero, which a weight cannot be
        return TF.pil_to_tensor(moved_image), torch.from_numpy(np.array(moved_map)).clamp_min(0)


class Augment:
    """Random resized crop (bicubic) and horizontal flip; colour jitter or a timm policy on request.

    Args:
        size: side of the result in pixels.
        patch_size: side of a patch in pixels.
        crop_scale: smallest and largest share of the image's area that a crop takes.
        color_jitter: strength of brightness, contrast and saturation jitter, 0 for none; a policy replaces it.
        policy: configuration string of a timm policy, or None.
        mean: of the pixels' normalisation, which a policy fills uncovered corners with.
    """

    def __init__(
        self,
        size: int,
        patch_size: int,
        crop_scale: tuple[float, float] = (0.2, 1.0),
        color_jitter: float = 0.0,
        policy: str | None = None,
        mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN,
    ):
        self.size, self.patch_size, self.crop_scale = size, patch_size, crop_scale
        self.policy = PolicyAugment(policy, size, mean) if policy else None
        self.color = v2.ColorJitter(*3 * [color_jitter]) if color_jitter and not policy else None

    def __call__(self, image: Tensor, grid_map: Tensor) -> tuple[Tensor, Tensor]:
        """Augment one image and its map with the same random draw.

        Args:
            image: ``[3, H, W]`` uint8.
            grid_map: ``[gh, gw]``, the map of the whole image.

        Returns:
            The image ``[3, size, size]`` uint8 and its patch weights ``[(size / patch_size) ** 2]``.
        """
        box = RandomResizedCrop.get_params(image, scale=list(self.crop_scale), ratio=[3 / 4, 4 / 3])
        cell = 1 if self.policy else self.patch_size  # a policy moves pixels
        cropped_map = crop_map(grid_map, box, tuple(image.shape[-2:]), self.size, cell)
        image = TF.resized_crop(image, *box, [self.size] * 2, InterpolationMode.BICUBIC, antialias=True)
        if torch.rand(()) < 0.5:
            image, cropped_map = image.flip(-1), cropped_map.flip(-1)
        if self.policy:
            image, pixel_map = self.policy(image, cropped_map)
            return image, patch_weights(pixel_map, self.patch_size)
        if self.color:
            image = self.color(image)
        return image, cropped_map.flatten()


def mix_batch(mixup: Mixup, images: Tensor, weights: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Apply timm's Mixup or CutMix to images and, as a fourth channel, to their maps.

    Args:
        images: ``[B, 3, H, W]`` float, B even; weights: ``[B, L]``; labels: ``[B]``.

    Returns:
        Mixed images, mixed weights (each patch's weight is spread evenly over its pixels) and soft labels ``[B, classes]``.
    """
    patch_size = math.isqrt(images.shape[-2] * images.shape[-1] // weights.shape[1])
    rows = images.shape[-2] // patch_size
    grid = weights.to(images.dtype).unflatten(1, (1, rows, -1)) / patch_size**2
    pixel_maps = grid.repeat_interleave(patch_size, -2).repeat_interleave(patch_size, -1)
    mixed, soft_labels = mixup(torch.cat([images, pixel_maps], dim=1), labels)
    return mixed[:, :3], patch_weights(mixed[:, 3], patch_size), soft_labels
