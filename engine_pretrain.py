"""Pre-training: one epoch of steps (METHOD.md "Pre-training"), and a look at what the model sees by then."""

import time

import torch

from util.evaluation.inference import class_probabilities
from util.evaluation.preview import draw_sheet
from util.masking import Split, split_patches, temper, weight_shares
from util.system import distributed
from util.training.classification import ClassificationRun
from util.training.epoch import training_steps
from util.training.log import Averages

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
            chosen_by = temper(weights, args.map_temperature)
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
    probabilities = class_probabilities(run.model, run.val_images, run.args, run.precision)
    draw_sheet(run, epoch, probabilities, run.model.reconstruct)
    top1 = (probabilities.argmax(1) == run.val_images.labels).float().mean().item()
    return {"val_top1": top1, **run.localise()}
