"""How good are a checkpoint's features? A k-NN and a linear classifier on them say, without any fine-tuning.

    python -m util.probe runs/pretrain/checkpoint-last.pth --data_path DIR

Features are what the head reads: of each whole image, the class token or the mean of the patches, as the checkpoint has it.
Both classifiers learn from train and are judged on test, or on val where there is no test.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder, called by its path

# a tool that is run by itself may call what stands above util
from models_msmae import load_model
from models_vit import VisionTransformer
from util.data.copies import copies_of
from util.data.folders import LabelledFiles, has_split, open_splits
from util.data.images import Images
from util.data.inference import Inference
from util.evaluation.intervals import intervals
from util.evaluation.metrics import classification_metrics
from util.evaluation.table import HEADLINES, PERCENT, with_interval
from util.options.parser import COUNT, Parser, number
from util.split import take
from util.system import threads
from util.system.console import say
from util.system.device import Precision, choose_device, choose_precision
from util.system.errors import InputError, run_script
from util.system.text import write_json
from util.weights import history

STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # C of the linear probe, the strongest regularisation first
HELD_BACK = 0.2  # of the training images, to choose among them
NEIGHBOURS = 20
SHOWN = ("top1", "balanced_accuracy", "macro_f1", "macro_auc")


def features_of(model: VisionTransformer, images: Images, inference: Inference, pool: str) -> np.ndarray:
    """What the head reads of each whole image, or would under another pooling: ``[N, D]`` float32.

    Args:
        pool: "token", the class token, or "avg", the mean of the patches; after all the normalisation that the model has.
    """

    def compute(pixels: Tensor) -> Tensor:
        return model.fc_norm(model.pool(model.forward_features(pixels), pool_type=pool))

    return inference.over(compute, model, images, f"features of {images.split}").numpy()


def nearest_neighbours(features: np.ndarray, labels: np.ndarray, neighbours: int) -> KNeighborsClassifier:
    """A vote of the nearest training images by cosine, each weighted by its nearness."""
    classifier = KNeighborsClassifier(min(neighbours, len(labels)), weights="distance", metric="cosine")
    return classifier.fit(features, labels)


def linear_probe(
    features: np.ndarray, labels: np.ndarray, classes: list[str], patients: np.ndarray | None, seed: int
) -> tuple:
    """Logistic regression on standardised features.

    Its regularisation is chosen on a fifth of the training images (:func:`hold_back`); it is then fitted to all. Of
    strengths that are as good the strongest is taken. Where nothing can be held back, C is 1.

    Returns:
        The classifier, and the C that was chosen.
    """

    def fit(strength: float, chosen: np.ndarray):
        logistic = LogisticRegression(C=strength, max_iter=5000)
        return make_pipeline(StandardScaler(), logistic).fit(features[chosen], labels[chosen])

    best, everything = 1.0, np.arange(len(labels))
    if (judged := hold_back(np.array(classes)[labels], patients, seed)) is not None:
        learnt = np.delete(everything, judged)
        right = [fit(strength, learnt).score(features[judged], labels[judged]) for strength in STRENGTHS]
        best = STRENGTHS[int(np.argmax(right))]
    return fit(best, everything), best


def hold_back(names: np.ndarray, patients: np.ndarray | None, seed: int) -> np.ndarray | None:
    """Indices of a fifth of the training images, by class and by patient; by image where a class has too few patients.

    Args:
        names: of the images' classes; patients: whose they are, or None.

    Returns:
        None where a class has too few images too. What cannot be is said.
    """
    by_patient = (patients, "C of the linear probe is chosen on images of any patient")
    by_image = (None, "C of the linear probe is 1, as it cannot be chosen")
    for owners, otherwise in (by_image,) if patients is None else (by_patient, by_image):
        try:
            judged = take(names, owners, HELD_BACK, seed)
            lacking = sorted(set(names) - (set(names[judged]) & set(np.delete(names, judged))))
            if not lacking:
                return judged
            reason = f"class {lacking[0]} has too few patients"
        except InputError as error:
            reason = str(error)
        say(f"note: {otherwise}: {reason}")
    return None


def probabilities_of(classifier, features: np.ndarray, classes: int) -> np.ndarray:
    """``[N, classes]``, zero for a class that no training image had."""
    full = np.zeros((len(features), classes))
    full[:, classifier.classes_] = classifier.predict_proba(features)
    return full


def judge(probabilities: np.ndarray, images: Images) -> dict:
    """Metrics with their 95 % intervals, ready for JSON."""
    labels = images.labels.numpy()
    metrics = classification_metrics(labels, probabilities, images.classes)
    full = intervals(labels, probabilities, images.classes, images.patients)
    return {name: metrics[name] for name in SHOWN} | {"intervals": {name: full[name] for name in SHOWN}}


def table(results: dict) -> str:
    """A line for each classifier, and the share of the most frequent class, which needs no features."""
    lines = [f"{'':<16}" + "".join(f"{HEADLINES[name]:<28}" for name in SHOWN).rstrip()]
    for key, title in (("k_nn", f"{results['neighbours']}-NN"), ("linear", "linear probe")):
        row = results[key]
        cells = (with_interval(row[name], row["intervals"][name], name in PERCENT) for name in SHOWN)
        lines.append(f"{title:<16}" + "".join(f"{cell:<28}" for cell in cells).rstrip())
    lines.append(f"{'largest class':<16}{100 * results['largest_class']:.2f} %")
    return "\n".join(lines)


def get_args() -> argparse.Namespace:
    parser = Parser((__doc__ or "").split("\n")[0])
    parser.usage = "%(prog)s CHECKPOINT --data_path DIR [options]"
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of pre-training or fine-tuning, or a published one")
    parser.add_argument("--data_path", required=True, metavar="DIR", help="folder or table, as the scripts take it")
    parser.add_argument("--split", choices=("test", "val"), help="what is judged (default: test where there is one)")
    parser.add_argument(
        "--pool", choices=("token", "avg"), help="class token or mean of patches (default: the checkpoint's)"
    )
    parser.add_argument("--neighbours", type=COUNT, default=NEIGHBOURS, metavar="K", help="that vote")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="to write (default: beside the checkpoint)")
    parser.add_argument("--batch_size", type=COUNT, default=64, help="images in a batch")
    parser.add_argument("--device", help="such as cuda, cuda:1 or cpu (default: cuda where there is a GPU, else cpu)")
    parser.add_argument("--amp", choices=("auto", "bf16", "fp16", "fp32"), default="auto", help="number format of products")
    parser.add_argument(
        "--patients", metavar="FILE", help="table with the columns path and patient, beside folders of images"
    )
    parser.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=0, help="of the part that is held back")
    return parser.parse_args()


def output_of(args: argparse.Namespace, split: str) -> Path:
    """The file to write, of which the folder is there and can be written to."""
    source, path = Path(args.checkpoint), Path(args.data_path).resolve()
    source = source if source.name else source.resolve()  # "." has no name
    data = path.name if path.is_dir() else path.stem
    chosen = [args.pool, args.neighbours != NEIGHBOURS and f"k{args.neighbours}", args.seed and f"seed{args.seed}"]
    name = "-".join([source.stem, "probe", data, split, *filter(None, chosen)])
    output = args.output or source.with_name(f"{name}.json")
    try:
        probe = output.with_name(f".{output.name}.tmp")
        probe.write_text("a file can be written here")
        probe.unlink()
    except OSError as error:
        raise InputError(f"--output {output} cannot be written: {error.strerror}") from None
    return output


def open_files(args: argparse.Namespace, split: str) -> tuple[LabelledFiles, LabelledFiles]:
    """The training files, and those of the split that is judged."""
    train, judged = open_splits(args.data_path, ("train", split), patients=args.patients, on_patient_leak="note")
    if copies := copies_of(judged.paths, train.paths):
        say(f"note: {len(copies)} of the {len(judged)} images of {split} are copies of a training image")
    return train, judged


def main() -> None:
    args = get_args()
    model = load_model(args.checkpoint)
    split = args.split or ("test" if has_split(args.data_path, "test") else "val")
    train_files, files = open_files(args, split)
    output = output_of(args, split)
    device = choose_device(args.device)
    threads.settle()
    precision = Precision(device, choose_precision(args.amp, device))
    line = history.remark(args.checkpoint, files.paths, f"images of {split}")
    if line:
        say(f"note: {line}")
    pool = args.pool or model.global_pool
    inference = Inference(model.grid_size[0] * model.patch_size, args.batch_size, precision)
    train = Images(train_files, reading=model.reading)
    judged = Images(files, reading=train.reading)
    model.to(device)
    learnt, asked = (features_of(model, images, inference, pool) for images in (train, judged))
    labels = train.labels.numpy()
    owners = np.array(train.patients) if train.patients else None
    linear, strength = linear_probe(learnt, labels, train.classes, owners, args.seed)
    neighbours = nearest_neighbours(learnt, labels, args.neighbours)
    count = len(judged.classes)
    results = {
        "checkpoint": args.checkpoint,
        "data_path": args.data_path,
        "split": split,
        "pool": pool,
        "training_images": len(train),
        "images": len(judged),
        "neighbours": neighbours.n_neighbors,
        "k_nn": judge(probabilities_of(neighbours, asked, count), judged),
        "linear": {"C": strength, **judge(probabilities_of(linear, asked, count), judged)},
        "largest_class": float(np.bincount(judged.labels.numpy()).max() / len(judged)),
        "remarks": [line] if line else [],
        "seed": args.seed,
    }
    what = {"token": "the class token", "avg": "the mean of the patches"}[pool]
    say(f"{args.checkpoint}: {what}, {learnt.shape[1]} features; {len(train)} images of train, {len(judged)} of {split}")
    say(table(results))
    write_json(output, results)
    say(f"written: {output}")


if __name__ == "__main__":
    run_script(main)
