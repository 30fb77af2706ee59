"""Writing: all of a prepared folder or nothing of it."""

import io
import os
import tempfile
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from util.prepare.download import Entry
from util.prepare.record import Record
from util.prepare.table import some
from util.system.errors import DiskError, InputError


def paths(records: list[Record], splits: list[str]) -> list[str]:
    """Where each image lies in the prepared folder: ``SPLIT/CLASS/NAME``."""
    return [f"{split}/{record.label}/{record.name}" for record, split in zip(records, splits, strict=True)]


def mask_paths(record: Record, split: str) -> tuple[str, str, str]:
    """Where the merged lesion mask of an image lies, where its copy for segmentation does, and the image beside that."""
    name = f"{PurePosixPath(record.name).stem}.png"
    return (
        f"masks/{split}/{record.label}/{name}",
        f"segmentation/{split}/masks/0/{name}",
        f"segmentation/{split}/images/{record.name}",
    )


def check_free(dest: Path) -> None:
    """Raise :class:`InputError` for a ``dest`` that cannot be replaced and is no prepared data set."""
    if dest.exists() and not dest.is_dir():
        raise InputError(f"DEST {dest} is a file; choose a new folder")
    if not dest.is_dir() or (dest / "SOURCE.md").is_file():
        return
    if any(dest.iterdir()):
        raise InputError(f"DEST {dest} is not empty; choose a new folder")
    if dest.samefile(Path.cwd()):
        raise InputError(f"DEST {dest} is the folder that you are in; choose a new folder in it, such as {dest / 'data'}")


def is_written(dest: Path, records: list[Record], splits: list[str], texts: dict[str, str]) -> bool:
    """Whether ``dest`` is what :func:`write` would write, by its texts and the names of its files.

    Raises:
        InputError: when it was prepared otherwise, or lacks some of its files.
    """
    if not (dest / "SOURCE.md").is_file():
        return False
    for name, text in texts.items():
        if not (dest / name).is_file() or (dest / name).read_bytes() != text.encode():
            raise InputError(f"DEST {dest} was prepared otherwise (its {name} differs); choose a new folder or remove it")
    wanted = paths(records, splits)
    for record, split in zip(records, splits, strict=True):
        wanted += mask_paths(record, split) if record.masks else ()
    lacking = [path for path in wanted if not (dest / path).exists()]
    if lacking:
        raise InputError(f"DEST {dest} was prepared so but lacks {some(lacking, 3)}; remove it and prepare it again")
    return True


def write(dest: Path, records: list[Record], splits: list[str], texts: dict[str, str], copy: bool) -> None:
    """Write images, masks and ``texts`` (by file name) beside ``dest`` and move them there when all is done.

    Args:
        dest: a folder that is not there yet, or empty.
        records: the images.
        splits: of each.
        texts: content of further files.
        copy: copy unpacked images too; otherwise they are linked, and only images in zips are copied.

    Raises:
        DiskError: when something cannot be written; nothing is left then.
    """
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{dest.name}-", dir=dest.parent) as scratch:
            folder = Path(scratch, "prepared")
            folder.mkdir()
            pairs = tqdm(zip(records, splits, strict=True), "writing", len(records), unit="image", disable=None, leave=False)
            for record, split in pairs:
                write_image(folder, record, split, copy)
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
            if dest.exists():
                dest.rmdir()  # empty, as was checked before
            folder.rename(dest)
    except OSError as error:
        raise DiskError(f"DEST {dest}: cannot be written ({error.strerror or error}); nothing was left there") from None


def write_image(folder: Path, record: Record, split: str, copy: bool) -> None:
    """One image and, where it has any, its lesion masks merged into one."""
    target = new_file(folder, f"{split}/{record.label}/{record.name}")
    if record.draw:
        with Image.open(io.BytesIO(record.entry.read())) as image:
            record.draw(image).save(target)
    else:
        put(record.entry, target, copy)
    if record.masks:
        mask, mask_again, image_again = mask_paths(record, split)
        merged = merge([entry.read() for entry in record.masks])
        merged.save(new_file(folder, mask))
        merged.save(new_file(folder, mask_again))
        put(record.entry, new_file(folder, image_again), copy)


def new_file(folder: Path, path: str) -> Path:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    return folder / path


def put(entry: Entry, target: Path, copy: bool) -> None:
    """Link to an unpacked file, or write a copy."""
    if entry.file is None or copy:
        target.write_bytes(entry.read())
        return
    try:
        target.symlink_to(os.path.abspath(entry.file))
    except (OSError, NotImplementedError) as error:
        raise InputError(f"{target.name}: links cannot be made here ({error}); give --copy") from None


def merge(masks: list[bytes]) -> Image.Image:
    """Several masks of one size as one: 255 where any of them is brighter than half, else 0."""
    lesion = [np.asarray(Image.open(io.BytesIO(data)).convert("L")) > 127 for data in masks]
    return Image.fromarray(np.logical_or.reduce(lesion).astype(np.uint8) * 255)
