"""Does the masking give the label away? A probe that sees nothing of an image but where its visible patches are.

A masking that follows lesions tells a little of the class, by their place; a map made from the label may tell it all, and a
network could then read the class off the positions of its tokens. For every source of maps of a pre-trained model: the
cross-validated accuracy of a logistic regression on which patches SAM leaves visible.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import Tensor

from models_msmae import model_of
from util.data.folders import open_splits
from util.data.images import Images
from util.data.inference import Inference
from util.data.reading import Reading
from util.maps.sources import canonical, maps_by_source
from util.masking import SAM
from util.system.device import Precision, choose_device, choose_precision
from util.system.errors import InputError
from util.training import checkpoint

IMAGES = 1000  # at most, spread over the training set


def probe_accuracy(maps: Tensor, labels: Tensor, sam: SAM) -> float:
    """How well the positions of the visible patches, drawn once by the maps ``[N, L]``, tell the labels ``[N]``.

    The draw is SAM's, from a fixed seed; the probe is judged on folds that it was not fitted on.
    """
    seen = torch.zeros(maps.shape).scatter_(1, sam.example(maps).visible, 1.0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(cross_val_score(LogisticRegression(C=0.1, max_iter=1000), seen.numpy(), labels.numpy(), cv=folds).mean())


def leaks(path: Path, data_path: str, device: str | None = None) -> dict[str, float]:
    """The probe's accuracy by source of maps, with what to compare it with.

    Where SAM ran, ``as SAM draws`` is its map, sharpened as it was; ``random`` is for maps that are even; ``most frequent``
    is the accuracy of always guessing that class.
    """
    source = checkpoint.load(path)
    if source.phase != "pretrain":
        raise InputError(f"{path} is not a checkpoint of main_pretrain.py")
    options, device = source.options, choose_device(device)
    images = Images(open_splits(data_path, ("train",))[0], options["cache"], options["on_bad_image"], Reading.of(options))
    chosen = torch.linspace(0, len(images) - 1, min(IMAGES, len(images))).long().tolist()
    inference = Inference(source.input_size, options["batch_size"], Precision(device, choose_precision("auto", device)))
    model = model_of(source).to(device)
    maps = {name: each.flatten(1) for name, each in maps_by_source(model, images, inference, chosen).items()}
    maps["random"] = torch.ones_like(maps["last"])
    plain = SAM(options["mask_ratio"], options["throw_ratio"])
    labels = images.labels[chosen]
    accuracies = {name: probe_accuracy(each, labels, plain) for name, each in maps.items()}
    if used := source.content.get("map_source"):
        drawn_by = maps[canonical(used, len(model.blocks))]
        accuracies["as SAM draws"] = probe_accuracy(drawn_by, labels, replace(plain, temperature=options["map_temperature"]))
    return accuracies | {"most frequent": Counter(labels.tolist()).most_common(1)[0][1] / len(labels)}
