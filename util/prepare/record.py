"""What a module of a data set tells: the facts about the data set, and the images found in a download of it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from PIL import Image

from util.prepare.download import Entry
from util.system.errors import InputError


@dataclass(frozen=True)
class Record:
    """One image of a data set.

    Attributes:
        label: its class, the name of its folder.
        name: its file name there.
        entry: the file that it comes from.
        part: the official part that it belongs to; empty where there are none.
        patient: whose it is, or what else must not be torn apart (``DataSet.group`` says what); empty where unknown.
        masks: masks of its lesions.
        draw: makes the picture that is written from the one in the file; None writes the file as it is.
    """

    label: str
    name: str
    entry: Entry
    part: str = ""
    patient: str = ""
    masks: tuple[Entry, ...] = ()
    draw: Callable[[Image.Image], Image.Image] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Class and name without extension: what tells the images of a data set apart, and finds them in a table."""
        return self.label, PurePosixPath(self.name).stem.lower()


@dataclass
class Found:
    """What a module found in a download.

    Attributes:
        records: the images, in a fixed order.
        missing: files that should be there, by name.
        left_out: a line for each kind of image that is left out, with its number.
        unexpected: image files that are no part of the data set.
    """

    records: list[Record]
    missing: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unexpected: list[Entry] = field(default_factory=list)


@dataclass(frozen=True)
class DataSet:
    """The facts about a data set.

    Attributes:
        title, url, licence, cite: as its source has them.
        classes: each class, the name of its folder, and what it is.
        published: number of images of an official part and a class; an empty name stands for all parts, or all classes.
        find: finds the images in the entries of a download.
        group: what a patient is here; empty where the download does not tell.
        official: which split each official part becomes with ``--official``; empty where there is no official split.
        paper: right answers and images that reproduce the paper's figure (inferred).
        remarks: what a user should know.
    """

    title: str
    url: str
    licence: str
    cite: str
    classes: dict[str, str]
    published: dict[tuple[str, str], int]
    find: Callable[..., Found]
    paper: tuple[int, int]
    group: str = ""
    official: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def published_count(self, label: str) -> int | None:
        """Published number of images of a class, None where it is not known."""
        counts = [count for (_, each), count in self.published.items() if each == label]
        return sum(counts) if counts else None


def name_apart(records: list[Record]) -> list[Record]:
    """Records whose keys differ: where official parts share a name, the part is put before it.

    Raises:
        InputError: for two images that still have one name, such as ``a.jpg`` and ``a.png``.
    """
    times = Counter(record.key for record in records)
    named = [replace(each, name=f"{each.part}-{each.name}") if times[each.key] > 1 else each for each in records]
    seen: dict[tuple[str, str], Record] = {}
    for record in named:
        other = seen.setdefault(record.key, record)
        if other is not record:
            raise InputError(f"two images of one name, {other.entry.path} and {record.entry.path}; remove the wrong one")
    return named
