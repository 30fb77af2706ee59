"""The folders of a data set, ``DIR/SPLIT/CLASS/*``, checked before anything is read."""

from pathlib import Path

from torchvision.datasets import ImageFolder

from util.system.errors import InputError


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
