"""What is said about a prepared folder: its numbers, what a split lets leak, and the ``SOURCE.md`` that goes with it."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from util.prepare.record import DataSet, Record
from util.prepare.splitting import val_count
from util.prepare.table import SPLITS


def count_table(data_set: DataSet, records: list[Record], splits: list[str]) -> list[str]:
    """Images of each class and split as a Markdown table, beside the paper's validation images (inferred)."""
    counts = Counter((record.label, split) for record, split in zip(records, splits, strict=True))
    used = [split for split in SPLITS if split in splits]
    rows: list[list[str | int]] = [["class", "images", *used, "paper's val (inferred)"]]
    for label in data_set.classes:
        published = data_set.published_count(label)
        row = [counts[label, split] for split in used]
        rows.append([label, sum(row), *row, "not known" if published is None else val_count(published)])
    sums = [len(records), *(splits.count(split) for split in used)]
    rows.append(["all", *sums, data_set.paper[1] if "not known" not in rows[-1] else "not known"])
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(str(value).ljust(width) for value, width in zip(row, widths, strict=True)) + " |"
             for row in rows]  # fmt: skip
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def torn(tags: Sequence[Hashable], splits: list[str]) -> tuple[int, int]:
    """How many tags several images share, and how many of those have images in more than one split; empty tags do not
    count."""
    where = defaultdict(list)
    for tag, split in zip(tags, splits, strict=True):
        if tag:
            where[tag].append(split)
    shared = [each for each in where.values() if len(each) > 1]
    return len(shared), sum(len(set(each)) > 1 for each in shared)


def leaks(data_set: DataSet, records: list[Record], digests: list[str], splits: list[str]) -> list[str]:
    """What the split lets leak: identical files, and patients with images on both sides."""
    labels = defaultdict(set)
    for digest, record in zip(digests, records, strict=True):
        labels[digest].add(record.label)
    surplus = len(digests) - len(labels)
    lines = [f"Identical files: {surplus or 'none'}"]
    if surplus:
        shared, apart = torn(digests, splits)
        unlike = sum(len(each) > 1 for each in labels.values())
        trained = {digest for digest, split in zip(digests, splits, strict=True) if split == "train"}
        held = sum(digest in trained for digest, split in zip(digests, splits, strict=True) if split != "train")
        copies, images = "copy" if surplus == 1 else "copies", "image" if shared == 1 else "images"
        lines[0] += f" surplus {copies} of {shared} {images}; images with copies in several splits: "
        lines[0] += f"{apart}, in several classes: {unlike}; files outside train that are identical to one in train: {held}"
    if not data_set.group:
        lines.append("Patients: not told by the download")
    elif not any(record.patient for record in records):
        lines.append(f"What --by patient keeps together: {data_set.group}. This download does not tell it")
    else:
        patients = [record.patient for record in records]
        shared, apart = torn(patients, splits)
        known = len({patient for patient in patients if patient})
        lines.append(f"What --by patient keeps together: {data_set.group}. There are {known}; {shared} have several images, "
                     f"{apart} of these in several splits")  # fmt: skip
    return lines


def describe(data_set: DataSet, how: str, table: list[str], facts: list[str]) -> str:
    """The content of ``SOURCE.md``.

    Args:
        data_set: what it is.
        how: the command that made the folder, and what it did.
        table: of :func:`count_table`.
        facts: what was left out, missing or leaks.
    """
    paper = f"{data_set.paper[0]} of {data_set.paper[1]} images right reproduce the paper's figure (inferred)."
    classes = [f"- `{label}`: {meaning}" for label, meaning in data_set.classes.items()]
    return "\n".join([
        f"# {data_set.title}", "",
        f"- From: {data_set.url}",
        f"- Licence: {data_set.licence}",
        f"- Cite: {data_set.cite}", "",
        "For research, not for diagnosis. Keep to the licence when you pass images on; `split.csv` alone holds none.", "",
        "## Classes", "", *classes, "",
        "## Split", "", how, "", *table, "", paper, "",
        *[f"- {line}" for line in (*facts, *data_set.remarks)], "",
    ])  # fmt: skip
