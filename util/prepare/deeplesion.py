"""DeepLesion as NIH gives it: 16-bit slices ``Images_png/PPPPPP_SS_SS/NNN.png`` and the table ``DL_info.csv``.

Only the official validation and test parts say what kind of lesion is seen; they are what there is to classify. A record is
a lesion, shown in its key slice; a slice with several lesions is there once for each.
"""

from collections import Counter
from functools import partial

import numpy as np
from PIL import Image

from util.prepare.download import Entry, pick
from util.prepare.record import DataSet, Found, Record
from util.prepare.table import find_table
from util.system.errors import InputError

KINDS = ("bone", "abdomen", "mediastinum", "liver", "lung", "kidney", "soft_tissue", "pelvis")  # types 1 to 8
PARTS = {"2": "val", "3": "test"}
COLUMNS = ("File_name", "Patient_index", "Bounding_boxes", "Coarse_lesion_type", "Possibly_noisy", "DICOM_windows",
           "Train_Val_Test")  # fmt: skip
ZERO = 32768  # the pixel value of 0 Hounsfield units


def draw(
    image: Image.Image, window: tuple[float, float], box: tuple[float, ...], margin: float | None = None
) -> Image.Image:
    """A slice as an 8-bit picture.

    Args:
        image: 16-bit; its pixels are Hounsfield units plus 32768.
        window: Hounsfield units that become black and white.
        box: of the lesion: left, top, right, bottom in pixels.
        margin: cut out the square around the box, larger by ``margin`` of the box's longer side on each of its sides, and
            moved into the slice where it would stand out; None keeps the whole slice.
    """
    if not image.mode.startswith("I"):
        raise ValueError(f"{image.mode} pixels where 16-bit ones are expected")
    units = np.asarray(image).astype(np.float32) - ZERO
    low, high = window
    picture = Image.fromarray((np.clip((units - low) / (high - low), 0, 1) * 255).round().astype(np.uint8))
    if margin is None:
        return picture
    left, top, right, bottom = box
    side = min(round(max(right - left, bottom - top, 1) * (1 + 2 * margin)), *picture.size)
    x = min(max(round((left + right - side) / 2), 0), picture.width - side)
    y = min(max(round((top + bottom - side) / 2), 0), picture.height - side)
    return picture.crop((x, y, x + side, y + side))


def numbers(row: dict[str, str], column: str, count: int) -> tuple[float, ...]:
    """The first ``count`` numbers in a value such as ``-175, 275``."""
    try:
        values = tuple(float(part) for part in row[column].split(","))[:count]
    except ValueError:
        values = ()
    if len(values) < count:
        raise InputError(f"DL_info.csv: {row['File_name']} has {column} {row[column]!r}, not {count} numbers")
    return values


def find(entries: list[Entry], window: tuple[float, float] | None = None, margin: float | None = None) -> Found:
    """Lesions by the table.

    Args:
        entries: of the download.
        window: Hounsfield units that become black and white; None takes those of each lesion's ``DICOM_windows``.
        margin: see :func:`draw`.
    """
    rows = find_table(entries, r"dl_info\.csv", COLUMNS, "table DL_info.csv (NIH)")
    seen: Counter[str] = Counter()
    lesions = []
    for row in rows:
        seen[row["File_name"]] += 1
        kind = row["Coarse_lesion_type"].removesuffix(".0")
        if kind == "-1" or row["Train_Val_Test"] == "1":
            continue
        if kind not in {str(number) for number in range(1, 9)} or row["Train_Val_Test"] not in PARTS:
            raise InputError(f"DL_info.csv: {row['File_name']} has lesion type {kind!r} and part {row['Train_Val_Test']!r}")
        lesions.append((row, KINDS[int(kind) - 1], seen[row["File_name"]]))
    wanted = {row["File_name"] for row, _, _ in lesions}

    def identify(entry: Entry) -> str | None:
        name = "_".join(entry.path.rsplit("/", 2)[-2:])  # 000001_01_01/109.png is 000001_01_01_109.png in the table
        return name if name in wanted else None

    slices, _ = pick(entries, identify)  # the other slices are the neighbours of these, and those of the training part
    records = []
    for row, label, number in lesions:
        if row["File_name"] in slices:
            low, high = window or numbers(row, "DICOM_windows", 2)
            if low >= high:
                raise InputError(f"DL_info.csv: {row['File_name']} has the window {low:g} to {high:g}")
            picture = partial(draw, window=(low, high), box=numbers(row, "Bounding_boxes", 4), margin=margin)
            name, part = f"{row['File_name'].removesuffix('.png')}-{number}.png", PARTS[row["Train_Val_Test"]]
            records.append(Record(label, name, slices[row["File_name"]], part, row["Patient_index"], draw=picture))
    return Found(
        records,
        missing=[name for name in sorted(wanted) if name not in slices],
        left_out=[f"{len(rows) - len(lesions)} lesions whose kind the table does not tell"],
    )


DATA_SET = DataSet(
    title="DeepLesion (key CT slices of lesions)",
    url="https://nihcc.app.box.com/v/DeepLesion (Images_png/*.zip and DL_info.csv)",
    licence="free to use; NIH asks for a citation and a link to the download (see its README)",
    cite="Yan, Wang, Lu, Summers: DeepLesion: automated mining of large-scale lesion annotations and universal lesion "
    "detection with deep learning. Journal of Medical Imaging 5, 036501, 2018. doi:10.1117/1.JMI.5.3.036501",
    classes={kind: kind.replace("_", " ") for kind in KINDS},
    published={("val", ""): 4889, ("test", ""): 4927},
    find=find,
    group="patient (Patient_index)",
    official={"val": "train", "test": "val"},
    paper=(4414, 4927),
    remarks=(
        "The kind of a lesion is known in the official validation and test parts only. --official trains on the former and "
        "validates on the latter; without it both are pooled.",
        "How the paper split this data set is not known. Its figure is a count of right answers on the official test part.",
        "Files are called as in DL_info.csv, with the lesion's number among those of its slice.",
    ),
)
