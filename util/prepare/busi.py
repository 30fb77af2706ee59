"""BUSI as Cairo University gives it: ``Dataset_BUSI_with_GT/CLASS/CLASS (N).png`` and masks.

An image's mask is ``CLASS (N)_mask.png``; where it shows several lesions, there are ``CLASS (N)_mask_1.png`` and so on.
"""

import re
from collections import defaultdict

from util.prepare.download import Entry, contents, pick
from util.prepare.record import DataSet, Found, Record
from util.system.errors import InputError

NAME = re.compile(r"(?:.*/)?(benign|malignant|normal)/(\1 \((\d+)\))(_mask(?:_\d+)?)?\.png", re.IGNORECASE)
SIZES = {"benign": 437, "malignant": 210, "normal": 133}


def find(entries: list[Entry]) -> Found:
    """Images by their names, with their lesion masks. The masks of normal images are black and not used."""

    def identify(entry: Entry) -> tuple[str, int, str] | None:
        match = NAME.fullmatch(entry.path)
        return (match[1].lower(), int(match[3]), (match[4] or "").lower()) if match else None

    files, others = pick(entries, identify)
    images = {(label, number): entry for (label, number, mask), entry in files.items() if not mask}
    if not images:
        raise InputError(f"no benign/, malignant/, normal/ with images such as 'benign (1).png'; {contents(entries)}")
    masks: dict[tuple[str, int], tuple[Entry, ...]] = defaultdict(tuple)
    for (label, number, mask), entry in files.items():
        if mask:
            masks[label, number] += (entry,)
    missing = [f"{label} ({number}).png" for label, count in SIZES.items() for number in range(1, count + 1)
               if (label, number) not in images]  # fmt: skip
    missing += [f"{label} ({number})_mask.png" for label, number in images
                if label != "normal" and (label, number) not in masks]  # fmt: skip
    records = [
        Record(label, entry.name, entry, masks=() if label == "normal" else masks[label, number])
        for (label, number), entry in images.items()
    ]
    return Found(records, missing, unexpected=others)


DATA_SET = DataSet(
    title="BUSI (breast ultrasound images)",
    url="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset (Dataset_BUSI.zip)",
    licence="see the authors' page; copies elsewhere state different licences",
    cite="Al-Dhabyani, Gomaa, Khaled, Fahmy: Dataset of breast ultrasound images. Data in Brief 28, 104863, 2020. "
    "doi:10.1016/j.dib.2019.104863",
    classes={"benign": "benign lesion", "malignant": "malignant lesion", "normal": "no lesion"},
    published={("", label): count for label, count in SIZES.items()},
    find=find,
    paper=(181, 233),
)
