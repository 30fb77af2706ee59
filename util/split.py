"""Split labelled images at random into train, val and test, by image or by patient, and write that as a table.

    python -m util.split DIR --shares 0.7 0.1 0.2 --output split.csv
    python -m util.split DIR --patients patients.csv --folds 5 --output split.csv

The images lie in ``DIR/CLASS/*``, or in ``DIR/{train,val,test}/CLASS/*``, which are put together first, or are listed in a
CSV file with columns ``path`` and ``label``, and maybe ``patient``. Each class gets about the same share of each split. With
patients, all images of one are in the same split. ``--data_path split.csv`` then stands for the folders. With ``--folds 5``
there is one table for each fold, ``split-fold1.csv`` to ``split-fold5.csv``: each image is in test in one of them.
"""

import os
import sys
import warnings
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder, called by its path

from util.data.records import SPLITS, Record, empty_classes, image_folder, read_rows, with_patients
from util.data.tables import write_table
from util.data.walk import refuse_shared
from util.options.parser import SEED, PlainParser, number
from util.system.errors import InputError, run_script
from util.system.text import some

SHARES = (0.7, 0.1, 0.2)
LARGEST_FOLDS = 20  # into which patients are divided, to take some of them; more for a share below 1 / 20
TOLERANCE = 0.1  # of a share: nearer than this, no smaller folds are tried


def read_unsplit(source: Path) -> list[Record]:
    """The images of a folder or a table; splits that they were in are forgotten."""
    if source.is_dir():
        parts = [source / split for split in SPLITS if (source / split).is_dir()] or [source]
        records = [record for part in parts for record in image_folder(part, "")]
        refuse_shared(parts)
        if empty := empty_classes(parts, records):
            raise InputError(f"{source}: no image in {some(empty)}")
    elif source.is_file():
        records = [record._replace(split="") for record in read_rows(source, ("path", "label"))]
    else:
        raise InputError(f"{source}: no such folder or table")
    if len({record.label for record in records}) < 2:
        raise InputError(f"{source}: images of at least two classes are needed")
    return records


def take(labels: np.ndarray, patients: np.ndarray | None, share: float, seed: int) -> np.ndarray:
    """Choose a share of the images at random, of each class alike.

    Args:
        labels: ``[N]`` names.
        patients: ``[N]`` names, or None to choose image by image. Patients are divided into folds, of which some are taken;
            the share is met as closely as patients with different numbers of images allow.
        share: in (0, 1).
        seed: of the choice.

    Returns:
        Their indices, sorted.
    """
    names, sizes = np.unique(labels, return_counts=True)
    if patients is None:
        size = round(share * len(labels))
        if sizes.min() < 2:
            raise InputError(f"class {names[sizes.argmin()]} has too few images for these shares")
        if not len(names) <= size <= len(labels) - len(names):
            raise InputError(f"a share of {size} images among {len(labels)} is no split: each part needs one of each class")
        return np.sort(next(StratifiedShuffleSplit(1, test_size=size, random_state=seed).split(labels, labels))[1])
    most = min(len(set(patients)), int(sizes.max()))
    if most < 2:
        raise InputError(f"{len(labels)} images of {len(set(patients))} patients cannot be split: too few")
    most = min(most, max(LARGEST_FOLDS, round(1 / min(share, 1 - share))))
    part = Fraction(share).limit_denominator(most)
    count = part.denominator if 0 < part < 1 else most
    chosen = fitting_folds(labels, patients, share, count, seed)
    # where patients have so many images that a fold is far from the share, smaller folds come nearer
    while _far(labels, chosen, share) > TOLERANCE * share * len(labels) and 2 * count <= most:
        count *= 2
        chosen = min(chosen, fitting_folds(labels, patients, share, count, seed), key=lambda of: _far(labels, of, share))
    return chosen


def fitting_folds(labels: np.ndarray, patients: np.ndarray, share: float, count: int, seed: int) -> np.ndarray:
    """The images of some of ``count`` folds, neither none nor all, that together come near a share of each class.

    Returns:
        Their indices, sorted.
    """
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class rarer than there are folds: check_classes says whether it is missed
        folds = [fold for _, fold in splitter.split(labels, labels, patients) if len(fold)]
    chosen = min(folds, key=lambda fold: _far(labels, fold, share))
    while True:  # the fold that brings most, until none brings them nearer
        others = [np.concatenate([chosen, fold]) for fold in folds if fold[0] not in chosen]
        nearest = min(others, key=lambda more: _far(labels, more, share))
        if len(nearest) == len(labels) or _far(labels, nearest, share) >= _far(labels, chosen, share):
            return np.sort(chosen)
        chosen = nearest


def _far(labels: np.ndarray, chosen: np.ndarray, share: float) -> float:
    """By how many images a choice misses a share of each class, and of all."""
    missed = [(labels[chosen] == name).sum() - share * (labels == name).sum() for name in np.unique(labels)]
    return sum(map(abs, missed)) + abs(sum(missed))


def divide(labels: np.ndarray, patients: np.ndarray | None, shares: tuple[float, ...], seed: int) -> np.ndarray:
    """The split of each image, ``[N]``: train, val and, with three shares, test.

    Args:
        labels, patients, seed: as in :func:`take`.
        shares: of train, val and maybe test, adding up to 1.
    """
    splits, rest = np.full(len(labels), "train", dtype="<U5"), np.arange(len(labels))
    for name, share in reversed(list(zip(SPLITS[1:], shares[1:], strict=False))):
        remaining = sum(shares[: SPLITS.index(name) + 1])
        chosen = take(labels[rest], None if patients is None else patients[rest], share / remaining, seed)
        splits[rest[chosen]] = name
        rest = np.delete(rest, chosen)
    return splits


def cross_validation(labels: np.ndarray, patients: np.ndarray | None, folds: int, val: float, seed: int) -> list[np.ndarray]:
    """The split of each image in each fold, ``[N]`` each: every image is in test once, and ``val`` of the others in val."""
    kind = StratifiedKFold if patients is None else StratifiedGroupKFold
    assignments = []
    for rest, _ in kind(folds, shuffle=True, random_state=seed).split(labels, labels, patients):
        splits = np.full(len(labels), "test", dtype="<U5")
        splits[rest] = divide(labels[rest], None if patients is None else patients[rest], (1 - val, val), seed)
        assignments.append(splits)
    return assignments


def check_classes(records: list[Record], splits: np.ndarray) -> None:
    """Raise :class:`InputError` for a class without an image in a split."""
    there = {(record.label, split) for record, split in zip(records, splits, strict=True)}
    for label in sorted({record.label for record in records}):
        for split in sorted(set(splits), key=SPLITS.index):
            if (label, split) not in there:
                total = sum(record.label == label for record in records)
                raise InputError(
                    f"no image of {label} ({total} in all) came into {split}: give it a larger share, or another --seed"
                )


def check_shares(shares: list[float] | None, folds: int | None) -> tuple[float, ...]:
    """The shares to use, adding up to 1; with folds those of train and val in what is not test."""
    given = tuple(shares or SHARES)
    if len(given) not in (2, 3) or min(given) <= 0:
        raise InputError(
            f"--shares {' '.join(map(str, given))}: give two or three shares above 0, of train, val and maybe test"
        )
    if abs(sum(given) - 1) > 1e-6:
        raise InputError(f"--shares {' '.join(map(str, given))}: they add up to {sum(given):g}, not to 1")
    if folds is None:
        return given
    if folds < 2:
        raise InputError(f"--folds {folds}: give 2 or more")
    if shares and len(given) == 3 and abs(given[2] - 1 / folds) > 0.01:
        raise InputError(
            f"--shares: with --folds {folds}, test is {1 / folds:.3g} of the images, not {given[2]:g}; leave its share out"
        )
    return given[0] / (given[0] + given[1]), given[1] / (given[0] + given[1])


def check_numbers(records: list[Record], parts: int, by_patient: bool) -> None:
    """Raise :class:`InputError` for a class that has fewer images, or patients, than there are parts."""
    units: dict[str, set[str | None]] = {}
    for record in records:
        units.setdefault(record.label, set()).add(record.patient if by_patient else record.path)
    for label, members in sorted(units.items()):
        if len(members) < parts:
            what = "patients" if by_patient else "images"
            raise InputError(f"class {label} has {len(members)} {what}: too few for {parts} parts")


def summary(records: list[Record], splits: np.ndarray) -> str:
    """Images of each class in each split, and the share of all."""
    names = sorted(set(splits), key=SPLITS.index)
    count = Counter((record.label, split) for record, split in zip(records, splits, strict=True))
    lines = [f"{'images':<24}" + "".join(f"{name:>9}" for name in names)]
    for label in sorted({record.label for record in records}):
        lines.append(f"{label:<24}" + "".join(f"{count[label, name]:>9}" for name in names))
    lines.append(f"{'all':<24}" + "".join(f"{(splits == name).sum():>9}" for name in names))
    lines.append(f"{'share':<24}" + "".join(f"{100 * (splits == name).mean():>7.1f} %" for name in names))
    if records[0].patient:
        patients = np.array([record.patient for record in records])
        lines.append(f"{'patients':<24}" + "".join(f"{len(set(patients[splits == name])):>9}" for name in names))
    return "\n".join(lines)


def write_splits(output: Path, records: list[Record], splits: np.ndarray) -> None:
    """Write the table, its paths relative to its folder."""
    folder = os.path.realpath(output.parent)
    paths = [Path(os.path.relpath(os.path.abspath(record.path), folder)).as_posix() for record in records]
    labels = [record.label for record in records]
    for name in (*paths, *labels):
        if name != name.strip():
            raise InputError(f"{name!r} begins or ends with a space, which a table does not keep: rename it")
    columns = {"path": paths, "label": labels, "split": splits}
    if records[0].patient:
        columns["patient"] = [record.patient for record in records]
    write_table(output, list(columns), zip(*columns.values(), strict=True))


def main() -> None:
    parser = PlainParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "source", type=Path, metavar="DIR_OR_CSV", help="folder of class folders, or table of paths and labels"
    )
    parser.add_argument(
        "--shares",
        type=number(float, 0, 1),
        nargs="+",
        metavar="SHARE",
        help="of train, val and, if wanted, test (default: 0.7 0.1 0.2)",
    )
    parser.add_argument("--patients", type=Path, metavar="FILE.csv", help="columns path and patient: split by patient")
    parser.add_argument("--folds", type=int, help="one table for each fold of a cross-validation")
    parser.add_argument("--seed", type=SEED, default=0, help="of the split (default: 0)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.csv", help="the table to write; must not exist")
    args = parser.parse_args()
    shares = check_shares(args.shares, args.folds)
    if args.output.is_dir():
        raise InputError(f"--output {args.output} is a folder: name the table to write, such as {args.output / 'split.csv'}")
    numbers = range(1, args.folds + 1) if args.folds else ()
    outputs = [args.output.with_name(f"{args.output.stem}-fold{number}.csv") for number in numbers] or [args.output]
    for output in outputs:
        if output.exists():
            raise InputError(f"--output {output} exists: remove it or choose another name")
    records = read_unsplit(args.source)
    if args.patients:
        records = with_patients(records, args.patients, args.source)
    labels = np.array([record.label for record in records])
    patients = np.array([record.patient for record in records]) if records[0].patient else None
    check_numbers(records, max(args.folds or 0, len(shares)), patients is not None)
    if args.folds:
        tables = cross_validation(labels, patients, args.folds, shares[1], args.seed)
    else:
        tables = [divide(labels, patients, shares, args.seed)]
    for splits in tables:
        check_classes(records, splits)
    try:
        for output, splits in zip(outputs, tables, strict=True):
            write_splits(output, records, splits)
    except BaseException:
        for output in outputs:  # all folds or none
            output.unlink(missing_ok=True)
        raise
    for output, splits in zip(outputs, tables, strict=True):
        print(f"{output}\n{summary(records, splits)}\n")
    if patients is None:
        print("split by image: images of one patient may lie in several splits; --patients FILE.csv keeps them together")
    else:
        print("split by patient: all images of a patient lie in one split")


if __name__ == "__main__":
    run_script(main)
