"""HAM10000 as Harvard Dataverse gives it: two zips of ``ISIC_*.jpg`` and the table ``HAM10000_metadata``."""

import re

from util.prepare.download import Entry, pick
from util.prepare.record import DataSet, Found, Record
from util.prepare.table import find_table
from util.system.errors import InputError

CLASSES = {
    "akiec": "actinic keratosis, intraepithelial carcinoma",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic naevus",
    "vasc": "vascular lesion",
}
# the same Dataverse page also has lesion masks and the test set of a challenge, which are no part of the 10,015 images
EXTRAS = re.compile(r"isic2018|_segmentation", re.IGNORECASE)


def find(entries: list[Entry]) -> Found:
    """Images by the table, which Dataverse gives separated by commas or, as ``.tab``, by tabs."""
    rows = find_table(
        entries,
        r"ham10000_metadata(\.(csv|tab|tsv|txt))?",
        ("lesion_id", "image_id", "dx"),
        "table HAM10000_metadata (Harvard Dataverse)",
    )
    for row in rows:
        if row["dx"] not in CLASSES:
            raise InputError(f"HAM10000_metadata: {row['image_id']} has dx {row['dx']!r}, not one of {', '.join(CLASSES)}")
    table = {row["image_id"]: row for row in rows}

    def identify(entry: Entry) -> str | None:
        return entry.stem if entry.is_image and entry.stem in table and not EXTRAS.search(entry.path) else None

    images, others = pick(entries, identify)
    records = [
        Record(table[image]["dx"], entry.name, entry, patient=table[image]["lesion_id"]) for image, entry in images.items()
    ]
    missing = [f"{image}.jpg" for image in table if image not in images]
    return Found(records, missing, unexpected=[entry for entry in others if not EXTRAS.search(entry.path)])


DATA_SET = DataSet(
    title="HAM10000 (dermatoscopic images of pigmented skin lesions)",
    url="https://doi.org/10.7910/DVN/DBW86T (HAM10000_images_part_1.zip, HAM10000_images_part_2.zip, HAM10000_metadata)",
    licence="CC BY-NC 4.0 (not for commercial use)",
    cite="Tschandl, Rosendahl, Kittler: The HAM10000 dataset, a large collection of multi-source dermatoscopic images of "
    "common pigmented skin lesions. Scientific Data 5, 180161, 2018. doi:10.1038/sdata.2018.161",
    classes=CLASSES,
    published={
        ("", "akiec"): 327,
        ("", "bcc"): 514,
        ("", "bkl"): 1099,
        ("", "df"): 115,
        ("", "mel"): 1113,
        ("", "nv"): 6705,
        ("", "vasc"): 142,
    },
    find=find,
    group="lesion (lesion_id; patients are not named)",
    paper=(2460, 3001),
)
