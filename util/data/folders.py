"""The splits of a data set, from folders or a table, with classes as numbers (:mod:`util.data.records` reads and checks)."""

from dataclasses import dataclass
from pathlib import Path

from util.data import readers
from util.data.records import read_records
from util.data.tables import read_table
from util.system.console import say
from util.system.errors import InputError
from util.system.text import some


@dataclass(frozen=True)
class LabelledFiles:
    """The image files of a split.

    Args:
        split: "train", "val" or "test".
        root: the data folder, or that of the table.
        classes: their names.
        paths: of the images; labels: their classes' numbers, one for each.
        patients: whose images they are, or None where that is not known.
        from_folders: they lie in ``root/split/CLASS/``.
    """

    split: str
    root: Path
    classes: list[str]
    paths: list[str]
    labels: list[int]
    patients: list[str] | None
    from_folders: bool

    def __len__(self) -> int:
        return len(self.paths)


def open_splits(
    data_path: str,
    splits: tuple[str, ...],
    *,
    num_classes: int | None = None,
    classes: list[str] | None = None,
    patients: str | None = None,
    on_patient_leak: str = "error",
    least_classes: int = 2,
) -> list[LabelledFiles]:
    """Splits of a data set, checked: all there, the same classes, no patient in two of them.

    Args:
        data_path: ``DIR`` with ``SPLIT/CLASS/*``, or a table.
        splits: those to open; the others are looked through for patients.
        num_classes: what the user says there should be, or None.
        classes: of the model, in its order; the data may lack some. None: those of the data.
        patients: a table of patients beside folders.
        on_patient_leak: "error", or "note" to go on.
        least_classes: so many there must be; 1 where nothing is learnt from labels.

    Raises:
        InputError: naming the folder, row or option, and what to do.
    """
    records = read_records(
        Path(data_path),
        needed=splits,
        patients=Path(patients) if patients else None,
        on_patient_leak=on_patient_leak,
        note=say,
    )
    there = sorted({record.label for record in records})
    if classes is None:
        classes = there
    elif set(there) - set(classes):
        raise InputError(
            f"--data_path {data_path} has the classes {some(there)}; the checkpoint knows {len(classes)}: {some(classes)}"
        )
    if num_classes is not None and num_classes != len(classes):
        raise InputError(
            f"--num_classes {num_classes}: {data_path} holds {len(classes)} classes ({some(classes)}); leave the option out"
        )
    if len(classes) < least_classes:
        raise InputError(
            f"--data_path {data_path}: only one label, {classes[0]}; at least two are needed "
            "(main_pretrain.py --class_weight 0 --masking random learns without labels)"
        )
    number = {name: index for index, name in enumerate(classes)}
    folder = Path(data_path)
    opened = []
    for split in splits:
        chosen = [record for record in records if record.split == split]
        names = [record.patient for record in chosen if record.patient is not None]
        opened.append(
            LabelledFiles(
                split=split,
                root=folder if folder.is_dir() else folder.parent,
                classes=classes,
                paths=[record.path for record in chosen],
                labels=[number[record.label] for record in chosen],
                patients=names if len(names) == len(chosen) else None,
                from_folders=folder.is_dir(),
            )
        )
    return opened


def has_split(data_path: str, split: str) -> bool:
    """Whether a data set has images of a split."""
    path = Path(data_path)
    if path.is_file() and (held := readers.entries(data_path)) is not None:
        return any(entry.split == split for entry in held)
    if path.is_file():
        return any(row["split"] == split for row in read_table(path, ("split",)).rows)
    return (path / split).is_dir()
