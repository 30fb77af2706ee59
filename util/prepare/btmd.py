"""The Brain Tumor MRI Dataset as Kaggle gives it: ``{Training,Testing}/CLASS/*.jpg``."""

import re

from util.prepare.download import Entry, contents, pick
from util.prepare.record import DataSet, Found, Record
from util.system.errors import InputError

PLACE = re.compile(r"(?:.*/)?(training|testing)/(glioma|meningioma|notumor|pituitary)/[^/]+", re.IGNORECASE)


def find(entries: list[Entry]) -> Found:
    """Images by the folders that they lie in. File names tell nothing about patients."""

    def identify(entry: Entry) -> tuple[str, str, str] | None:
        match = PLACE.fullmatch(entry.path) if entry.is_image else None
        return (match[1].lower(), match[2].lower(), entry.name) if match else None

    images, others = pick(entries, identify)
    if not images:
        raise InputError(f"no Training/ and Testing/ with glioma/, meningioma/, notumor/, pituitary/; {contents(entries)}")
    records = [Record(label, name, entry, part) for (part, label, name), entry in images.items()]
    return Found(records, unexpected=others)


DATA_SET = DataSet(
    title="Brain Tumor MRI Dataset (BTMD)",
    url="https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset (7,023 images; later versions may differ)",
    licence="CC0 (public domain)",
    cite="Masoud Nickparvar: Brain Tumor MRI Dataset. Kaggle, 2021. doi:10.34740/kaggle/dsv/2645886",
    classes={"glioma": "glioma", "meningioma": "meningioma", "notumor": "no tumour", "pituitary": "pituitary tumour"},
    published={
        ("training", "glioma"): 1321,
        ("training", "meningioma"): 1339,
        ("training", "notumor"): 1595,
        ("training", "pituitary"): 1457,
        ("testing", "glioma"): 300,
        ("testing", "meningioma"): 306,
        ("testing", "notumor"): 405,
        ("testing", "pituitary"): 300,
    },
    find=find,
    official={"training": "train", "testing": "val"},
    paper=(2072, 2106),
    remarks=("Both folders are pooled before they are split, as the paper did (inferred), unless --official is given.",),
)
