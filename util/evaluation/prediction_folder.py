"""What ``--predict`` writes of new images: ``predictions.csv``, ``prediction.json``, and a page to look through."""

import json
from contextlib import suppress
from datetime import date
from pathlib import Path

import jinja2
import numpy as np

from util.evaluation.decision import Decision, effect_in_words, rule_in_words
from util.evaluation.features import NAMES as FEATURES
from util.evaluation.features import write_features
from util.evaluation.overlays import FOLDER
from util.evaluation.predictions import Predictions, write_predictions
from util.system import distributed, lock
from util.system.console import say
from util.system.errors import InputError
from util.system.text import one_line, readable, write_json
from util.system.workplace import named_folder

UNREADABLE, PAGE, RECORD = "unreadable.txt", "predictions.html", "prediction.json"
NAMED = 10  # unreadable files, on the screen


def names_of_classes(names: list[str] | None, outputs: int, num_classes: int | None, path: Path) -> list[str]:
    """The classes of a checkpoint at ``path``: by its names, or by their numbers where it tells none.

    Args:
        names: that it tells, or None.
        outputs: of its head.
        num_classes: what the user says there are, or None.

    Raises:
        InputError: where there is no head, or numbers contradict each other.
    """
    if not outputs:
        raise InputError(f"{path} has no head that classifies: fine-tune it first")
    classes = names or [str(number) for number in range(outputs)]
    if len(classes) != outputs:
        raise InputError(f"{path} is damaged: it tells {outputs} classes apart and names {len(classes)}")
    if num_classes not in (None, outputs):
        raise InputError(f"--num_classes {num_classes}: {path} tells {outputs} classes apart; leave the option out")
    if not names:
        say(f"note: {path} does not name its classes; they are called 0 to {outputs - 1}")
    return classes


def default_folder(given: list[str]) -> Path:
    """``output_dir/predict-NAME`` by the first of the paths."""
    first = Path(given[0])
    return named_folder("predict", str(first.with_suffix("") if first.is_file() else first))


def check_prediction_folder(folder: Path, checkpoint: str, files: str, overwrite: bool) -> None:
    """Raise :class:`InputError` where a folder holds an evaluation, or the prediction of another checkpoint or other files.

    Args:
        files: their fingerprint.
        overwrite: replace a prediction, whatever it is of.
    """
    if (folder / "metrics.json").exists():
        raise InputError(f"{folder} holds an evaluation, with a predictions.csv of its own: choose another --output_dir")
    if overwrite or not ((folder / RECORD).exists() or (folder / "predictions.csv").exists()):
        return
    try:
        there = json.loads((folder / RECORD).read_text())
        before = (there["checkpoint"], there["files"])
    except (OSError, ValueError, KeyError, TypeError):
        before = ("an unknown checkpoint", files)
    if before != (checkpoint, files):
        of = f"by {before[0]}" if before[0] != checkpoint else "of other files"
        raise InputError(f"{folder} holds a prediction {of}: choose another --output_dir, or replace it by --overwrite")


def clear_prediction(folder: Path) -> None:
    """Remove what an earlier prediction left in a folder and this one may not replace."""
    if not distributed.is_main():
        return
    for name in (UNREADABLE, PAGE, *FEATURES):
        (folder / name).unlink(missing_ok=True)
    for picture in (folder / FOLDER).glob("[0-9]*.png"):
        picture.unlink()
    with suppress(OSError):  # there is none, or it holds something else
        (folder / FOLDER).rmdir()


def check_read(folder: Path, problems: dict[str, str], images: int) -> None:
    """Raise :class:`InputError` where none of the ``images`` could be read; no empty folder is left then."""
    if len(problems) == images:
        lock.release()
        with suppress(OSError):
            folder.rmdir()
        more = f", nor can {images - 1} others" if images > 1 else ""
        raise InputError(f"--predict: {next(iter(problems.values()))}{more}: nothing to predict")


def write_prediction(
    folder: Path,
    predictions: Predictions,
    decision: Decision,
    *,
    checkpoint: str,
    fingerprint: str,
    problems: dict[str, str],
    features: np.ndarray | None,
    overlays: list[str] | None,
    map_source: str,
) -> list[str]:
    """Write all but the overlays.

    Args:
        folder: to write in.
        predictions: of the images that could be read.
        decision: that the probabilities were made with.
        checkpoint: its path; fingerprint: of the files.
        problems: what is wrong with the files that could not be read.
        features: ``[N, D]``, if they are wanted.
        overlays: names of pictures, one for each image; without them there is no page. map_source: of their maps.

    Returns:
        The names of what was written.
    """
    names = ["predictions.csv", RECORD, *([UNREADABLE] if problems else []), *(FEATURES if features is not None else [])]
    names += [PAGE, f"{FOLDER}/"] if overlays else []
    if not distributed.is_main():
        return names
    calls = decision.calls(predictions.probabilities, predictions.classes)
    write_predictions(folder / "predictions.csv", predictions, {**calls, **({"overlay": overlays} if overlays else {})})
    record = {
        "checkpoint": checkpoint,
        "files": fingerprint,
        "images": len(predictions.files),
        "unreadable": len(problems),
        "predicted": predicted(predictions),
        **{name: column.count("above") for name, column in calls.items()},
        **decision.content(),
        **({"map": map_source} if overlays else {}),
    }
    write_json(folder / RECORD, record)
    if problems:
        (folder / UNREADABLE).write_text("".join(f"{one_line(line)}\n" for line in problems.values()), encoding="utf-8")
    if features is not None:
        write_features(folder, features, predictions.files)
    if overlays:
        about = [f"Checkpoint: {checkpoint}. Map: {map_source}.", *about_decision(decision)]
        (folder / PAGE).write_text(page(predictions, calls, overlays, about), encoding="utf-8")
    return names


def predicted(predictions: Predictions) -> dict[str, int]:
    """How many images are predicted to be of each class."""
    counts = np.bincount(predictions.probabilities.argmax(1), minlength=len(predictions.classes))
    return dict(zip(predictions.classes, counts.tolist(), strict=True))


def about_decision(decision: Decision) -> list[str]:
    """Lines on the temperature and the cut-off that were applied."""
    lines = []
    if decision.temperature is not None:
        effect = effect_in_words(decision.temperature)
        lines.append(f"Temperature {decision.temperature:.4f}, fitted on val: {effect}.")
    if cutoff := decision.cutoff:
        lines.append(
            f"Cut-off: {cutoff.positive} where p({cutoff.positive}) is {cutoff.value:.4g} or more "
            f"({rule_in_words(cutoff.rule)}, chosen on val)."
        )
    return lines


def in_words(predictions: Predictions, decision: Decision, problems: dict[str, str]) -> str:
    """The outcome as lines for a reader."""
    lines = [
        f"{len(predictions.files)} images: " + ", ".join(f"{count} {name}" for name, count in predicted(predictions).items())
    ]
    lines += about_decision(decision)
    for name, column in decision.calls(predictions.probabilities, predictions.classes).items():
        lines.append(f"{name}: {column.count('above')} above, {column.count('below')} below")
    lines += [f"not done: {line}" for line in list(problems.values())[:NAMED]]
    if len(problems) > NAMED:
        lines.append(f"not done: {len(problems) - NAMED} more")
    return "\n".join(lines)


def page(predictions: Predictions, calls: dict[str, list[str]], overlays: list[str], about: list[str]) -> str:
    """The page as HTML; it shows pictures that lie in ``overlays/`` beside it."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    cards = []
    for index, (file, row) in enumerate(zip(predictions.files, predictions.probabilities, strict=True)):
        order = row.argsort(kind="stable")[::-1][:5]
        cards.append({
            "file": readable(file),
            "patient": predictions.patients[index] if predictions.patients else None,
            "picture": overlays[index],
            "prediction": predictions.classes[row.argmax()],
            "sure": float(row.max()),
            "calls": [f"{name}: {column[index]}" for name, column in calls.items()],
            "classes": [(predictions.classes[number], f"{100 * row[number]:.1f}\N{NO-BREAK SPACE}%") for number in order],
        })  # fmt: skip
    template = environment.get_template("predictions.html.j2")
    return template.render(cards=cards, about=about, classes=predictions.classes, date=date.today().isoformat())
