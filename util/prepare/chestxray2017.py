"""ChestXRay2017 as Mendeley gives it: ``chest_xray/{train,test}/{NORMAL,PNEUMONIA}/*.jpeg``.

Kaggle's copy has moved 16 training images to a folder ``val``; they are put back.
"""

import re

from util.prepare.download import Entry, contents, pick
from util.prepare.record import DataSet, Found, Record
from util.system.errors import InputError

PLACE = re.compile(r"(?:.*/)?(train|test|val)/(normal|pneumonia)/[^/]+", re.IGNORECASE)
# names of the second version (person7_bacteria_24, NORMAL2-IM-0927-0001, IM-0115-0001) and the third (VIRUS-30629-0001)
PATIENT = re.compile(r"(person\d+)_|(?:NORMAL2-)?(IM-\d+)|(?:BACTERIA|VIRUS|NORMAL)-(\d+)-", re.IGNORECASE)


def patient(name: str) -> str:
    """Whose image it is by its name (inferred); empty where the name has none of the known forms.

    The numbers of the training and of the test folder, and of ``IM-`` and ``NORMAL2-IM-``, may count different children.
    Equal numbers are taken for one child all the same: it joins too many images rather than tear a child's apart.
    """
    match = PATIENT.match(name)
    return next(filter(None, match.groups())).lower() if match else ""


def find(entries: list[Entry]) -> Found:
    """Images by the folders that they lie in."""

    def identify(entry: Entry) -> tuple[str, str, str] | None:
        match = PLACE.fullmatch(entry.path) if entry.is_image else None
        if not match:
            return None
        return "test" if match[1].lower() == "test" else "train", match[2].upper(), entry.name

    images, others = pick(entries, identify)
    if not images:
        raise InputError(f"no train/ and test/ with NORMAL/ and PNEUMONIA/ in the download; {contents(entries)}")
    records = [Record(label, name, entry, part, patient(name)) for (part, label, name), entry in images.items()]
    return Found(records, unexpected=others)


DATA_SET = DataSet(
    title="ChestXRay2017 (chest X-ray images of children, Guangzhou)",
    url="https://data.mendeley.com/datasets/rscbjbr9sj/2 (ChestXRay2017.zip), doi:10.17632/rscbjbr9sj.2",
    licence="CC BY 4.0",
    cite="Kermany, Zhang, Goldbaum: Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for Classification. "
    "Mendeley Data, V2, 2018. Kermany et al.: Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep "
    "Learning. Cell 172, 2018. doi:10.1016/j.cell.2018.02.010",
    classes={"NORMAL": "no finding", "PNEUMONIA": "pneumonia, bacterial or viral"},
    published={
        ("train", "NORMAL"): 1349,
        ("train", "PNEUMONIA"): 3883,
        ("test", "NORMAL"): 234,
        ("test", "PNEUMONIA"): 390,
    },
    find=find,
    group="child (the number in the file name, inferred)",
    official={"train": "train", "test": "val"},
    paper=(1748, 1755),
)
