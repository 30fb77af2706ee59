"""Which image is trained on and which is validated: the paper's split as it can be inferred, by image or by patient.

The paper says only that it split its data sets at random. Five of its six percentages are counts of right answers if,
of ``n`` images of a class, ``3 * n // 10`` are for validation. That rule is inferred; which images they were is not known.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from fractions import Fraction

from scipy.cluster.hierarchy import DisjointSet

from util.system.errors import InputError


def val_count(images: int) -> int:
    """The paper's number of validation images in a class of so many (inferred)."""
    return 3 * images // 10


def join(tags: Sequence[Sequence[Hashable]]) -> list[int]:
    """A group for each image so that images which share a tag, directly or through others, share the group.

    Args:
        tags: of each image.

    Returns:
        For each image the index of one image of its group, the same for all of them.
    """
    groups = DisjointSet(range(len(tags)))
    first: dict[Hashable, int] = {}
    for index, of_image in enumerate(tags):
        for tag in of_image:
            groups.merge(first.setdefault(tag, index), index)
    return [groups[index] for index in range(len(tags))]


def split(keys: list[tuple[str, str]], groups: list[int], seed: int, test_share: Fraction = Fraction(0)) -> list[str]:
    """``train``, ``val`` or ``test`` for each image, groups kept whole.

    Groups come in an order that is fixed by the seed and the names of their images, whatever else is there. Each goes to
    validation if every class that it holds has room: ``3 * n // 10`` images. The test set is then drawn in the same way
    from the others, so that it leaves the validation set as it is without one. Where every image is a group of its own, the
    counts are exact; otherwise a class may get a few images fewer, never more.

    Args:
        keys: class and name of each image, all different.
        groups: a number for each image; equal numbers stay together.
        seed: another one gives another split.
        test_share: of each class, rounded down, goes to ``test``.

    Raises:
        InputError: when a class would have no image in one of the splits.
    """
    members = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    ordered = sorted(members.values(), key=lambda images: rank(seed, min(keys[index] for index in images)))
    sizes = Counter(label for label, _ in keys)
    result = ["train"] * len(keys)
    rooms = {"val": {label: val_count(size) for label, size in sizes.items()}}
    if test_share:
        rooms["test"] = {label: int(test_share * size) for label, size in sizes.items()}
    for name, room in rooms.items():
        for images in ordered:
            wanted = Counter(keys[index][0] for index in images)
            if result[images[0]] == "train" and all(count <= room[label] for label, count in wanted.items()):
                for index in images:
                    result[index] = name
                    room[keys[index][0]] -= 1
    check(keys, result, ("train", *rooms))
    return result


def rank(seed: int, key: tuple[str, str]) -> bytes:
    """Where an image comes in the order of a seed; the same on every machine and with every version of every library."""
    return hashlib.blake2b(repr((seed, *key)).encode(), digest_size=16).digest()


def check(keys: list[tuple[str, str]], splits: list[str], names: tuple[str, ...]) -> None:
    """Raise :class:`InputError` where a class has no image in one of the splits."""
    there = {(label, split) for (label, _), split in zip(keys, splits, strict=True)}
    for label in sorted({label for label, _ in keys}):
        for name in names:
            if (label, name) not in there:
                raise InputError(f"class {label} would have no image in {name}: too few images, or too few groups of them")
