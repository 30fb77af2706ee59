"""Labels and probabilities of a classifier that does not exist."""

import numpy as np
from scipy.special import softmax


def classifier(
    images: int, classes: int = 3, skill: float = 1.5, sharpness: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """``[N]`` labels, evenly drawn, and ``[N, classes]`` probabilities.

    The logits are noise, with ``skill`` added to the true class's; ``skill`` times them are calibrated, and ``sharpness``
    divides the temperature.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=images)
    logits = rng.normal(size=(images, classes)) + skill * np.eye(classes)[labels]
    return labels, softmax(skill * sharpness * logits, axis=1)
