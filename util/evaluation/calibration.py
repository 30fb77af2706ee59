"""Whether probabilities mean what they say, and one number, the temperature, that makes them.

Guo et al., On Calibration of Modern Neural Networks (2017): divide the logits by a temperature that makes the labels of
images not trained on most probable. The order of an image's classes, and so its prediction, stays.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve

from util.evaluation.intervals import clopper_pearson
from util.system.errors import InputError

BINS = 15
LIMITS = (0.01, 100.0)  # of a temperature


def calibration_metrics(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> dict:
    """Calibration error and Brier score, ready for JSON, with the bins of a reliability diagram.

    An image's confidence is the probability of its predicted class. Bins are of equal width over (0, 1]; a bin without an
    image is left out.

    Args:
        labels: ``[N]`` class indices; probabilities: ``[N, classes]``.
        bins: their number.

    Returns:
        ``expected_calibration_error``: the mean over images of how far the mean confidence in their bin lies from its share
        of right predictions, in [0, 1]. ``brier_score``: the mean over images of the squared distance between the
        probabilities and the truth, summed over classes, in [0, 2]; of two classes that of one of them, in [0, 1].
        ``bins``: their number. ``reliability``: for each bin its ``images``, mean ``confidence``, ``accuracy`` and the
        exact 95 % ``interval`` of that.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    confidence = np.minimum(confidence, 1)  # a softmax in 32 bits can exceed 1 by a rounding
    accuracies, confidences = calibration_curve(right.astype(int), confidence, pos_label=1, n_bins=bins)
    own_bin = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
    sizes = np.bincount(own_bin, minlength=bins)
    sizes = sizes[sizes > 0]
    squares = ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1).mean()
    return {
        "expected_calibration_error": float(np.average(abs(accuracies - confidences), weights=sizes)),
        "brier_score": float(squares / 2 if probabilities.shape[1] == 2 else squares),
        "bins": bins,
        "reliability": [
            {
                "images": int(size),
                "confidence": float(mean),
                "accuracy": float(accuracy),
                "interval": clopper_pearson(round(accuracy * size), int(size)),
            }
            for size, mean, accuracy in zip(sizes, confidences, accuracies, strict=True)
        ],
    }


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature at which the labels are most probable.

    Args:
        labels: ``[N]`` class indices, of images that the model was not trained on.
        logits: ``[N, classes]``, or :func:`logits_of` probabilities.

    Raises:
        InputError: if there is none between 0.01 and 100: where each image is classified right, the sharper the better, and
            where the logits tell less than nothing, the flatter.
    """
    logits, image = logits.astype(np.float64), np.arange(len(labels))
    if (logits.argmax(1) == labels).all():
        raise InputError(f"no temperature fits {len(labels)} images that are all classified right: calibrate on more images")

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[image, labels].mean()

    limits = np.log(LIMITS)
    optimum = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-8})
    if min(abs(optimum.x - limits)) < 1e-3:
        raise InputError(
            f"no temperature from {LIMITS[0]:g} to {LIMITS[1]:g} fits: the probabilities tell nothing of the labels"
        )
    return float(np.exp(optimum.x))


def apply_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities ``[N, classes]`` from logits divided by the temperature: above 1 less sure, below 1 surer."""
    return softmax(logits.astype(np.float64) / temperature, axis=1)


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Logits whose softmax the probabilities are; those that have vanished count as the smallest 32-bit number."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny, dtype=np.float64))
