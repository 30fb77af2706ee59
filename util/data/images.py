"""The image files of a folder: each checked before any long work, read with its full range, kept decoded where it fits."""

import hashlib
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as TF

from util.data.folders import LabelledFiles
from util.system import cores, distributed
from util.system.console import say, track
from util.system.errors import InputError


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB.

    Greyscale of more than 8 bits keeps its range: its 256 levels are spread over 12 bits (scanners' usual depth) where
    all values fit in them, and over 16 otherwise. Of an animation it is the first picture; transparency is left out.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() >= 2**16:
            raise ValueError("pixels outside 16 bits")
        depth = next(bits for bits in (8, 12, 16) if values.max() < 2**bits)
        image = Image.fromarray((values >> (depth - 8)).astype(np.uint8))
    return image.convert("RGB")


def read_image(path: str) -> Tensor:
    """Decode an image file to ``[3, H, W]`` uint8 RGB; raise :class:`InputError` naming a file that cannot be read."""
    try:
        with Image.open(path) as image:
            return TF.pil_to_tensor(to_rgb(image))
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise InputError(f"cannot read image {path} ({error})") from None


def default_threads() -> int:
    """As many threads for decoding and resizing as there are cores, eight at most."""
    return min(8, cores.usable())


def available_memory() -> int:
    """Bytes of memory that can be taken without swapping (an estimate where the system does not tell)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 if hasattr(os, "sysconf") else 2 << 30


class Checked:
    """Remembers which files were read without error, so that a check costs once; a file that changed is checked again.

    The list lies in the user's cache folder (``$XDG_CACHE_HOME/msmae`` or ``~/.cache/msmae``).
    """

    def __init__(self, root: Path):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "msmae"
        self.file = cache / f"checked-{hashlib.blake2b(str(root.resolve()).encode(), digest_size=8).hexdigest()}.json"
        try:
            self.known = json.loads(self.file.read_text())
        except (OSError, ValueError):
            self.known = {}

    @staticmethod
    def _stamp(path: str) -> list[int]:
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns]

    def __contains__(self, path: str) -> bool:
        return self.known.get(path) == self._stamp(path)

    def remember(self, paths: list[str]) -> None:
        """Note files that were read without error; where nothing can be written, nothing is remembered."""
        if not distributed.is_main():
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.file.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps({path: self._stamp(path) for path in paths}))
            temporary.replace(self.file)
        except OSError:
            pass


class Images(Dataset):
    """The images of a split as ``[3, H, W]`` uint8, each read at once to find unreadable files before any work.

    Args:
        files: of the split.
        cache: "ram" keeps the decoded images; "off" decodes again at each use; "auto" keeps them when they take less than
            a third of the memory available.
        on_bad: "error" raises for images that cannot be read; "skip" leaves them out.

    Attributes:
        paths, labels, patients: of the images that can be read; classes: names; root, split: where they come from.
        skipped: a line for each image left out: its path and why.

    Raises:
        InputError: naming all unreadable images (the first ten), or a class that has no readable one.
    """

    def __init__(self, files: LabelledFiles, cache: str = "auto", on_bad: str = "error"):
        self.root, self.split, self.classes = files.root, files.split, files.classes
        if files.from_folders:
            mention_ignored(files)
        keep = cache == "ram" or (cache == "auto" and decoded_bytes(files.paths) < available_memory() / 3)
        images, problems = self._read_all(files.paths, keep)
        if problems and on_bad == "error":
            more = "; ..." if len(problems) > 10 else ""
            many = f"{len(problems)} images: " if len(problems) > 1 else ""
            named = "; ".join(list(problems.values())[:10])
            raise InputError(f"{many}{named}{more}: repair or remove, or --on_bad_image skip")
        self.skipped = list(problems.values())
        kept = [index for index, path in enumerate(files.paths) if path not in problems]
        self.paths = [files.paths[index] for index in kept]
        self.labels = torch.tensor([files.labels[index] for index in kept])
        self.patients = [files.patients[index] for index in kept] if files.patients else None
        self.decoded = [images[index] for index in kept] if keep else None
        for number in set(files.labels) - set(self.labels.tolist()):
            raise InputError(f"{self.root}: no image of {self.classes[number]} in {self.split} can be read")

    def _read_all(self, paths: list[str], keep: bool) -> tuple[list[Tensor | None], dict[str, str]]:
        """Images where they are kept, and what is wrong with those that cannot be read."""
        checked, problems = Checked(self.root / self.split), {}

        def read(path: str) -> Tensor | None:
            try:
                image = read_image(path) if keep or path not in checked else None
                return image if keep else None
            except InputError as error:
                problems[path] = str(error)
                return None

        with ThreadPoolExecutor(default_threads()) as pool:
            images = list(track(pool.map(read, paths), f"reading {self.split}", total=len(paths)))
        checked.remember([path for path in paths if path not in problems])
        return images, {path: problems[path] for path in paths if path in problems}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.decoded[index] if self.decoded else read_image(self.paths[index])


def mention_ignored(files: LabelledFiles) -> None:
    """Say which files beside the images are no images by their names, lest a user think they are used."""
    folder = files.root / files.split
    beside = (
        Path(top) / name
        for label in files.classes
        for top, _, names in os.walk(folder / label)
        for name in names
    )  # fmt: skip
    others = Counter(path.suffix or "no extension" for path in beside if path.suffix.lower() not in IMG_EXTENSIONS)
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(5))
        say(f"note: files in {folder} whose names are not those of images are not used: {kinds}")


def note_skipped(folder: Path, *sets: Images) -> None:
    """List the images that were left out of sets in ``folder/skipped.txt``, and say so; nothing is written of none."""
    skipped = [line for images in sets for line in images.skipped]
    if skipped and distributed.is_main():
        written = folder / "skipped.txt"
        written.write_text("".join(f"{line}\n" for line in skipped))
        say(f"note: {len(skipped)} images that cannot be read are skipped, listed in {written}")


def decoded_bytes(paths: list[str]) -> int:
    """Memory that decoded images would take, by the headers of their files."""
    total = 0
    for path in paths:
        try:
            with Image.open(path) as image:  # reads the header only
                total += 3 * image.width * image.height
        except Exception:  # reading it will say what is wrong
            continue
    return total
