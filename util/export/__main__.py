"""Export a checkpoint for timm, Hugging Face, ONNX Runtime or safetensors, with its pre-processing and a model card.

    python -m util.export CHECKPOINT --to timm DIR

Each export is loaded again by the library that it is for, and compared with the model itself before DIR is made.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder, called by its path

from models_msmae import model_of
from util.data.reading import Reading
from util.evaluation.decision import Decision, read_decision
from util.export import hugging_face_format, onnx_format, safetensors_format, timm_format
from util.export.card import find_metrics, write_card
from util.export.exported import LARGEST_DIFFERENCE, Exported
from util.maps import sources
from util.options.parser import PlainParser
from util.system.console import say
from util.system.errors import InputError, run_script
from util.training.damage import plainly
from util.weights.sources import load_weights

FORMATS = {
    "timm": timm_format.write,
    "hf": hugging_face_format.write,
    "onnx": onnx_format.write,
    "safetensors": safetensors_format.write,
}


def get_args() -> argparse.Namespace:
    parser = PlainParser(prog="python -m util.export", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of pre-training or fine-tuning, or other weights")
    parser.add_argument("--to", choices=tuple(FORMATS), required=True, help="what is to read it")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the files go; it must not exist, or be empty")
    parser.add_argument(
        "--with_map",
        type=sources.parse,
        nargs="?",
        const="last",
        metavar="SOURCE",
        help="onnx: the attention map as a second output: last (where no SOURCE is named), consensus or blockN",
    )
    parser.add_argument(
        "--metrics", type=Path, metavar="FILE", help="metrics.json for the model card (default: that beside CHECKPOINT)"
    )
    return parser.parse_args()


def decision_in_words(decision: Decision) -> list[str]:
    """What was chosen for a checkpoint on val/ and is not part of an exported model, a sentence each."""
    sentences = []
    if decision.temperature is not None:
        sentences.append(f"logits are not calibrated: divide them by the temperature {decision.temperature:.6g} for that")
    if decision.cutoff:
        value, name = decision.cutoff.value, decision.cutoff.positive
        sentences.append(f"a probability of {name} from {value:.6g} on is above the cut-off that was chosen for it")
    return sentences


def reading_in_words(reading: Reading) -> list[str]:
    """Sentences for whoever reads images of more than 8 bits for the model."""
    sentences = []
    if reading.ends:
        low, high = reading.ends
        sentences.append(f"images of more than 8 bits are scaled first: {low:g} becomes 0, {high:g} becomes 255")
    if reading.frame is not None:
        sentences.append(f"of files with several pictures it takes number {reading.frame}, counted from 0")
    if reading.slice:
        axis, index = reading.slice
        sentences.append(f"of volumes it takes slice {index} along axis {axis}")
    return sentences


def main() -> None:
    args = get_args()
    if args.with_map and args.to != "onnx":
        raise InputError(f"--with_map is for --to onnx; leave it out for --to {args.to}")
    if args.folder.exists() and (not args.folder.is_dir() or any(args.folder.iterdir())):
        raise InputError(f"{args.folder} is there already: choose another folder")
    origin = load_weights(args.checkpoint)
    if origin.phase == "segmentation":
        raise InputError(f"{args.checkpoint} is a segmentation model; only pre-training and fine-tuning can be exported")
    decision = read_decision(origin.content, origin.classes or [], origin.path)
    metrics = find_metrics(Path(args.checkpoint), origin.sha256, args.metrics)
    exported = Exported(model_of(origin), origin)

    folder = args.folder.resolve()  # "." has no name
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{args.folder} cannot be made: {error.strerror}") from None
    try:
        options = {"map_source": args.with_map} if args.with_map else {}
        written = FORMATS[args.to](exported, unfinished, **options)
        if not written.difference <= LARGEST_DIFFERENCE:
            raise InputError(
                f"--to {args.to}: the outputs differ by {written.difference:.1e} of the largest; nothing was written"
            )
        written.notes.extend([*reading_in_words(exported.reading), *decision_in_words(decision)])
        write_card(exported, written, unfinished, metrics)
        if folder.exists():  # it stays, as a shell may be in it
            for path in unfinished.iterdir():
                shutil.move(path, folder / path.name)
        else:
            unfinished.replace(folder)
    except ImportError as error:
        reason = f"a package cannot be imported ({plainly(error)}): pip install -r requirements-export.txt"
        raise InputError(f"--to {args.to}: {reason}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    for note in written.notes:
        say(f"note: {note}")
    share = f"{written.difference:.1e} of the largest"
    say(f"checked with {written.library}: on random images, outputs differ by {share} at most")
    say(f"written in {args.folder}: {', '.join(sorted(path.name for path in args.folder.iterdir()))}")


if __name__ == "__main__":
    run_script(main)
