"""Options that do not go together, found before any work: each check raises :class:`InputError`, says a note or returns."""

import argparse

from util.masking import hidden_counts
from util.system import distributed
from util.system.console import say
from util.system.errors import InputError


def data_path(path: str | None) -> None:
    if not path:
        raise InputError("--data_path is missing: give the folder with train/CLASS/* and val/CLASS/*, or a table")


def reading(args: argparse.Namespace) -> None:
    """Raise :class:`InputError` where the options that are typed on how images are read do not go together."""
    if args.intensity_range and args.window:
        raise InputError("--intensity_range and --window say the same in two ways: give one of them")
    if args.intensity_range and not args.intensity_range[0] < args.intensity_range[1]:
        low, high = args.intensity_range
        raise InputError(f"--intensity_range {low:g} {high:g}: the lower end comes first, and they must differ")
    if args.window and not args.window[1] > 0:
        centre, width = args.window
        raise InputError(f"--window {centre:g} {width:g}: the second number is the width, which must be above 0")
    if args.slice and args.slice[0] not in (0, 1, 2):
        axis, index = args.slice
        raise InputError(f"--slice {axis} {index}: the axis comes first and is 0, 1 or 2")


def grid(input_size: int, patch_size: int) -> int:
    """Number of patches of an image; raise :class:`InputError` where the sizes do not go together."""
    if input_size % patch_size:
        raise InputError(f"--input_size {input_size} is not a multiple of the patch size {patch_size} (--patch_size)")
    return (input_size // patch_size) ** 2


def ratios(num_patches: int, mask_ratio: float, throw_ratio: float, names: str) -> None:
    """Raise :class:`InputError` unless some patches are masked and some stay visible."""
    if round(mask_ratio + throw_ratio, 9) >= 1:
        raise InputError(f"{names} add up to {mask_ratio + throw_ratio:g}; they must stay below 1")
    masked, hidden = hidden_counts(num_patches, mask_ratio, throw_ratio)
    if masked < 1:
        raise InputError(f"{names}: no patch of {num_patches} would be masked; raise the mask ratio")
    if hidden >= num_patches:
        raise InputError(f"{names}: no patch of {num_patches} would stay visible; lower them")


def batches(batch_size: int, accum_iter: int, images: int) -> int:
    """The effective batch, over processes and accumulation; raise :class:`InputError` unless the training set fills it."""
    processes = distributed.world_size()
    effective = batch_size * processes * accum_iter
    if effective > images:
        raise InputError(
            f"--batch_size {batch_size} (x {processes} processes x --accum_iter {accum_iter}) is more than the {images} "
            "training images; lower it"
        )
    return effective


def training(args: argparse.Namespace) -> None:
    """Raise :class:`InputError` where options that every training has do not go together."""
    if args.crop_scale[0] > args.crop_scale[1]:
        raise InputError(f"--crop_scale {args.crop_scale[0]:g} {args.crop_scale[1]:g}: the smaller share comes first")
    if args.resume and args.overwrite:
        raise InputError("--resume goes on with a run and --overwrite replaces it: give one of them")
    if args.start_epoch is not None and args.start_epoch >= args.epochs:
        raise InputError(f"--start_epoch {args.start_epoch} must be below --epochs {args.epochs}")


def note_warmup(warmup_epochs: float, epochs: int) -> None:
    """Say where a training ends before its warm-up does; that may be meant, in a trial."""
    if warmup_epochs >= epochs:
        say(
            f"note: --warmup_epochs {warmup_epochs:g} is not below --epochs {epochs}: the learning rate rises to the end "
            "and never reaches its full value"
        )


def note_lowest_rate(min_lr: float, lr: float) -> None:
    """Say where the cosine would raise the learning rate."""
    if min_lr > lr:
        say(f"note: --min_lr {min_lr:g} is above the learning rate {lr:g}, which rises to it: give a lower one")


def finetuning(args: argparse.Namespace) -> None:
    """Raise :class:`InputError` where options of fine-tuning do not go together."""
    if args.unmasked_epochs > args.epochs:
        raise InputError(f"--unmasked_epochs {args.unmasked_epochs} is more than --epochs {args.epochs}")
    if args.unmasked_epochs and args.masking == "none":
        raise InputError(
            f"--unmasked_epochs {args.unmasked_epochs}: no epoch is masked anyway; add --masking attention or random"
        )
    if args.aa:
        from util.data.augment import PolicyAugment  # timm takes a second to load

        PolicyAugment.check(args.aa)
    if args.cutmix_minmax and args.cutmix_minmax[0] > args.cutmix_minmax[1]:
        low, high = args.cutmix_minmax
        raise InputError(f"--cutmix_minmax {low:g} {high:g}: the smaller share comes first")
    if (args.mixup or args.cutmix or args.cutmix_minmax) and args.batch_size % 2:
        raise InputError(f"--mixup and --cutmix pair the images of a batch: --batch_size {args.batch_size} must be even")
