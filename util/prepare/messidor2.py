"""Messidor-2: images and pairs of eyes from ADCIS, grades by Krause et al. from Kaggle (``messidor_data.csv``)."""

from pathlib import PurePosixPath

from util.prepare.download import Entry, pick
from util.prepare.record import DataSet, Found, Record
from util.prepare.table import find_table, parse
from util.system.errors import InputError

CLASSES = {
    "0": "no diabetic retinopathy",
    "1": "mild",
    "2": "moderate",
    "3": "severe",
    "4": "proliferative diabetic retinopathy",
}
COLUMNS = ("image_id", "adjudicated_dr_grade", "adjudicated_gradable")


def stem(name: str) -> str:
    """A name without its extension; the grades say ``.jpg`` where some images are ``.JPG``."""
    return PurePosixPath(name).stem.lower()


def find_pairs(entries: list[Entry]) -> dict[str, str]:
    """The examination of each image, by the row of ``messidor-2.csv`` (``left;right``) that names it; empty without it."""
    pairs: dict[str, str] = {}
    for entry in entries:
        if entry.name.lower() == "messidor-2.csv":
            for row in parse(entry.read(), entry.path, ()):
                eyes = [stem(value) for value in row.values() if PurePosixPath(value).suffix]
                pairs |= {eye: min(eyes) for eye in eyes}
    return pairs


def find(entries: list[Entry]) -> Found:
    """Images by the table of grades; those that its authors could not grade are left out."""
    rows = find_table(entries, r"messidor_data\.csv", COLUMNS, "table of grades messidor_data.csv (Kaggle)")
    grades: dict[str, str | None] = {}
    for row in rows:
        gradable, given = (row[column].removesuffix(".0") for column in reversed(COLUMNS[1:]))
        if gradable == "1" and given not in CLASSES:
            raise InputError(f"messidor_data.csv: {row['image_id']} has grade {given!r}, not 0 to 4")
        grades[stem(row["image_id"])] = given if gradable == "1" else None
    images, others = pick(entries, lambda entry: stem(entry.name) if entry.is_image and stem(entry.name) in grades else None)
    pairs = find_pairs(entries)
    records = [
        Record(grade, entry.name, entry, patient=pairs.get(image, ""))
        for image, entry in images.items()
        if (grade := grades[image])
    ]
    missing = [row["image_id"] for row in rows if grades[stem(row["image_id"])] and stem(row["image_id"]) not in images]
    ungradable = sum(grade is None for grade in grades.values())
    left_out = [f"{ungradable} images that could not be graded"] if ungradable else []
    return Found(records, missing, left_out, others)


DATA_SET = DataSet(
    title="Messidor-2 (fundus images, grades of diabetic retinopathy)",
    url="images and messidor-2.csv: https://www.adcis.net/en/third-party/messidor2/; "
    "messidor_data.csv: https://www.kaggle.com/datasets/google-brain/messidor2-dr-grades",
    licence="images: research and education only, no redistribution (ADCIS); grades: see the Kaggle page",
    cite="Decenciere et al.: Feedback on a publicly distributed image database: the Messidor database. Image Analysis & "
    "Stereology 33, 2014. Abramoff et al.: Automated analysis of retinal images for detection of referable diabetic "
    "retinopathy. JAMA Ophthalmology 131, 2013. Grades: Krause et al.: Grader variability and the importance of reference "
    "standards for evaluating machine learning models for diabetic retinopathy. Ophthalmology 125, 2018. Images kindly "
    "provided by the Messidor program partners and the LaTIM laboratory",
    classes=CLASSES,
    published={("", "0"): 1017, ("", "1"): 270, ("", "2"): 347, ("", "3"): 75, ("", "4"): 35},
    find=find,
    group="patient (both eyes, a row of messidor-2.csv)",
    paper=(331, 522),
    remarks=("That the paper used these grades is inferred: their numbers reproduce its figures as counts.",),
)
