"""A run, or several that belong together, as one HTML file that opens from disk: settings, curves, figures, pictures.

python -m util.report runs/pretrain runs/finetune runs/eval --output report.html
"""

import base64
import io
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from util.evaluation.table import HEADLINES, OF_EACH_CLASS, PERCENT, with_interval
from util.options.parser import PlainParser
from util.options.protocol import describe
from util.system.errors import InputError, run_script

CITATION = """@article{mao2023msmae,
  title   = {Medical supervised masked autoencoders: Crafting a better masking strategy and efficient fine-tuning
             schedule for medical image classification},
  author  = {Mao, Jiawei and Guo, Shujian and Chang, Yuanqi and Yin, Xuesong and Nie, Binling},
  journal = {arXiv preprint arXiv:2305.05871},
  year    = {2023}
}"""
PICTURES = {
    "roc.png": "ROC curves, one class against the rest",
    "confusion.png": "Confusion matrix: images by true and predicted class",
    "reliability.png": "How sure the model is, and how often it is right then",
    "tsne.png": "What the head reads, laid out by t-SNE",
    "attention.png": "The surest, the least sure and the mistaken, with their attention maps",
    "sheet.png": "From the best to the worst case",
}
SMALL = ("roc.png", "confusion.png", "reliability.png", "tsne.png")  # read well at half the page's width
CURVES = {  # panels of the picture of a training, and the log's names in each
    "loss": ("loss", "loss_pixels", "loss_class", "val_loss"),
    "accuracy": ("train_top1", "val_top1", "val_balanced_accuracy", "val_iou", "val_dice"),
    "share of the map on masked, thrown and visible patches": ("map_on_masked", "map_on_thrown", "map_on_visible"),
    "gain of the map (1: chance)": ("map_gain",),
}


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def picture(path: Path, caption: str) -> dict:
    return {"data": encode(path.read_bytes()), "caption": caption, "small": path.name in SMALL}


def curves(lines: list[dict]) -> Figure | None:
    """Losses, accuracies and what SAM does, by epoch; None where the log holds none of them."""
    panels = {title: [name for name in names if any(name in line for line in lines)] for title, names in CURVES.items()}
    panels = {title: names for title, names in panels.items() if names}
    if not panels:
        return None
    figure = Figure(figsize=(8, 2.5 * -(-len(panels) // 2)), dpi=130, layout="constrained")
    axes = list(figure.subplots(-(-len(panels) // 2), 2, squeeze=False).flat)
    for axis, (title, names) in zip(axes, panels.items(), strict=False):
        for name in names:
            points = [(line["epoch"] + 1, line[name]) for line in lines if name in line]
            axis.plot(*zip(*points, strict=True), "o-" if len(points) < 15 else "-", markersize=3, label=name)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("epochs", fontsize=8)
        axis.legend(fontsize=7, frameon=False)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return figure


def png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return encode(buffer.getvalue())


def training_section(folder: Path) -> dict:
    """What ``log.txt`` and the last sheet of a training tell."""
    lines = [json.loads(line) for line in (folder / "log.txt").read_text(encoding="utf-8").splitlines()]
    if not lines:
        raise InputError(f"{folder}/log.txt is empty: no epoch has ended yet")
    section: dict[str, list] = {"notes": [], "tables": [], "pictures": []}
    last = {name: value for name, value in lines[-1].items() if isinstance(value, int | float)}
    rows = [(name, f"{value:.4g}") for name, value in last.items()]
    section["tables"].append({"heading": f"Epoch {lines[-1]['epoch']}, the last", "columns": ("", "value"), "rows": rows})
    for score in ("val_top1", "val_iou"):
        scored = [line for line in lines if score in line]
        if len(scored) > 1:
            best = max(scored, key=lambda line: line[score])
            section["notes"].append(
                f"{score}: {100 * scored[-1][score]:.2f} % at the last look (epoch {scored[-1]['epoch']}), at best "
                f"{100 * best[score]:.2f} % (epoch {best['epoch']}, chosen on val/ itself)."
            )
    drawn = curves(lines)
    if drawn:
        section["pictures"].append({"data": png(drawn), "caption": "By epoch"})
    sheets = sorted(folder.glob("sheet-*.png"), key=lambda path: int(path.stem.split("-")[1]))
    if sheets:
        caption = f"What the model sees after epoch {sheets[-1].stem.split('-')[1]}"
        section["pictures"].append({**picture(sheets[-1], caption), "sheet": True})
    return section


def classification_tables(results: dict) -> list[dict]:
    """Metrics with their 95 % intervals, of all classes together and of each."""
    intervals = results["intervals"]
    shown = [
        (title, with_interval(results[name], intervals[name], name in PERCENT))
        for name, title in HEADLINES.items()
        if name in results
    ]
    per_class = [
        (
            *(name, row["images"]),
            *(
                with_interval(row[metric], intervals["per_class"][name][metric], metric in PERCENT)
                for metric in OF_EACH_CLASS
            ),
        )
        for name, row in results["per_class"].items()
    ]
    return [
        {
            "heading": f"Metrics on {results['images']} images",
            "columns": ("", "value (95 % interval)"),
            "rows": shown,
            "note": "Intervals by the bootstrap over images, those of shares by Clopper and Pearson. They tell of the "
            "sample of images, not of other seeds or sites.",
        },
        {"heading": "Classes", "columns": ("", "images", *OF_EACH_CLASS.values()), "rows": per_class},
    ]


def segmentation_tables(results: dict) -> list[dict]:
    """IoU, Dice, sensitivity and specificity, by what was averaged over what."""
    names = {"per_image": "mean over images", "whole_set": "whole set", "batch_averaged": "batches, averaged by their size"}
    metrics = ("iou", "dice", "sensitivity", "specificity")
    rows = [(title, *(f"{100 * results[key][metric]:.2f} %" for metric in metrics)) for key, title in names.items()]
    columns = ("", "IoU", "Dice (F1)", "sensitivity", "specificity")
    return [{"heading": f"Masks of {results['images']} images", "columns": columns, "rows": rows}]


def evaluation_section(folder: Path) -> dict:
    """What an evaluation wrote: ``metrics.json``, ``predictions.csv``, pictures."""
    results = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    tables = segmentation_tables(results) if "per_image" in results else classification_tables(results)
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
    pictures = [picture(folder / name, caption) for name, caption in PICTURES.items() if (folder / name).exists()]
    notes = [
        f"Checkpoint: {results['checkpoint']}, evaluated on {results.get('split', 'val')}.",
        *results.get("remarks", []),
    ]
    return {"notes": notes, "tables": tables, "pictures": pictures}


def sections_of(folder: Path) -> list[dict]:
    """All that a folder tells: of a training, and of an evaluation beside it.

    Raises:
        InputError: when it holds neither a training nor an evaluation.
    """
    makers: dict[str, Callable[[Path], dict]] = {"log.txt": training_section, "metrics.json": evaluation_section}
    found = {name: make(folder) for name, make in makers.items() if (folder / name).is_file()}
    if not found:
        raise InputError(f"{folder} holds neither metrics.json (of an evaluation) nor log.txt (of a training)")
    for name, content in found.items():
        beside = name == "metrics.json" and (folder / "run-eval.json").is_file()
        about = folder / ("run-eval.json" if beside else "run.json")
        content["heading"] = folder.name
        if about.is_file():
            run = json.loads(about.read_text(encoding="utf-8"))
            content["command"] = " ".join(run["command"])
            named = {f"checkpoint {use}": file for use, file in run.get("checkpoints", {}).items() if file}
            hashes = {name: f"{file['file']}, sha256 {file['sha256']}" for name, file in named.items()}
            content["settings"] = {**run["options"], **hashes, **run["environment"]}
            if protocol := run.get("protocol"):
                content["notes"].insert(0, describe(protocol["name"], protocol["departures"]))
            content["heading"] = f"{run['phase']}: {folder.name}"
    return list(found.values())


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
    parser = PlainParser(description=__doc__.split("\n")[0])
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
