"""Pre-training: one epoch of steps (METHOD.md "Pre-training"), and a look at what the model sees by then."""

import time

import torch
from matplotlib.figure import Figure
from torch import Tensor

from util import distributed, map_source
from util.augment import denormalize, normalize
from util.classification import ClassificationRun
from util.data import resize_whole
from util.log import Averages
from util.loop import training_steps
from util.masking import Split, soften, split_patches, weight_shares
from util.pictures import sheet
from util.whole_set import class_probabilities

NO_LABEL = -100  # what PyTorch's cross-entropy leaves out


def train_one_epoch(run: ClassificationRun, epoch: int, use_sam: bool) -> dict[str, float]:
    """Train for one epoch; return the means of what was measured.

    With ``use_sam``, the images' maps choose what is masked and thrown; without, ``random_mask_ratio`` of the patches are
    masked at random and none is thrown. Where ``random_share`` is above 0, SAM leaves that share of each batch to chance,
    and only there does the head learn: it need not name a lesion that SAM hides from it (METHOD.md "SAM").
    """
    args, stepper = run.args, run.stepper
    run.trained.train()
    averages = Averages()
    start, images = time.monotonic(), 0
    for batch, last_of_window in training_steps(run, averages, epoch):
        weights, labels = batch["weights"], batch["label"]
        by_chance = round(args.random_share * len(labels)) if use_sam else 0
        if use_sam:
            chosen_by = soften(weights, args.map_temperature, args.map_uniform)
            chosen_by[:by_chance] = 1
            split = split_patches(chosen_by, batch["noise"], args.mask_ratio, args.throw_ratio)
            if by_chance:
                labels = labels.index_fill(0, torch.arange(by_chance, len(labels), device=labels.device), NO_LABEL)
        else:
            split = split_patches(torch.ones_like(weights), batch["noise"], args.random_mask_ratio)
        with stepper.precision():
            output = run.trained(batch["image"], split, labels)
        loss = output.reconstruction + args.class_weight * output.classification
        stepper.backward(loss, last_of_window)
        averages.add(
            loss=loss,
            loss_pixels=output.reconstruction,
            loss_class=output.classification,
            train_top1=(output.logits.argmax(-1) == batch["label"]).float().mean(),
            **(weight_shares(weights[by_chance:], Split(*(part[by_chance:] for part in split))) if use_sam else {}),
        )
        images += len(labels) * distributed.world_size()
    return {**averages.means(), **stepper.scaling(), "images_per_second": images / (time.monotonic() - start)}


def look(run: ClassificationRun, epoch: int) -> dict[str, float]:
    """What the model knows and sees after an epoch, on the validation images; a sheet of pictures is drawn on the way.

    Returns:
        ``val_top1`` of the class-token head on all patches and what ``run.localise`` finds.
    """
    args = run.args
    probabilities = class_probabilities(run.model, run.val_images, args, run.precision)
    maps = map_source.maps(run.model, run.val_images, args, run.precision, run.source_in_use(len(run.model.blocks)))
    if distributed.is_main():
        figure = draw_sheet(run, maps, f"{args.model}, {run.folder.name}, after epoch {epoch}")
        figure.savefig(run.folder / f"sheet-{epoch}.png")
        run.log.figure("sheet", figure, epoch)
    top1 = (probabilities.argmax(1) == run.val_images.labels).float().mean().item()
    return {"val_top1": top1, **run.localise()}


def draw_sheet(run: ClassificationRun, maps: Tensor, title: str, count: int = 6) -> Figure:
    """Image, map, SAM's decision and reconstruction of ``count`` validation images, always the same ones.

    Args:
        run: with its model.
        maps: ``[N, gh, gw]`` of all validation images.
    """
    images, model, device = run.val_images, run.model, run.device
    chosen = torch.linspace(0, len(images) - 1, min(count, len(images))).long().tolist()
    pixels = normalize(torch.stack([resize_whole(images[i], run.args.input_size) for i in chosen])).to(device)
    weights = maps[chosen].flatten(1)
    noise = torch.rand(weights.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    split = split_patches(weights, noise, run.args.mask_ratio, run.args.throw_ratio)
    model.eval()
    with run.precision():
        prediction = model.reconstruct(pixels, Split(*(part.to(device) for part in split))).cpu()
    prediction = denormalize(prediction.unflatten(-1, (-1, 3)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(2)
    captions = [images.classes[images.labels[i]] for i in chosen]
    return sheet(denormalize(pixels).cpu(), maps[chosen], split, prediction, captions, title)
