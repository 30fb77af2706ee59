"""The maps of the training images: where they come from, when they are made anew, and what a checkpoint keeps of them."""

import torch
from torch import Tensor

from util.data.images import Images
from util.data.inference import Inference
from util.maps import sources
from util.maps.attention import relative_entropy


class TrainingMaps:
    """The map of every training image, one home for all that is known of them.

    Args:
        images: number of training images.
        grid: rows and columns of a map.
        source: where maps come from (:mod:`util.maps.sources`).
        epochs: those in which SAM draws by the maps; none: maps are never made.
        interval: epochs from one refresh to the next.
        files: hashes of the training images (:class:`util.data.seen_files.SeenFiles`): the maps of a checkpoint that was
            written with others are left aside, and made anew.

    Attributes:
        grids: ``[images, gh, gw]`` float32 in [0, 1], in shared memory; ones until maps are made.
        nbytes: what they take in a checkpoint.
        entropy: mean entropy of the maps relative to that of a uniform one; None until maps are made.
    """

    def __init__(
        self, images: int, grid: tuple[int, int], source: str, epochs: range, interval: int, files: Tensor | None = None
    ):
        self.files = files
        self.source, self.epochs, self.interval = source, epochs, interval
        self.grids = torch.ones(images, *grid).share_memory_()
        self.nbytes = self.grids.nbytes if epochs else 0
        self.entropy: float | None = None
        self._made_for: int | None = None  # the epoch before which they were made last

    def due(self, epoch: int) -> bool:
        """Whether maps are to be made before an epoch: where SAM starts, and every ``interval`` epochs from there."""
        if epoch not in self.epochs or epoch == self._made_for:
            return False
        return self.entropy is None or (epoch - self.epochs.start) % self.interval == 0

    def refresh(self, epoch: int, model: torch.nn.Module, images: Images, inference: Inference) -> None:
        """Make the maps before an epoch, by the model as it is."""
        self.grids.copy_(sources.maps(model, images, inference, self.source))
        self.entropy = float(relative_entropy(self.grids.flatten(1)).mean())
        self._made_for = epoch

    def summary(self) -> dict:
        """For the log of an epoch in which SAM runs."""
        return {"map_entropy": self.entropy, "map_source": self.source}

    def state_dict(self) -> dict:
        """What a checkpoint keeps."""
        made = self.entropy is not None
        return {
            "maps": self.grids.clone() if made else None,
            "map_entropy": self.entropy,
            "map_source": self.source if made else None,
            "maps_made_for": self._made_for,
        }

    def load_state_dict(self, content: dict) -> None:
        """Take from a checkpoint what :meth:`state_dict` put there, unless it belongs to other images or another source.

        Raises:
            ValueError: where the maps are not of these images' number and grid.
        """
        before = content.get("files", {}).get("train")
        other_images = self.files is not None and before is not None and not torch.equal(before, self.files)
        if other_images or content.get("map_source") not in (None, self.source):
            return  # they are made anew
        maps = content["maps"]
        if maps is not None and (maps.shape != self.grids.shape or not (maps.isfinite() & (maps >= 0)).all()):
            raise ValueError(f"maps {tuple(maps.shape)} are not of these images")
        self.entropy = content["map_entropy"]
        if content["maps"] is not None:
            self.grids.copy_(content["maps"])
            # before format 3, maps were made at the end of the epoch before
            self._made_for = content.get("maps_made_for", content["epoch"] + 1)
