"""Pre-training: one epoch of steps (METHOD.md "Pre-training"), and a look at what the model sees by then."""

import time

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from models_msmae import MaskedAutoencoder
from util import distributed
from util.augment import denormalize, normalize
from util.data import Images, WholeImages
from util.log import Averages, RunLog
from util.loop import training_steps
from util.masking import split_patches, weight_shares
from util.optimisation import Precision, Stepper
from util.pictures import sheet


def train_one_epoch(
    model: nn.Module, loader: DataLoader, stepper: Stepper, log: RunLog, args, epoch: int, use_sam: bool
) -> dict[str, float]:
    """Train for one epoch; return the means of what was measured.

    With ``use_sam``, the images' maps choose what is masked and thrown; without, ``random_mask_ratio`` of the patches are
    masked at random and none is thrown.
    """
    model.train()
    averages = Averages()
    start, images = time.monotonic(), 0
    for batch, last_of_window in training_steps(loader, stepper, averages, log, args, epoch):
        weights, labels = batch["weights"], batch["label"]
        if use_sam:
            split = split_patches(weights, batch["noise"], args.mask_ratio, args.throw_ratio)
        else:
            split = split_patches(torch.ones_like(weights), batch["noise"], args.random_mask_ratio)
        with stepper.precision():
            output = model(batch["image"], split, labels)
        loss = output.reconstruction + args.class_weight * output.classification
        stepper.backward(loss, last_of_window)
        averages.add(
            loss=loss,
            loss_pixels=output.reconstruction,
            loss_class=output.classification,
            train_top1=(output.logits.argmax(-1) == labels).float().mean(),
            **(weight_shares(weights, split) if use_sam else {}),
        )
        images += len(labels) * distributed.world_size()
    return {**averages.means(), "images_per_second": images / (time.monotonic() - start)}


def draw_sheet(
    model: MaskedAutoencoder, images: Images, maps: Tensor, args, precision: Precision, title: str, count: int = 6
):
    """A sheet of ``count`` validation images, always the same: image, map, SAM's decision, reconstruction."""
    chosen = torch.linspace(0, len(images) - 1, min(count, len(images))).long().tolist()
    whole = WholeImages(images, args.input_size)
    pixels = normalize(torch.stack([whole[i]["image"] for i in chosen])).to(precision.device)
    weights = maps[chosen].flatten(1).to(pixels.device)
    noise = torch.rand(weights.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    split = split_patches(weights, noise.to(pixels.device), args.mask_ratio, args.throw_ratio)
    model.eval()
    with precision():
        prediction = model.reconstruct(pixels, split)
    prediction = denormalize(prediction.unflatten(-1, (-1, 3)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(2)
    captions = [images.classes[images.labels[i]] for i in chosen]
    return sheet(denormalize(pixels).cpu(), maps[chosen], *(part.cpu() for part in split), prediction.cpu(), captions, title)
