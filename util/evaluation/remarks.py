"""What a reader of an evaluation must know: who chose the epoch, copies, files with two labels, classes that never come."""

import re
from collections.abc import Sequence

import numpy as np

from util.data.copies import copies_in, groups_of_copies, labels_at_odds
from util.evaluation.metrics import classification_metrics
from util.evaluation.predictions import Predictions

TOO_GOOD = {
    "epoch": "chosen on these images, so the metrics look too good; those of a test set",
    "temperature": "fitted on these images, so their calibration looks too good; that of a test set",
    "cut-off": "chosen on these images, so its sensitivity and specificity look too good; those of a test set",
}


def by_numbers(name: str) -> list[float | str]:
    """A key that sorts names by the numbers in them: grade2 before grade10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [float(part) if place % 2 else part for place, part in enumerate(parts)]


def remarks(predictions: Predictions, training_paths: list[str], chosen: Sequence[str], ordered: bool = False) -> dict:
    """Remarks on the metrics of a set.

    Args:
        predictions: that they are of, with labels; ``files`` are paths.
        training_paths: of the training images, as far as they are at hand.
        chosen: what was chosen on these images: "epoch", "temperature" or "cut-off".
        ordered: the classes are grades in their order.

    Returns:
        ``remarks``, a line each; where some images are copies of training images, ``copies``, their number, and
        ``without_copies``, the metrics of the others (None where there are no others).
    """
    paths, classes = predictions.files, predictions.classes
    labels, probabilities = predictions.truth, predictions.probabilities
    lines, more = [f"the {each} was {TOO_GOOD[each]} would not" for each in chosen], {}
    if ordered and sorted(classes) == list(classes) != sorted(classes, key=by_numbers):
        lines.append(f"the grades count in the order {', '.join(classes)}: name them with as many digits, such as 01 and 10")
    groups = groups_of_copies([*paths, *training_paths])
    if odd := labels_at_odds(groups, {path: classes[label] for path, label in zip(paths, labels.tolist(), strict=False)}):
        lines.append(odd)
    copies = copies_in(groups, training_paths)
    if copies:
        unseen = np.array([path not in copies for path in paths])
        others = classification_metrics(labels[unseen], probabilities[unseen], classes, ordered) if unseen.any() else None
        more = {"copies": len(copies), "without_copies": others}
        top1 = f"; without them top-1 is {100 * others['top1']:.2f} %" if others else ""
        which = "is a copy" if len(copies) == 1 else "are copies"
        lines.append(f"{len(copies)} of these {len(paths)} images {which} of a training image{top1}")
    predicted = set(probabilities.argmax(1).tolist())
    if len(predicted) == 1 and len(set(labels.tolist())) > 1:
        lines.append(f"every image is classified as {classes[predicted.pop()]}: such a model tells no class from another")
        return {"remarks": lines, **more}
    never = [name for number, name in enumerate(classes) if number not in predicted and (labels == number).any()]
    if never:
        lines.append(f"no image is classified as {', '.join(never)}")
    return {"remarks": lines, **more}
