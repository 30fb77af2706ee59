"""An overlay has the image's shape twice, and the map's colours where the map is."""

import numpy as np
import torch
from matplotlib import colormaps

from util.evaluation.overlays import LARGEST, overlay


def test_image_and_map_side_by_side():
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    attention = torch.zeros(4, 4)
    attention[0, 3] = 1  # above, right
    drawn = np.asarray(overlay(image, attention))
    assert drawn.shape == (40, 120, 3)
    assert (drawn[:, :60] == image.permute(1, 2, 0).numpy()).all()
    grey = image.float().mean(0).numpy()
    for (row, column), value in {(0, 59): 1.0, (39, 0): 0.0}.items():
        expected = 0.4 * grey[row, column] + 0.6 * 255 * np.array(colormaps["magma"](value)[:3])
        assert np.abs(drawn[row, 60 + column] - expected).max() <= 1


def test_large_and_long_images_keep_their_shape():
    assert overlay(torch.zeros(3, 1000, 2000, dtype=torch.uint8), torch.ones(2, 2)).size == (2 * LARGEST, LARGEST // 2)
    assert overlay(torch.zeros(3, 1, 2000, dtype=torch.uint8), torch.ones(2, 2)).size == (2 * LARGEST, 1)
