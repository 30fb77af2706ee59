"""What is kept of a finished run: right answers at its last epoch, its curve and cost, and what its map finds."""

import math
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.record import ran_on, read_lines
from models_msmae import load_model
from models_vit import VisionTransformer
from util.data.copies import copies_of
from util.data.folders import open_splits
from util.data.images import Images
from util.data.inference import Inference
from util.evaluation.intervals import clopper_pearson
from util.maps.localisation import find_masks, localise
from util.system.device import Precision
from util.system.errors import InputError
from util.system.seeds import seed_everything

DELETED = 0.1  # share of the patches


def count(right: Tensor) -> dict:
    """Right answers of how many, and the exact 95 % interval of their share."""
    hits, total = int(right.sum()), len(right)
    return {"right": hits, "of": total, "interval": clopper_pearson(hits, total)}


def answers(model: VisionTransformer, images: Images, inference: Inference) -> dict[str, Tensor]:
    """Which images ``[N]`` are classified right from all patches, and from those that stay when a tenth is deleted.

    Deleted are the patches that the last block's map attends to most, or, to compare, as many at random.
    """
    seed_everything(0, "deletion")

    def predict(pixels: Tensor) -> Tensor:
        maps = model.attention_maps(pixels).flatten(1)
        deleted = math.floor(DELETED * maps.shape[1])
        orders = (maps.argsort(1, descending=True), torch.rand(maps.shape).argsort(1))
        visible = (None, *(order[:, deleted:].sort(1).values for order in orders))
        return torch.stack([model(pixels, patches).argmax(-1) for patches in visible], dim=1)

    right = inference.over(predict, model, images, "evaluating").long() == images.labels[:, None]
    return dict(zip(("all", "most_attended_deleted", "random_deleted"), right.unbind(1), strict=True))


def of_finetuning(folder: Path, data: Path) -> dict:
    """The figures of a fine-tuning on a data set; raises :class:`InputError` where the model answers not as it did."""
    model = load_model(folder / "checkpoint-last.pth")
    train, val = open_splits(str(data), ("train", "val"))
    images, curve = Images(val), [round(line["val_top1"], 5) for line in read_lines(folder / "log.txt")]
    inference = Inference(model.patch_embed.img_size[0], 32, Precision(torch.device("cpu"), "bf16"))
    right = answers(model, images, inference)
    if abs(curve[-1] - right["all"].float().mean().item()) > 2 / len(images):
        raise InputError(f"{folder}: top-1 was {curve[-1]:.4f} and is not now; is {data} the same?")
    copies = copies_of(images.paths, train.paths)
    unseen = torch.tensor([path not in copies for path in images.paths])
    return {
        **{name: count(of) for name, of in right.items()},
        **({"without_copies": count(right["all"][unseen])} if copies else {}),
        **{"curve": curve, **localise(model, images, find_masks(images, None), inference, "last", None)},
    }


def gather(folder: Path, data: Path, pretrains: bool) -> dict:
    """The figures of a finished run, with the commit of its code and its cost."""
    starts = read_lines(folder / "cpu.json")
    minutes = round(sum(start["cpu_seconds"] for start in starts) / 60, 1)
    shared = {"commit": starts[-1]["commit"], "ran_on": ran_on(folder), "cpu_minutes": minutes}
    return shared | ({} if pretrains else of_finetuning(folder, data))
