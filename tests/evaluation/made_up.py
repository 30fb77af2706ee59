"""Labels and probabilities of classifiers that do not exist."""

import numpy as np
from scipy.special import softmax

from util.evaluation.predictions import Predictions

CLASSES = ["benign", "malignant", "normal"]


def classifier(
    images: int,
    classes: int = 3,
    skill: float = 1.5,
    sharpness: float = 1.0,
    seed: int = 0,
    shares: tuple[float, ...] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """``[N]`` labels, drawn evenly or with these ``shares``, and ``[N, classes]`` probabilities.

    The logits are noise, with ``skill`` added to the true class's; ``skill`` times them are calibrated, and ``sharpness``
    divides the temperature.
    """
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, size=images, p=shares)
    logits = rng.normal(size=(images, classes)) + skill * np.eye(classes)[labels]
    return labels, softmax(skill * sharpness * logits, axis=1)


def two_models(images=120, better=0.6, seed=0):
    """Predictions of two models on the same images, which are hard or easy for both; the second is better."""
    rng = np.random.default_rng(seed)
    labels, shared = rng.integers(3, size=images), rng.normal(size=(images, 3))
    files = [f"data/val/{CLASSES[label]}/{index}.png" for index, label in enumerate(labels)]
    return [
        Predictions(
            files,
            softmax(shared + 0.5 * rng.normal(size=(images, 3)) + skill * np.eye(3)[labels], axis=1),
            CLASSES,
            labels,
        )
        for skill in (1.0, 1.0 + better)
    ]
