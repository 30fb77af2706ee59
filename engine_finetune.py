"""Fine-tuning: one epoch of steps on SAM's visible patches, and the evaluation on all of them (METHOD.md "Fine-tuning")."""

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing

from util.data.augment import mix_batch
from util.data.loading import resize_whole
from util.evaluation import pictures as figures
from util.evaluation.inference import over_images
from util.evaluation.metrics import figures_of_merit
from util.maps import sources as map_source
from util.masking import split_patches, temper, weight_shares
from util.system import distributed
from util.training.classification import ClassificationRun
from util.training.epoch import training_steps
from util.training.log import Averages

LOGGED = ("top1", "balanced_accuracy", "macro_f1", "macro_auc", "loss")  # figures of merit of every epoch


def make_mixup(args, num_classes: int) -> Mixup | None:
    """timm's Mixup and CutMix as the options say, or None when both are off."""
    if not (args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax):
        return None
    return Mixup(
        mixup_alpha=args.mixup,
        cutmix_alpha=args.cutmix,
        cutmix_minmax=args.cutmix_minmax,
        prob=args.mixup_prob,
        switch_prob=args.mixup_switch_prob,
        mode=args.mixup_mode,
        label_smoothing=args.smoothing,
        num_classes=num_classes,
    )


def make_erasing(args, device: torch.device) -> RandomErasing | None:
    """timm's random erasing as the options say, or None when it is off."""
    if not args.reprob:
        return None
    return RandomErasing(args.reprob, mode=args.remode, max_count=args.recount, device=device)


def train_one_epoch(
    run: ClassificationRun, epoch: int, masking: str, mixup: Mixup | None = None, erasing: RandomErasing | None = None
) -> dict[str, float]:
    """Train for one epoch; return the means of what was measured.

    ``masking`` says what hides patches: "attention" (SAM by the images' maps), "random" (as many, at random) or "none".
    The encoder computes the visible ones only.
    """
    args, stepper = run.args, run.stepper
    run.trained.train()
    averages = Averages()
    start, images = time.monotonic(), 0
    for batch, last_of_window in training_steps(run, averages, epoch):
        pixels, weights, targets = batch["image"], batch["weights"], batch["label"]
        if erasing:
            pixels = erasing(pixels)
        if mixup:  # smooths the labels itself
            pixels, weights, targets = mix_batch(mixup, pixels, weights, targets, args.patch_size)
        measured, visible = {}, None
        if masking == "attention":
            chosen_by = temper(weights, args.map_temperature)
            split = split_patches(chosen_by, batch["noise"], args.mask_ratio, args.throw_ratio)
            visible, measured = split.visible, weight_shares(weights, split)
        elif masking == "random":
            visible = split_patches(torch.ones_like(weights), batch["noise"], args.mask_ratio, args.throw_ratio).visible
        with stepper.precision():
            logits = run.trained(pixels, visible)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=0.0 if mixup else args.smoothing)
        stepper.backward(loss, last_of_window)
        top1 = (logits.argmax(-1) == batch["label"]).float().mean()
        averages.add(loss=loss, train_top1=top1, **measured)
        images += len(pixels) * distributed.world_size()
    return {**averages.means(), **stepper.scaling(), "images_per_second": images / (time.monotonic() - start)}


def evaluate(run: ClassificationRun, localise: bool) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """Figures of merit on the validation images, from all patches of each.

    Args:
        run: with its model.
        localise: also measure where the maps look (``run.localise``).

    Returns:
        The metrics, with ``loss`` and maybe localisation; the probabilities
        ``[N, classes]``; and the features that the head reads, ``[N, D]``.
    """
    model, images = run.model, run.val_images

    def compute(pixels: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        features = model.forward_head(model.forward_features(pixels), pre_logits=True)
        return torch.cat([model.head(features).float().softmax(-1), features.float()], dim=1)

    found = over_images(compute, model, images, run.args, run.precision, f"evaluating {images.root.name}")
    probabilities, features = found.tensor_split([len(run.classes)], dim=1)
    labels = images.labels
    results = figures_of_merit(labels.numpy(), probabilities.numpy(), run.classes)
    results["loss"] = F.nll_loss(probabilities.clamp_min(1e-12).log(), labels).item()
    if localise:
        results |= run.localise()
    return results, probabilities, features


def draw_pictures(run: ClassificationRun, results: dict, probabilities: torch.Tensor, features: torch.Tensor) -> None:
    """Draw what ``--eval`` shows beside its figures: ``roc.png``, ``confusion.png``, ``tsne.png`` and ``attention.png``."""
    images, model, classes = run.val_images, run.model, run.classes
    labels, chances = images.labels.numpy(), probabilities.numpy()
    cases = figures.gallery_cases(labels, chances)
    chosen = sorted({index for indices in cases.values() for index in indices})
    source = run.source_in_use(len(model.blocks))
    maps = map_source.maps(model, images, run.args, run.precision, source, chosen)
    pixels = {index: resize_whole(images[index], run.args.input_size) / 255 for index in chosen}
    place = "/".join(Path(run.args.resume).parts[-2:])
    title = f"{run.args.model}, {place}, {len(images)} images, top-1 {100 * results['top1']:.2f} %"
    if distributed.is_main():
        drawn = {
            "roc": figures.roc_figure(labels, chances, classes, title),
            "confusion": figures.confusion_figure(results["confusion"], classes, title),
            "tsne": figures.tsne_figure(features.numpy(), labels, classes, title),
            "attention": figures.gallery_figure(
                cases, pixels, dict(zip(chosen, maps, strict=True)), labels, chances, classes, f"{title}, map: {source}"
            ),
        }
        for name, figure in drawn.items():
            figure.savefig(run.folder / f"{name}.png")
