"""Does the masking give the label away? A probe that sees nothing of an image but where its visible patches are.

    python -m benchmarks.leak CHECKPOINT --data_path DIR

A lesion's place says something about its class, so a masking that follows lesions tells a little; a map made from the label
may tell it all, and a network could then read the class off the positions of its tokens. For every map source of a
pre-trained model: the cross-validated accuracy of a logistic regression on which patches SAM leaves visible.
"""

import argparse
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import Tensor

from models_msmae import load_model
from util.data.images import Images
from util.data.loading import open_folders
from util.maps import sources as map_source
from util.masking import split_patches, temper
from util.system.errors import InputError, run_script
from util.system.workplace import choose_device, choose_precision
from util.training import checkpoint
from util.training.optimisation import Precision

IMAGES = 1000  # at most, spread over the training set
FOLDS = 5


def probe_accuracy(maps: Tensor, labels: Tensor, mask_ratio: float, throw_ratio: float) -> float:
    """Accuracy with which the positions of the visible patches, drawn once by the maps ``[N, L]``, tell the labels ``[N]``.

    Visible means visible to the encoder. The draw is SAM's, from a fixed seed; the probe is judged on folds it was not
    fitted on.
    """
    noise = torch.rand(maps.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    visible = split_patches(maps, noise, mask_ratio, throw_ratio).visible
    seen = torch.zeros(maps.shape).scatter_(1, visible, 1.0)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    probe = LogisticRegression(C=0.1, max_iter=1000)
    return float(cross_val_score(probe, seen.numpy(), labels.numpy(), cv=folds).mean())


def leaks(path: Path, data_path: str, device: str | None = None) -> dict[str, float]:
    """The probe's accuracy for each source of :func:`util.maps.sources.names`, and for what to compare with.

    Returns:
        By source; ``as SAM draws`` for the map that SAM used last, softened or sharpened as it was, where SAM ran;
        ``random`` for maps that are even; ``most frequent`` for always guessing the most frequent class.
    """
    content = checkpoint.load(path)
    if content.get("phase") != "pretrain":
        raise InputError(f"{path} is no checkpoint of main_pretrain.py")
    model, args = load_model(path), SimpleNamespace(**content["args"])
    where = choose_device(device)
    precision = Precision(where, choose_precision("auto", where))
    images = Images(open_folders(data_path, ("train",))[0], args.cache, args.on_bad_image)
    chosen = torch.linspace(0, len(images) - 1, min(IMAGES, len(images))).long().tolist()
    found = map_source.maps_by_source(model.to(where), images, args, precision, chosen)
    labels = images.labels[chosen]
    maps = {name: each.flatten(1) for name, each in found.items()}
    maps["random"] = torch.ones_like(maps["last"])
    if used := content.get("map_source"):
        source = maps.get(used, maps["last"])  # the last block may go by its number
        maps["as SAM draws"] = temper(source, args.map_temperature)
    accuracies = {name: probe_accuracy(each, labels, args.mask_ratio, args.throw_ratio) for name, each in maps.items()}
    return {**accuracies, "most frequent": Counter(labels.tolist()).most_common(1)[0][1] / len(labels)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="of main_pretrain.py")
    parser.add_argument("--data_path", required=True, metavar="DIR", help="as the entry scripts take it")
    parser.add_argument("--device", help="as the entry scripts take it")
    options = parser.parse_args()
    for name, accuracy in leaks(options.checkpoint, options.data_path, options.device).items():
        print(f"{name:<16}{100 * accuracy:6.1f} %")


if __name__ == "__main__":
    run_script(main)
