"""What pre-training and fine-tuning have beyond any run: folders of labelled images, and the maps of the training images."""

import torch
from torch import nn

from util.data.augment import Augment
from util.data.images import Images
from util.data.loading import TrainingImages, open_folders
from util.maps import sources as map_source
from util.maps.attention import relative_entropy
from util.maps.localisation import find_masks, measure
from util.masking import temper
from util.options import check_training
from util.system import distributed
from util.system.console import say
from util.training.checkpoint import Checkpoint
from util.training.optimisation import Schedule
from util.training.run import Run, named_folder


class ClassificationRun(Run):
    """A run on ``DIR/{train,val}/CLASS/*``.

    Args:
        args: the options.
        phase: "pretrain", "finetune" or "eval".
        departures: from the protocol; resumed: as in :class:`util.training.run.Run`.
    """

    def __init__(self, args, phase: str, departures: dict[str, tuple] | None = None, resumed: Checkpoint | None = None):
        splits = ("val",) if phase == "eval" else ("train", "val")
        self._folders = open_folders(args.data_path, splits, args.num_classes)
        if phase != "eval":
            check_training(args, len(self._folders[0]))
        default_folder = named_folder(args.data_path, phase)
        super().__init__(args, phase, self._folders[0].classes, default_folder, departures, resumed)
        self.map_entropy: float | None = None  # of the training set's maps; None until there are maps
        self.map_source: str | None = None  # where these come from

    def open(self) -> None:
        """Make the output folder; read all images, so that an unreadable one is found before any long work."""
        super().open()
        self.val_images = Images(self._folders[-1], self.args.cache, self.args.on_bad_image)
        self.masks = find_masks(self.val_images, self.args.lesion_masks)
        skipped = self.val_images.skipped
        if self.phase != "eval":
            self.train_images = Images(self._folders[0], self.args.cache, self.args.on_bad_image)
            skipped = self.train_images.skipped + skipped
        if skipped and distributed.is_main():
            written = self.folder / "skipped.txt"
            written.write_text("".join(f"{line}\n" for line in skipped))
            say(f"note: {len(skipped)} images that cannot be read are skipped, listed in {written}")

    def prepare(self, model: nn.Module, groups: list[dict], betas: tuple[float, float], augment: Augment) -> None:
        """All that comes before the first epoch, once there is a model.

        Args:
            model: on the device; it has ``grid_size`` and its maps.
            groups: of parameters, for AdamW; ``betas`` too.
            augment: of the training images.
        """
        args = self.args
        dataset = TrainingImages(self.train_images, augment, model.grid_size, args.seed)
        batch = args.batch_size * args.accum_iter * distributed.world_size()
        lr = args.blr * batch / 256 if args.lr is None else args.lr
        schedule = Schedule(lr, args.epochs, args.warmup_epochs, args.min_lr)
        self.begin(model, dataset, torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True), schedule)
        say(
            f"{args.model}: {sum(p.numel() for p in model.parameters()):,} parameters; {len(dataset)} training and "
            f"{len(self.val_images)} validation images of {len(self.classes)} classes; learning rate {lr:.3g} for an "
            f"effective batch of {batch}"
        )

    def state(self) -> dict:
        return {
            "maps": None if self.map_entropy is None else self.dataset.maps.clone(),
            "map_entropy": self.map_entropy,
            "map_source": self.map_source,
        }

    def restore_state(self, content: dict) -> None:
        self.map_entropy = content["map_entropy"]
        self.map_source = content.get("map_source", "last" if self.map_entropy else None)
        if content["maps"] is not None:
            self.dataset.maps.copy_(content["maps"])

    def refresh_maps(self, model: nn.Module | None = None) -> None:
        """Compute the maps of the training images from the current model, or another; the loader's workers see them."""
        maps = map_source.maps(model or self.model, self.train_images, self.args, self.precision, self.args.map)
        self.dataset.maps.copy_(maps)
        self.map_entropy, self.map_source = float(relative_entropy(maps.flatten(1)).mean()), self.args.map

    def localise(self) -> dict:
        """Where every source's map looks, on the validation images that have a lesion mask; empty when none has.

        Returns:
            ``map_gain``, ``map_pointing`` and ``map_average_precision`` of the source in use, with ``--masking attention``
            flattened or sharpened as SAM draws by it, and ``localisation``: what is measured for
            all.
        """
        chosen = [index for index, mask in enumerate(self.masks) if mask]
        if not chosen:
            return {}
        maps = map_source.maps_by_source(self.model, self.val_images, self.args, self.precision, chosen)
        used = maps[self.source_in_use(len(self.model.blocks))]
        if self.args.masking == "attention":
            used = temper(used.flatten(1), self.args.map_temperature).view_as(used)
        masks = [self.masks[index] for index in chosen]
        figures = measure({**maps, "in use": used}, masks, self.args.input_size)
        of_used = figures["sources"].pop("in use")
        return {**{f"map_{name}": value for name, value in of_used.items()}, "localisation": figures}

    def source_in_use(self, depth: int) -> str:
        """The source of the present maps as :func:`util.maps.sources.names` has it."""
        source = self.map_source or self.args.map
        return "last" if source == f"block{depth}" else source

    def maps_due_after(self, epoch: int, first: int) -> bool:
        """Whether maps are to be computed after this epoch, SAM running from epoch ``first``: then and periodically."""
        next_epoch = epoch + 1
        return first <= next_epoch < self.args.epochs and (next_epoch - first) % self.args.loc_interval == 0
