"""``overlays/``: each image beside the same image under its attention map."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from util.data.inference import Inference
from util.data.loading import WholeImages, prepared
from util.maps import sources
from util.system import distributed, interruption
from util.system.console import track

FOLDER = "overlays"
LARGEST = 512  # pixels, of the longer side
STRENGTH = 0.6  # of the map's colour over the image


def overlay(image: Tensor, attention: Tensor) -> Image.Image:
    """The image, and right of it the image in grey under its map; smaller than the file where it is large.

    Args:
        image: ``[3, H, W]``, 0 to 255.
        attention: its map ``[gh, gw]`` in [0, 1], of the whole image whatever its shape.
    """
    scale = min(1.0, LARGEST / max(image.shape[1:]))
    size = [max(1, round(side * scale)) for side in image.shape[1:]]
    pixels = TF.resize(image, size, InterpolationMode.BILINEAR, antialias=True).float() / 255
    spread = TF.resize(attention[None], size, InterpolationMode.BILINEAR)[0].clamp(0, 1)
    heat = torch.from_numpy(colormaps["magma"](spread.numpy())[..., :3]).permute(2, 0, 1).float()
    under_map = (1 - STRENGTH) * pixels.mean(0, keepdim=True) + STRENGTH * heat
    both = torch.cat([pixels, under_map], dim=2).mul(255).round().byte()
    return Image.fromarray(both.permute(1, 2, 0).numpy().astype(np.uint8))


def draw_overlays(
    folder: Path, model: nn.Module, images: WholeImages, inference: Inference, source: str, chosen: list[int]
) -> list[str]:
    """Draw images with their maps; with several processes each draws its share.

    The pictures are numbered, so that their names tell nothing of the files'.

    Args:
        folder: of the outputs.
        images: of which ``chosen``, indices, are drawn; inference: how they pass through the model.
        source: of the maps.

    Returns:
        The pictures' names, from the folder on, in order.
    """
    maps = sources.maps(model, images, inference, source, chosen)
    (folder / FOLDER).mkdir(exist_ok=True)
    names = [f"{FOLDER}/{number:06}.png" for number in range(1, len(chosen) + 1)]

    def draw(number: int) -> None:
        overlay(images[chosen[number]], maps[number]).save(folder / names[number])

    share = -(-len(chosen) // distributed.world_size())
    for _ in track(prepared(draw, range(len(chosen)), 1), "drawing overlays", total=share):
        interruption.stop_if_asked()
    distributed.barrier()
    return names
