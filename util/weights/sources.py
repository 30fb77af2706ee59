"""All sources of weights. To add one, write a file beside this one and name it in :data:`SOURCES`."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from util.training.checkpoint import Checkpoint
from util.weights import files, hugging_face, timm_models


class Source(NamedTuple):
    """Where weights come from.

    Args:
        takes: whether it is the one for what the user named.
        load: reads it; without weights, tensors may have a shape and no values.
    """

    takes: Callable[[str], bool]
    load: Callable[[str, bool], Checkpoint]


SOURCES = (  # the first that takes a name reads it
    Source(timm_models.names_a_model, timm_models.load),
    Source(timm_models.is_folder, timm_models.load_folder),
    Source(hugging_face.takes, hugging_face.load),
    Source(lambda name: True, files.load),
)


def load_weights(name: str | Path, weights: bool = True) -> Checkpoint:
    """Read the weights that an option names, by MAE's names of parameters (docs/weights.md lists what is taken).

    Args:
        name: a file, a folder, or ``timm:NAME``.
        weights: read them; if not, tensors may have a shape and no values.

    Raises:
        InputError: where they are not there, are damaged, would run code, or are of an architecture that is not built here.
    """
    return next(source.load(str(name), weights) for source in SOURCES if source.takes(str(name)))
