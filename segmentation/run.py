"""A run of segmentation: what it has beyond any run is its pairs of images and masks, and a schedule with a memory."""

from pathlib import Path

import torch

from segmentation.data import Pairs, TrainingPairs, augmentation
from segmentation.schedules import MultiStep, Plateau
from util.system import distributed
from util.system.console import say
from util.system.errors import InputError
from util.training.optimisation import Schedule
from util.training.run import Run, find_resumed


class SegmentationRun(Run):
    """A run on ``ROOT/{train,val}/{images,masks/CLASS}``.

    Args:
        args: the options.
        phase: "segmentation" or "eval".

    Raises:
        InputError: naming the files that cannot be used.
    """

    def __init__(self, args, phase: str):
        self.val_pairs = Pairs(args.root, "val", args.img_ext, args.mask_ext)
        classes = self.val_pairs.classes
        if phase != "eval":
            self.train_pairs = Pairs(args.root, "train", args.img_ext, args.mask_ext)
            if self.train_pairs.classes != classes:
                raise InputError(f"--root {args.root}: train/masks/ holds {self.train_pairs.classes}, val/masks/ {classes}")
            if args.batch_size * args.accum_iter * distributed.world_size() > len(self.train_pairs):
                raise InputError(f"--batch_size {args.batch_size}: more than the {len(self.train_pairs)} training images")
        if args.num_classes not in (None, len(classes)):
            raise InputError(
                f"--num_classes {args.num_classes}: val/masks/ has {len(classes)} folders ({', '.join(classes)})"
            )
        name = f"{args.dataset}-{args.name}" + "-eval" * (phase == "eval")
        folder = Path("output_dir") / name
        resumed = find_resumed(args, phase, folder) if args.resume else None
        super().__init__(args, phase, classes, folder, resumed=resumed)

    def prepare(self, model: torch.nn.Module) -> None:
        """All that comes before the first epoch, once there is a model on the device."""
        args = self.args
        kind = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD}[args.optimizer]
        own = {"momentum": args.momentum, "nesterov": args.nesterov} if args.optimizer == "SGD" else {}
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = kind(parameters, lr=args.lr, weight_decay=args.weight_decay, **own)
        optimizer.param_groups[0]["lr_scale"] = 1.0
        dataset = TrainingPairs(self.train_pairs, augmentation(args), args.seed)
        self.begin(model, dataset, optimizer, make_schedule(args, optimizer))
        say(
            f"{args.arch} on {args.model}: {sum(p.numel() for p in parameters):,} parameters; {len(dataset)} training and "
            f"{len(self.val_pairs)} validation images, masks of {len(self.classes)} classes"
        )

    def state(self) -> dict:
        schedule = self.stepper.schedule
        return {"plateau": schedule.state_dict() if isinstance(schedule, Plateau) else None}

    def restore_state(self, content: dict) -> None:
        if isinstance(self.stepper.schedule, Plateau) and content["plateau"]:
            self.stepper.schedule.load_state_dict(content["plateau"])


def make_schedule(args, optimizer: torch.optim.Optimizer) -> Schedule | MultiStep | Plateau:
    if args.scheduler == "cosine":
        return Schedule(args.lr, args.epochs, args.warmup_epochs, args.min_lr)
    if args.scheduler == "plateau":
        return Plateau(optimizer, args.factor, args.patience, args.min_lr)
    return MultiStep(args.lr, tuple(args.milestones), args.gamma) if args.scheduler == "multistep" else MultiStep(args.lr)
