"""What all exports share: what is exported, what a writer gives back, and the files that stand beside every model."""

import json
from dataclasses import dataclass, field
from importlib.util import find_spec

import torch
from torch import Tensor

from util.data.reading import Reading
from util.options.protocol import settings
from util.system.errors import InputError
from util.training.checkpoint import Checkpoint
from util.weights.files import METADATA

LARGEST_DIFFERENCE = 1e-4  # of outputs, as a share of the largest: more between ours and a library's is an error
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Exported:
    """A model to be exported.

    Args:
        model: a :class:`models_vit.VisionTransformer` in evaluation mode on the CPU, with its weights.
        origin: where they come from.
    """

    model: torch.nn.Module
    origin: Checkpoint

    @property
    def side(self) -> int:
        """Of its square input in pixels."""
        return self.model.grid_size[0] * self.model.patch_size

    @property
    def classes(self) -> list[str]:
        """Names of the classes; numbers where the source names none."""
        return self.origin.classes or [f"class {number}" for number in range(self.origin.outputs)]

    @property
    def has_decoder(self) -> bool:
        return hasattr(self.model, "decode")

    def encoder(self) -> dict[str, Tensor]:
        """The parameters of encoder and head."""
        state = self.model.state_dict()
        return {name: value for name, value in state.items() if not name.startswith("decoder_") and name != "mask_token"}

    @property
    def reading(self) -> Reading:
        """How its images were read, the intensity range among it."""
        return Reading.of(self.origin.options)

    def metadata(self) -> dict[str, str]:
        """What a safetensors file tells beside its tensors; :mod:`util.weights.files` reads it."""
        options = settings(self.origin.options) | self.reading.said
        about: dict = {"variant": self.model.variant.plain(), "args": options}
        if self.origin.classes:
            about["classes"] = self.origin.classes
        return {"format": "pt", METADATA: json.dumps(about)}

    def examples(self, count: int = 3) -> Tensor:
        """Random images ``[count, 3, S, S]`` on which an exported model is compared."""
        return torch.randn(count, 3, self.side, self.side, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Written:
    """What a writer did.

    Args:
        library: that reads the files.
        usage: lines of Python that load the model from the current folder.
        difference: of :func:`largest_difference`, between our outputs and those that the library computes from the files.
        notes: what could not be said in the files' form, a sentence each.
    """

    library: str
    usage: str
    difference: float
    notes: list[str] = field(default_factory=list)


def need(option: str, *packages: str) -> None:
    """Raise :class:`InputError` naming the packages that an export needs and that are not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise InputError(f"--to {option} needs {' and '.join(missing)}: pip install -r requirements-export.txt")


def preprocessing(exported: Exported) -> dict:
    """How an image becomes the model's input, as Hugging Face's preprocessor_config.json says it."""
    variant = exported.model.variant
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": exported.side, "width": exported.side},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(variant.mean),
        "image_std": list(variant.std),
    }


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Between outputs of one shape, as a share of the largest of ours: a young head's logits are all tiny."""
    return ((ours - theirs).abs().max() / ours.abs().max().clamp_min(torch.finfo(ours.dtype).tiny)).item()


def refuse_without_head(exported: Exported, option: str) -> None:
    if not exported.origin.outputs:
        raise InputError(f"{exported.origin.path} has no head, which --to {option} needs: fine-tune it first")
