"""Which files of a folder are images of a class: hidden ones are not, and symbolic links may not lead in a circle."""

import errno
import os
import stat
from pathlib import Path

from util.data.readers import is_image
from util.system.errors import InputError


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: ``.ipynb_checkpoints``, ``.DS_Store``, ``._x.png``, ``__MACOSX``."""
    return name.startswith(".") or name == "__MACOSX"


def class_names(folder: Path) -> list[str]:
    """The folders in a folder, sorted; hidden ones are left out.

    Raises:
        InputError: naming a symbolic link that leads in a circle.
    """
    names = sorted(name for name in os.listdir(folder) if not is_hidden(name))
    for name in names:
        refuse_loop(folder / name)
    return [name for name in names if (folder / name).is_dir()]


def images_below(folder: Path) -> list[str]:
    """The images in a folder and the folders in it, in torchvision's order (ImageFolder); hidden ones are left out.

    Raises:
        InputError: naming a symbolic link that leads in a circle.
    """
    images_of = []
    for directory, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        images = [name for name in files if not is_hidden(name) and is_image(os.path.join(directory, name))]
        for name in (*folders, *images):
            refuse_loop(Path(directory, name))
        images_of.append((directory, sorted(images)))
    return [os.path.join(directory, name) for directory, images in sorted(images_of) for name in images]


def refuse_loop(path: Path) -> None:
    """Raise :class:`InputError` where a path is a symbolic link to itself or to a folder that it lies in."""
    if not path.is_symlink():
        return
    try:
        target = path.resolve() if stat.S_ISDIR(path.stat().st_mode) else None
        circle = target is not None and any(parent.resolve().is_relative_to(target) for parent in path.parents)
    except OSError as error:
        circle = error.errno == errno.ELOOP
    if circle:
        raise InputError(f"{path} is a symbolic link that leads in a circle: remove it")


def refuse_shared(splits: list[Path]) -> None:
    """Raise :class:`InputError` where two splits, or two class folders of them, are one folder by a symbolic link.

    Args:
        splits: folders with a folder for each class; those that are not there are passed over.
    """
    splits = [split for split in splits if split.is_dir()]
    for folders in (splits, [split / name for split in splits for name in class_names(split)]):
        known: dict[Path, Path] = {}
        for folder in folders:
            other = known.setdefault(folder.resolve(), folder)
            if other != folder:
                one, two = (f"{each.relative_to(splits[0].parent)}/" for each in (other, folder))
                raise InputError(
                    f"{splits[0].parent}: {one} and {two} are one folder, by a symbolic link: each needs images of its own"
                )
