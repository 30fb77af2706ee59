"""The files of a download, whether they lie in folders, in zips, or in zips inside zips: one list of entries."""

import io
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from util.system.errors import DiskError, InputError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}
CLUTTER = {"__MACOSX", "Thumbs.db", "desktop.ini"}  # what file managers leave behind, and names with a dot in front
OTHER_ARCHIVES = {".rar", ".7z", ".tar", ".gz", ".tgz"}

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a download.

    Attributes:
        path: where it lies in the download, with ``/``; a zip counts as a folder.
        read_bytes: reads it, from its own file or from the zip that holds it.
        file: its own file, None in a zip.
    """

    path: str
    read_bytes: Callable[[], bytes]
    file: Path | None = None

    def read(self) -> bytes:
        """The content; raises :class:`InputError` naming a file that cannot be read, or a zip that is damaged there."""
        try:
            return self.read_bytes()
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise InputError(f"{self.path}: cannot be read ({error})") from None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).stem

    @property
    def is_image(self) -> bool:
        return PurePosixPath(self.path).suffix.lower() in IMAGE_SUFFIXES


class Joined(io.RawIOBase):
    """The volumes ``NAME.zip.001``, ``.002``, ... of one zip, read as the file that they are together."""

    def __init__(self, files: list[Path]):
        self.parts = [file.open("rb") for file in files]
        self.starts = [0]
        for file in files:
            self.starts.append(self.starts[-1] + file.stat().st_size)
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.starts[-1]}[whence]
        return self.position

    def readinto(self, buffer) -> int:
        for part, start, end in zip(self.parts, self.starts, self.starts[1:], strict=False):
            if start <= self.position < end:
                part.seek(self.position - start)
                count = part.readinto(memoryview(buffer)[: end - self.position])
                self.position += count
                return count
        return 0

    def close(self) -> None:
        for part in self.parts:
            part.close()
        super().close()


@contextmanager
def open_download(root: Path) -> Iterator[list[Entry]]:
    """The files of a download, a folder or one zip: unpacked ones first, then those in zips, each by path.

    Raises:
        InputError: when there is no such download, or a zip in it is damaged, incomplete or locked by a password.
    """
    if not root.exists():
        raise InputError(f"DOWNLOAD {root}: no such folder or zip")
    files = {root.name: root} if root.is_file() else {file.relative_to(root).as_posix(): file for file in walk(root)}
    zips = {path: [file] for path, file in files.items() if path.lower().endswith(".zip")}
    zips |= {path[:-4]: volumes(file) for path, file in files.items() if path.lower().endswith(".zip.001")}
    with ExitStack() as stack:
        entries = [Entry(path, file.read_bytes, file) for path, file in files.items() if path not in zips]
        for path, parts in sorted(zips.items()):
            whole: IO[bytes] = parts[0].open("rb") if len(parts) == 1 else io.BufferedReader(Joined(parts))
            entries += members(stack, stack.enter_context(whole), path)
        yield entries


def walk(root: Path) -> list[Path]:
    """All files under a folder, sorted; linked folders are followed, each once."""
    files, seen = [], set()
    for top, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(top)
        folders[:] = [] if real in seen else sorted(name for name in folders if not clutter(name))
        files += [] if real in seen else [Path(top, name) for name in names if not clutter(name)]
        seen.add(real)
    return sorted(files)


def clutter(name: str) -> bool:
    return name.startswith(".") or name in CLUTTER


def volumes(first: Path) -> list[Path]:
    """``NAME.zip.001`` and the volumes that follow it."""
    parts = sorted(first.parent.glob(f"{first.name[:-4]}.[0-9][0-9][0-9]"))
    if [part.name[-3:] for part in parts] != [f"{number:03}" for number in range(1, len(parts) + 1)]:
        raise InputError(f"{first}: a volume between {parts[0].name} and {parts[-1].name} is missing; download it")
    return parts


def members(stack: ExitStack, file: IO[bytes], path: str) -> Iterator[Entry]:
    """The files in an open zip, which ``stack`` closes; zips among them are opened too."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: damaged, or not all of it is there ({error}); download it again") from None
    for member in sorted(archive.infolist(), key=lambda member: member.filename):
        inside = f"{path}/{member.filename}"
        if member.is_dir() or any(clutter(part) for part in member.filename.split("/")):
            continue
        if member.flag_bits & 1:
            raise InputError(f"{path}: locked by a password; unpack it first")
        if not inside.lower().endswith(".zip"):
            yield Entry(inside, partial(archive.read, member))
            continue
        unpacked = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (the stack closes it)
        try:
            with archive.open(member) as packed:
                shutil.copyfileobj(packed, unpacked)
        except (EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{inside}: damaged ({error}); download {path} again") from None
        except OSError as error:
            reason = f"cannot be unpacked in {tempfile.gettempdir()} ({error.strerror or error})"
            raise DiskError(f"{inside}: {reason}; unpack {path} yourself, or set TMPDIR") from None
        yield from members(stack, unpacked, inside)


def pick(entries: Iterable[Entry], key: Callable[[Entry], Key | None]) -> tuple[dict[Key, Entry], list[Entry]]:
    """The entries that ``key`` names, by that name, in the order of names, and the image files that it does not name.

    A file that is there twice (a zip and its unpacked folder) counts once, unpacked if it can be.

    Raises:
        InputError: when two files of one name differ.
    """
    images: dict[Key, Entry] = {}
    others = []
    for entry in entries:
        name = key(entry)
        if name is None:
            others += [entry] if entry.is_image else []
        elif name not in images:
            images[name] = entry
        elif images[name].read() != entry.read():
            raise InputError(f"two different files for one: {images[name].path} and {entry.path}; remove the wrong one")
    return dict(sorted(images.items())), others


def contents(entries: list[Entry]) -> str:
    """What a download holds at its top, in a few words, for messages about what it lacks."""
    depth = 2 if len({entry.path.split("/")[0] for entry in entries}) == 1 else 1
    tops = list(dict.fromkeys("/".join(entry.path.split("/")[:depth]) for entry in entries))
    packed = [entry.path for entry in entries if PurePosixPath(entry.path).suffix.lower() in OTHER_ARCHIVES]
    if packed:
        return f"it holds {packed[0]}; unpack that first"
    if not tops:
        return "it is empty"
    return f"it holds {', '.join(tops[:4])}{', ...' if len(tops) > 4 else ''}"
