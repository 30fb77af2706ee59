"""The model card, README.md, as both hubs show it: use, data, figures with intervals, settings, licence, limits."""

import json
from pathlib import Path

from util.evaluation.table import HEADLINES, PERCENT, with_interval
from util.export.exported import Exported, Written
from util.options.protocol import settings, spelled
from util.system.console import say
from util.system.errors import InputError

PAPER = "[Medical Supervised Masked Autoencoder](https://arxiv.org/abs/2305.05871)"
FRONT = """---
library_name: {library}
pipeline_tag: {task}
tags:
- medical-imaging
- vision-transformer
- masked-autoencoder
- msmae
---
"""
LICENCE = """The code that made this model is under the MIT licence. The weights also carry the conditions of the images that
they were trained on and of the weights that they started from. Make sure that you may pass them on, and name the licence
here."""
LIMITS = """For research only. This is not a medical device, and nobody has validated it for clinical use: do not base a
diagnosis or a treatment on it. Its figures hold for images like those that it was evaluated on. Other scanners, hospitals,
patients and shares of the classes can change them much. It names one of its classes for every image, also for one that
shows something else. Its attention map tells where the model looks, and not where a lesion is."""


def write_card(exported: Exported, written: Written, folder: Path, metrics: dict | None) -> None:
    """Write README.md.

    Args:
        exported: the model; written: what its writer did.
        folder: of the files.
        metrics: the content of a metrics.json of this model, or None.
    """
    library = written.library if written.library in ("timm", "transformers") else "onnx"
    task = "image-classification" if kind(exported) == "a classifier" else "image-feature-extraction"
    front = FRONT.format(library=library, task=task) if written.library != "the MSMAE project" else ""
    classes = exported.origin.classes
    parts = [
        f"# {title(exported)}",
        f"{about(exported)} The method: {PAPER}.",
        "## Use",
        f"```python\n{written.usage}\n```",
        f"Outputs in this order: {', '.join(classes)}." if classes else "",
        f"An image is resized as a whole to {exported.side} x {exported.side} pixels (bilinear, the aspect is not kept), "
        f"divided by 255, and normalised with the mean {list(exported.model.variant.mean)} and the deviation "
        f"{list(exported.model.variant.std)} of red, green and blue. Greyscale images are repeated as three colours.",
        *(f"Note: {note}." for note in written.notes),
        f"On random images, outputs of {written.library} and of the project differ by {written.difference:.1e} of the "
        "largest at most.",
        "## Data",
        data(exported),
        "## Figures",
        figures(metrics),
        "## Settings",
        chosen(exported),
        "## Licence",
        LICENCE,
        "## Limits",
        LIMITS,
    ]
    (folder / "README.md").write_text(front + "\n\n".join(part for part in parts if part) + "\n")


def title(exported: Exported) -> str:
    model = exported.origin.options.get("model") or f"ViT of width {exported.model.embed_dim}"
    return f"{model}, {kind(exported)}"


def kind(exported: Exported) -> str:
    if exported.has_decoder:
        return "pre-trained"
    return "a classifier" if exported.origin.outputs else "an encoder"


def about(exported: Exported) -> str:
    model = exported.model
    size = f"{len(model.blocks)} blocks, width {model.embed_dim}, patches of {model.patch_size} pixels"
    if exported.has_decoder:
        return f"A masked autoencoder with a Vision Transformer as encoder ({size}), pre-trained to be fine-tuned."
    pooled = "the class token" if model.global_pool == "token" else "the mean of all patches"
    verb = "classifies" if exported.origin.outputs else "gives the features of"
    return f"A Vision Transformer ({size}) that {verb} {pooled}."


def data(exported: Exported) -> str:
    path, classes = exported.origin.options.get("data_path"), exported.origin.classes
    name = f"Trained on the data set `{Path(path).resolve().name}`" if path else "The data set is not on record"
    return f"{name}{f' of {len(classes)} classes: ' + ', '.join(classes) if classes else ''}. Describe it here: where the " \
        "images come from, how many there are, of whom, and what labelled them."  # fmt: skip


def figures(metrics: dict | None) -> str:
    """The headlines of an evaluation, a table row each."""
    if not metrics:
        return "There is no evaluation on record."
    intervals = metrics.get("intervals") or {}
    rows = [
        f"| {words} | {with_interval(metrics[name], intervals.get(name), name in PERCENT)} |"
        for name, words in HEADLINES.items()
        if name in metrics
    ]
    of = f"On the {metrics['images']} images of `{metrics.get('split', 'val')}/`"
    remarks = "".join(f"\n\nNote: {remark}." for remark in metrics.get("remarks") or [])
    return "\n".join([f"{of}, with 95 % intervals:", "", "| metric | value |", "|---|---|", *rows]) + remarks


def chosen(exported: Exported) -> str:
    options = settings(exported.origin.options)
    if not options:
        return "They are not on record."
    lines = [spelled(name, value) for name, value in sorted(options.items()) if value not in (None, False)]
    epoch = exported.origin.content.get("epoch")
    done = f"Epoch {epoch} of the run (counted from 0). " if isinstance(epoch, int) else ""
    return f"{done}Options of the method:\n\n    " + "\n    ".join(lines)


def find_metrics(checkpoint: Path, sha256: str | None, given: Path | None) -> dict | None:
    """The evaluation of a checkpoint: the metrics.json that is given, else the one beside it where it is of that checkpoint.

    They are compared by SHA-256; evaluations from before hashes were recorded, by path.

    Raises:
        InputError: where the given one cannot be read, or is of another checkpoint.
    """
    file = given or checkpoint.parent / "metrics.json"
    if not file.is_file():
        if given:
            raise InputError(f"--metrics {given}: no such file")
        return None
    try:
        metrics = json.loads(file.read_text())
        evaluated, images, digest = Path(metrics["checkpoint"]), int(metrics["images"]), metrics.get("checkpoint_sha256")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no metrics.json of an evaluation ({type(error).__name__})") from None
    same = digest == sha256 if digest and sha256 else same_file(evaluated, checkpoint)
    if not same:
        another = f"{evaluated} as it was before" if same_file(evaluated, checkpoint) else f"{evaluated}"
        if given:
            raise InputError(f"--metrics {given} is of {another}, not of {checkpoint}")
        say(f"note: {file} is of {another}: the model card has no figures")
        return None
    say(f"figures of the model card: {file}, {images} images")
    return metrics


def same_file(evaluated: Path, checkpoint: Path) -> bool:
    """Whether two paths name one checkpoint; a run's folder may have moved since."""
    if evaluated.exists() and checkpoint.exists():
        return evaluated.samefile(checkpoint)
    return evaluated.parts[-2:] == checkpoint.resolve().parts[-2:]
