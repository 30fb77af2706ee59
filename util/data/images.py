"""The images of a split: each checked before any long work, read with all its levels, kept decoded where they fit."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from util.data import readers
from util.data.folders import LabelledFiles
from util.data.intensity import Levels, colours, far_outside, levels_of, shared_range
from util.data.readers.base import MissingPackage, Pixels
from util.data.reading import AS_IT_IS, Reading
from util.data.walk import is_hidden
from util.system import cores, distributed
from util.system.console import say, track
from util.system.errors import InputError
from util.system.text import counted, one_line

SAMPLED = 32  # images that are decoded to estimate what all of them take


def read_pixels(path: str, reading: Reading) -> Pixels:
    """Decode an image file; raise :class:`InputError` naming one that cannot be read, in one line."""
    try:
        return readers.read(path, reading)
    except MissingPackage as error:
        raise MissingPackage(f"{path}: {error}") from None
    except Exception as error:  # decoders raise nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read image {path} ({reason})") from None


def read_image(path: str, reading: Reading = AS_IT_IS) -> Tensor:
    """Read an image file as the network's input is made from it (:func:`util.data.intensity.colours`).

    Args:
        path: of the file; what it holds decides on its format.
        reading: what the options or a checkpoint say, :meth:`Reading.of`. Without a range, an image of more than 8 bits is
            scaled by its own levels.

    Returns:
        ``[3, H, W]``, 0 to 255, RGB: uint8 of an 8-bit image, float32 of one that has more.

    Raises:
        InputError: naming a file that cannot be read.
    """
    return colours(read_pixels(path, reading), reading.ends)


def read_mask(path: str, reading: Reading = AS_IT_IS) -> Tensor:
    """A mask ``[H, W]`` uint8, 0 to 255: of one in colour the brightest of the three.

    Of one of more than 8 bits the larger of two values is 255 and the smaller 0, if that is 0 or less: a scan's header may
    have moved both. Any others are scaled so that the largest is 255; of these only 0 and less become 0.
    """
    pixels = read_pixels(path, Reading(frame=reading.frame, slice=reading.slice))
    if pixels.values.dtype == torch.uint8:
        return pixels.values.amax(0)
    values = pixels.values.float().nan_to_num(0).amax(0)
    found = values.unique()
    if len(found) == 2 and found[0] <= 0:
        return 255 * (values == found[0 if pixels.inverted else 1]).byte()
    if pixels.inverted:
        values = (pixels.bit_range[1] if pixels.bit_range else values.max()) - values
    scaled = (255 * values / values.max().clamp_min(1e-12)).clamp(1, 255).round()
    return (scaled * (values > 0)).byte()


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
    """Remembers which files were read without error, and the levels of deep ones, so that a check costs once; a file that
    changed is checked again.

    The list lies in the user's cache folder (``$XDG_CACHE_HOME/msmae`` or ``~/.cache/msmae``).
    """

    def __init__(self, root: Path, reading: Reading):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "msmae"
        subject = f"{root.resolve()} {reading.frame} {reading.slice} {reading.window}"
        self.file = cache / f"levels-{hashlib.blake2b(os.fsencode(subject), digest_size=8).hexdigest()}.json"
        try:
            self.known = json.loads(self.file.read_text())
        except (OSError, ValueError):
            self.known = {}

    @staticmethod
    def _stamp(path: str) -> list[int]:
        status = os.stat(readers.file_of(path))
        return [status.st_size, status.st_mtime_ns]

    def __contains__(self, path: str) -> bool:
        return path in self.known and self.known[path][0] == self._stamp(path)

    def levels(self, path: str) -> Levels | None:
        """What was remembered of an image that is checked."""
        levels = self.known[path][1]
        return Levels(*(tuple(ends) if ends else None for ends in levels)) if levels else None

    def remember(self, levels: dict[str, Levels | None]) -> None:
        """Note files that were read without error; where nothing can be written, nothing is remembered."""
        if not distributed.is_main():
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.file.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps({path: [self._stamp(path), each] for path, each in levels.items()}))
            temporary.replace(self.file)
        except OSError:
            pass


class UnreadableImages(InputError):
    """Names the first ten of the images that cannot be read, and a remedy; ``problems`` has a line for each."""

    def __init__(self, problems: list[str], remedy: str = "repair or remove, or --on_bad_image skip"):
        self.problems, self.remedy = problems, remedy
        many = f"{len(problems)} images: " if len(problems) > 1 else ""
        more = "; ..." if len(problems) > 10 else ""
        super().__init__(f"{many}{'; '.join(problems[:10])}{more}: {remedy}")


class Images(Dataset):
    """The images of a split, each read at once to find unreadable files before any work.

    ``images[index]`` is ``[3, H, W]``, 0 to 255: uint8 where all images have 8 bits, else float32.

    Args:
        files: of the split.
        cache: "ram" keeps the decoded images; "off" decodes again at each use; "auto" keeps them when they take less than
            a third of the memory available.
        on_bad: "error" raises for images that cannot be read; "skip" leaves them out.
        reading: how files are read.

    Attributes:
        paths, labels, patients: of the images that can be read; classes: names; root, split: where they come from.
        skipped: a line for each image left out: its path and why.
        deep: there are images of more than 8 bits.
        decoded: all of them, where they are kept in memory; else None.
        reading: with the intensity range, found in these images where none was given.

    Raises:
        UnreadableImages: naming them.
        InputError: naming a class that has no readable image.
    """

    def __init__(self, files: LabelledFiles, cache: str = "auto", on_bad: str = "error", reading: Reading = AS_IT_IS):
        self.root, self.split, self.classes = files.root, files.split, files.classes
        if files.from_folders:
            mention_ignored(files)
        keep = cache == "ram" or (cache == "auto" and decoded_bytes(files.paths, reading) < available_memory() / 3)
        images, levels, problems = self._read_all(files.paths, keep, reading)
        if problems and on_bad == "error":
            raise UnreadableImages(list(problems.values()))
        self.skipped = list(problems.values())
        kept = [index for index, path in enumerate(files.paths) if path not in problems]
        self.paths = [files.paths[index] for index in kept]
        self.labels = torch.tensor([files.labels[index] for index in kept])
        self.patients = [files.patients[index] for index in kept] if files.patients else None
        self.decoded = [images[index] for index in kept] if keep else None
        for number in set(files.labels) - set(self.labels.tolist()):
            raise InputError(f"{self.root}: no image of {self.classes[number]} in {self.split} can be read")
        self.reading = settled(reading, list(levels.values()), self.split)
        self.deep = any(levels.values())

    def _read_all(
        self, paths: list[str], keep: bool, reading: Reading
    ) -> tuple[list[Pixels | None], dict[str, Levels | None], dict[str, str]]:
        """Images where they are kept, the levels of those that can be read, and what is wrong with the others."""
        checked = Checked(self.root / self.split, reading)
        known = set() if keep else {path for path in paths if path in checked}
        levels: dict[str, Levels | None] = {path: checked.levels(path) for path in known}
        problems: dict[str, str] = {}

        def read(path: str) -> Pixels | None:
            try:
                pixels = read_pixels(path, reading)
                levels[path] = levels_of(pixels)
                return pixels if keep else None
            except MissingPackage:
                raise
            except InputError as error:
                problems[path] = str(error)
                return None

        new = [path for path in paths if path not in known]
        with ThreadPoolExecutor(default_threads()) as pool:
            images = dict(zip(new, track(pool.map(read, new), f"reading {self.split}", total=len(new)), strict=True))
        levels = {path: levels[path] for path in paths if path in levels}
        if new:
            checked.remember(levels)
        return [images.get(path) for path in paths], levels, {path: problems[path] for path in paths if path in problems}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        pixels = self.decoded[index] if self.decoded else None
        image = colours(pixels or read_pixels(self.paths[index], self.reading), self.reading.ends)
        return image.float() if self.deep else image


def settled(reading: Reading, levels: Sequence[Levels | None], name: str) -> Reading:
    """How a set is read, with the range of its deep images where no option and no checkpoint says one; says which it is.

    Args:
        levels: of its images, None for those of 8 bits.
        name: of the set, for a reader.
    """
    deep = [each for each in levels if each]
    if not deep:
        if reading.ends:
            say(f"note: the images of {name} have 8 bits and are used as they are, without an intensity range")
        return reading
    shared = shared_range(deep)
    if not shared:
        say(f"{name}: images have windows of their own")
        return reading
    source = "as in training or as the options say"
    if reading.ends is None:
        ends, source = shared
        reading = replace(reading, intensity_range=ends)
    low, high = reading.ends or shared[0]
    say(f"{name}: intensity range {low:g} to {high:g} ({source})")
    beyond = far_outside(deep, (low, high))
    if beyond:
        say(
            f"note: {beyond} of the {len(levels)} images of {name} reach far beyond this range; --intensity_range or "
            "--window sets another"
        )
    return reading


def mention_ignored(files: LabelledFiles) -> None:
    """Say which files beside the images are no images, lest a user think they are used."""
    folder, used = files.root / files.split, set(files.paths)
    beside = (
        Path(path)
        for top, _, names in os.walk(folder)
        if Path(top) != folder  # in the folders of classes
        for path in (os.path.join(top, name) for name in names)
        if path not in used
    )
    others = Counter(
        path.suffix or "no extension"
        for path in beside
        if not any(map(is_hidden, path.relative_to(folder).parts)) and not readers.is_image(str(path))
    )
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(5))
        say(f"note: files in {folder} that are no images by name or content are not used: {kinds}")


def note_skipped(written: Path, *sets: Images) -> None:
    """List the images that were left out of sets in a file, and say so; of none there is no file."""
    skipped = [line for images in sets for line in images.skipped]
    if not distributed.is_main():
        return
    written.unlink(missing_ok=True)  # of a time when images were left out that can be read by now
    if skipped:
        written.write_text("".join(f"{one_line(line)}\n" for line in skipped), encoding="utf-8")
        unread = counted(len(skipped), "image that cannot be read is", "images that cannot be read are")
        say(f"note: {unread} skipped, listed in {written}")


def decoded_bytes(paths: Sequence[str], reading: Reading) -> float:
    """Memory that decoded images would take, estimated from some of them."""
    sizes = []
    for path in paths[:: max(1, len(paths) // SAMPLED)]:
        try:
            sizes.append(read_pixels(path, reading).values.nbytes)
        except MissingPackage:
            raise
        except InputError:  # reading all of them will say what is wrong
            continue
    return len(paths) * sum(sizes) / max(1, len(sizes))
