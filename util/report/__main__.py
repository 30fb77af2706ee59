"""A run, or several that belong together, as one HTML file that opens from disk: settings, curves, figures, pictures.

python -m util.report runs/pretrain runs/finetune runs/eval --output report.html
"""

import base64
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

import jinja2
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder, called by its path

from util.evaluation.decision import decision_in_words
from util.evaluation.figure import new, save, styled
from util.evaluation.page import WIDTH
from util.evaluation.painting import MASKED, THROWN
from util.evaluation.pooling import folds_table
from util.evaluation.table import HEADLINES, OF_EACH_CLASS, PERCENT, with_interval
from util.options.parser import PlainParser
from util.options.protocol import describe
from util.system.errors import InputError, run_script
from util.training.checkpoint import epoch_in_name, file_sha256

CITATION = """@article{mao2023msmae,
  title   = {Medical supervised masked autoencoders: Crafting a better masking strategy and efficient fine-tuning
             schedule for medical image classification},
  author  = {Mao, Jiawei and Guo, Shujian and Chang, Yuanqi and Yin, Xuesong and Nie, Binling},
  journal = {arXiv preprint arXiv:2305.05871},
  year    = {2023}
}"""
PICTURES = {
    "roc": "ROC curves, one class against the rest",
    "confusion": "Confusion matrix: images by true and predicted class",
    "reliability": "How sure the model is, and how often it is right then",
    "tsne": "What the head reads, laid out by t-SNE",
    "attention": "Of each class the surest right and the surest wrong images, with their attention maps",
    "sheet": "From the best to the worst case",
}
SHOWN = {".png": "image/png", ".svg": "image/svg+xml"}  # what a page can hold, the first one found
CURVES = {  # panels of the picture of a training, and the log's names in each
    "loss": ("loss", "loss_pixels", "loss_class", "val_loss"),
    "accuracy": ("train_top1", "val_top1", "val_balanced_accuracy", "val_iou", "val_dice"),
    "share of the map on masked, thrown and visible patches": ("map_on_masked", "map_on_thrown", "map_on_visible"),
    "gain of the map (1: chance)": ("map_gain",),
}
PARTS = {"map_on_masked": MASKED, "map_on_thrown": THROWN, "map_on_visible": "0.5"}  # as on the sheets


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def picture(folder: Path, name: str, caption: str) -> list[dict]:
    """A picture of a folder for the page, in a list that is empty where there is none."""
    for suffix, kind in SHOWN.items():
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return [{"kind": kind, "data": encode(path.read_bytes()), "caption": caption}]
    return []


def left_out(folder: Path, names: Iterable[str]) -> list[str]:
    """A note on the pictures that are there in a format only which a page cannot show."""
    files = [f"{name}.pdf" for name in names if (folder / f"{name}.pdf").is_file() and not picture(folder, name, "")]
    return [f"Not shown, as a page holds no PDF: {', '.join(files)} (--figure_format png pdf writes both)."] if files else []


@styled()
def curves(lines: list[dict]) -> Figure | None:
    """Losses, accuracies and what SAM does, by epoch; None where the log holds none of them."""
    panels = {title: [name for name in names if any(name in line for line in lines)] for title, names in CURVES.items()}
    panels = {title: names for title, names in panels.items() if names}
    if not panels:
        return None
    rows = -(-len(panels) // 2)
    figure = new(WIDTH, 65 * rows)
    axes = list(figure.subplots(rows, 2, squeeze=False).flat)
    for axis, (title, names) in zip(axes, panels.items(), strict=False):
        for name in names:
            points = [(line["epoch"] + 1, line[name]) for line in lines if name in line]
            mark = "o-" if len(points) < 15 else "-"
            axis.plot(*zip(*points, strict=True), mark, markersize=3, label=name, color=PARTS.get(name))
        axis.set(title=title, xlabel="epochs")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, columnspacing=1, handlelength=1.5)
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return figure


def drawn_now(figure: Figure, caption: str) -> dict:
    """A figure as a picture of the page."""
    with tempfile.TemporaryDirectory() as folder:
        save(figure, Path(folder), "figure")
        return picture(Path(folder), "figure", caption)[0]


def whole_lines(log: str) -> list[dict]:
    """The epochs of a ``log.txt``, without a last line that a killed run left half written."""
    lines = []
    for line in log.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def training_section(folder: Path) -> dict:
    """What ``log.txt`` and the last sheet of a training tell."""
    lines = whole_lines((folder / "log.txt").read_text(encoding="utf-8", errors="replace"))
    if not lines:
        raise InputError(f"{folder}/log.txt is empty: no epoch has ended yet")
    section: dict[str, list] = {"notes": [], "tables": [], "pictures": []}
    last = {name: value for name, value in lines[-1].items() if isinstance(value, int | float)}
    rows = [(name, f"{value:.4g}") for name, value in last.items()]
    section["tables"].append({"heading": f"Epoch {lines[-1]['epoch']}, the last", "columns": ("", "value"), "rows": rows})
    about = folder / "run.json"
    options = json.loads(about.read_text(encoding="utf-8"))["options"] if about.is_file() else {}
    by_batch = options.get("best_by") == "batch_iou"  # of a segmentation: what its best epoch was chosen by
    for score in ("val_top1", "val_iou_batches" if by_batch else "val_iou"):
        scored = [line for line in lines if score in line]
        if len(scored) > 1:
            best = max(scored, key=lambda line: line[score])
            section["notes"].append(
                f"{score}: {100 * scored[-1][score]:.2f} % when last evaluated (epoch {scored[-1]['epoch']}), at best "
                f"{100 * best[score]:.2f} % (epoch {best['epoch']}, chosen on val/ itself)."
            )
    drawn = curves(lines)
    if drawn:
        section["pictures"].append(drawn_now(drawn, "By epoch"))
    newest = max(map(epoch_in_name, folder.glob("sheet-*.*")), default=-1)
    if newest >= 0:
        last_sheet = f"sheet-{newest}"
        shown = picture(folder, last_sheet, f"What the model sees after epoch {newest}")
        section["pictures"] += [{**each, "sheet": True} for each in shown]
        section["notes"] += left_out(folder, [last_sheet])
    return section


def classification_tables(results: dict) -> list[dict]:
    """Metrics with their 95 % intervals, of all classes together and of each."""
    intervals = results["intervals"]
    shown = [
        (title, with_interval(results[name], intervals[name], name in PERCENT))
        for name, title in HEADLINES.items()
        if name in results
    ]
    per_class = []
    for name, row in results["per_class"].items():
        known = intervals["per_class"][name]
        cells = [with_interval(row[metric], known[metric], metric in PERCENT) for metric in OF_EACH_CLASS]
        per_class.append((name, row["images"], *cells))
    patients = results.get("patients")
    of = f" of {patients} patients" if patients else ""
    how = "patients, each with all its images" if patients else "images, those of shares by Clopper and Pearson"
    return [
        {
            "heading": f"Metrics on {results['images']} images{of}",
            "columns": ("", "value (95 % interval)"),
            "rows": shown,
            "note": f"Intervals by the bootstrap over {how}. They tell of the sample of "
            f"{'patients' if patients else 'images'}, not of other seeds or sites.",
        },
        {"heading": "Classes", "columns": ("", "images", *OF_EACH_CLASS.values()), "rows": per_class},
    ]


def segmentation_tables(results: dict) -> list[dict]:
    """IoU, Dice, sensitivity and specificity, by what was averaged over what."""
    names = {"per_image": "mean over images", "whole_set": "whole set", "batch_averaged": "batches, averaged by their size"}
    metrics = ("iou", "dice", "sensitivity", "specificity")
    known = results.get("intervals", {})  # of evaluations before there were intervals: none
    rows = [
        (title, *(with_interval(results[key][metric], known.get(key, {}).get(metric), percent=True) for metric in metrics))
        for key, title in names.items()
    ]
    if len(results["per_class"]) > 1:
        of_class = known.get("per_class", {})
        for name, row in results["per_class"].items():
            ranges = of_class.get(name, {}).get("per_image", {})
            cells = (with_interval(row["per_image"][metric], ranges.get(metric), percent=True) for metric in metrics)
            rows.append((f"class {name}, mean over images", *cells))
    columns = ("", "IoU", "Dice (F1)", "sensitivity", "specificity")
    return [{"heading": f"Masks of {results['images']} images", "columns": columns, "rows": rows}]


def changed_since(results: dict) -> list[str]:
    """A note where the checkpoint that was evaluated has become another one since."""
    path, before = Path(results["checkpoint"]), results.get("checkpoint_sha256")
    if not (before and path.is_file()) or file_sha256(path) == before:
        return []
    return ["The checkpoint has changed since: these figures and pictures are of what it was before. Evaluate it anew."]


def evaluation_section(folder: Path) -> dict:
    """What an evaluation wrote: ``metrics.json``, ``predictions.csv``, pictures."""
    try:
        results = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder}/metrics.json is damaged ({error}): evaluate again") from None
    tables: list[dict] = segmentation_tables(results) if "per_image" in results else classification_tables(results)
    if "folds" in results:
        columns, *folds = folds_table(results)
        note = "Folds share training images, so they are not independent: their spread gives no interval of the mean."
        tables.insert(0, {"heading": "Folds", "columns": columns, "rows": folds, "note": note})
    if where := results.get("localisation"):
        rows = [
            (name, f"{row['gain']:.2f}", f"{100 * row['pointing']:.1f} %", f"{row['average_precision']:.3f}")
            for name, row in where["sources"].items()
        ]
        tables.append({
            "heading": f"Where maps look, on {where['images']} images with a lesion",
            "columns": ("source", "gain", "pointing", "average precision"),
            "rows": rows,
            "note": f"Gain: weight in the lesion relative to its area. Pointing: maximum in the lesion; chance "
            f"{100 * where['chance']:.1f} %.",
        })  # fmt: skip
    pictures = [shown for name, caption in PICTURES.items() for shown in picture(folder, name, caption)]
    notes = [
        f"Checkpoint: {results['checkpoint']}, evaluated on {results.get('split', 'val')}.",
        *changed_since(results),
        *decision_in_words(results),
        *results.get("remarks", []),
        *left_out(folder, PICTURES),
    ]
    return {"notes": notes, "tables": tables, "pictures": pictures}


def sections_of(folder: Path) -> list[dict]:
    """All that a folder tells: of a training, and of an evaluation beside it.

    Raises:
        InputError: when it holds neither a training nor an evaluation.
    """
    makers: dict[str, Callable[[Path], dict]] = {"log.txt": training_section, "metrics.json": evaluation_section}
    sections = {name: make(folder) for name, make in makers.items() if (folder / name).is_file()}
    if not sections:
        raise InputError(f"{folder} holds neither metrics.json (of an evaluation) nor log.txt (of a training)")
    for name, content in sections.items():
        beside = name == "metrics.json" and (folder / "run-eval.json").is_file()
        about = folder / ("run-eval.json" if beside else "run.json")
        content["heading"] = folder.name
        if about.is_file():
            run = json.loads(about.read_text(encoding="utf-8"))
            content["command"] = shlex.join(run["command"])
            named = {f"checkpoint {use}": file for use, file in run.get("checkpoints", {}).items() if file}
            hashes = {name: f"{file['file']}, sha256 {file['sha256']}" for name, file in named.items()}
            content["settings"] = {**run["options"], **hashes, **run["environment"]}
            if protocol := run.get("protocol"):
                content["notes"].insert(0, describe(protocol["name"], protocol["departures"]))
            content["heading"] = f"{run['phase']}: {folder.name}"
    return list(sections.values())


def render(folders: list[Path]) -> str:
    """The report as HTML, with everything it needs inside."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    sections = [section for folder in folders for section in sections_of(folder)]
    first = [shown for each in sections for shown in each["pictures"] if shown.get("sheet")][:1]  # the page opens with it
    for each in sections:
        each["pictures"] = [shown for shown in each["pictures"] if shown not in first]
    title = "MSMAE: " + ", ".join(folder.resolve().name for folder in folders)
    return environment.get_template("report.html.j2").render(
        title=title, date=date.today().isoformat(), first=first, sections=sections, citation=CITATION
    )


def main() -> None:
    parser = PlainParser(prog="python -m util.report", description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="output folders, in the order to show them")
    parser.add_argument("--output", type=Path, help="the file (default: report.html in the last folder)")
    options = parser.parse_args()
    output = options.output or options.folders[-1] / "report.html"
    if output.exists() and output.suffix != ".html":
        raise InputError(f"--output {output} exists and is no HTML page; choose another name")
    html = render(options.folders)
    try:
        output.write_text(html, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(f"--output {output} cannot be written: {error.strerror}") from None
    print(f"written: {output} ({len(html) / 2**20:.1f} MiB)")


if __name__ == "__main__":
    run_script(main)
