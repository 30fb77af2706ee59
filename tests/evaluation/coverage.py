"""How often 95 % intervals hold the truth, by simulation. The long form, some minutes on one core:

    PYTHONPATH=.:tests python -m evaluation.coverage

Two classifiers of three classes are made up (``made_up.classifier``), so that their true metrics are known from millions of
images: a middling one on classes of one size, and one that is nearly perfect where a tenth of the images is of the rarest
class, which is hard for intervals. Sets of images are drawn, and intervals computed from each as from a test set.
"""

import argparse
from functools import cache

import numpy as np
from scipy.special import softmax
from scipy.stats import binom

from evaluation.made_up import classifier, two_models
from util.evaluation.comparison import compare
from util.evaluation.intervals import clopper_pearson, intervals, percentile_interval
from util.evaluation.metrics import classification_metrics
from util.evaluation.resampling import metrics_of_resamples, resample_counts

NAMES = ["a", "b", "c"]
HEADLINES = ("top1", "balanced_accuracy", "macro_f1", "macro_auc", "average_precision", "quadratic_kappa")
SHARES = ("sensitivity", "specificity", "positive_predictive_value", "negative_predictive_value")
PATIENTS_COVERED = {"top1", "macro_auc"}


KINDS = {"even": {"skill": 1.5}, "rare": {"skill": 3.0, "shares": (0.55, 0.35, 0.1)}}


@cache
def truth(kind: str, population: int = 3_000_000) -> dict:
    labels, probabilities = classifier(population, seed=10**6, **KINDS[kind])
    return classification_metrics(labels, probabilities, NAMES, ordered=True)


def coverage(
    images: int, sets: int, resamples: int = 1000, kind: str = "even", population: int = 3_000_000
) -> dict[str, float]:
    """The share of sets whose intervals hold the truth, by metric; shares of a class are those of the first."""
    true = truth(kind, population)
    held: dict[str, list[bool]] = {name: [] for name in HEADLINES + SHARES}
    for seed in range(sets):
        labels, probabilities = classifier(images, seed=seed, **KINDS[kind])
        found = intervals(labels, probabilities, NAMES, ordered=True, resamples=resamples, seed=seed)
        for name in HEADLINES:
            held[name].append(found[name][0] <= true[name] <= found[name][1])
        for name in SHARES:
            low, high = found["per_class"]["a"][name]
            held[name].append(low <= true["per_class"]["a"][name] <= high)
    return {name: float(np.mean(values)) for name, values in held.items()}


def coverage_of_shares(total: int) -> np.ndarray:
    """How likely the exact interval of a share of ``total`` images holds each true share from 0.1 % to 99.9 %, ``[999]``.

    Nothing is drawn: it is the probability of all numbers of hits whose interval holds the true share.
    """
    hits, true = np.arange(total + 1)[:, None], np.linspace(0.001, 0.999, 999)
    edges = np.array([clopper_pearson(number, total) for number in range(total + 1)])
    return (binom.pmf(hits, total, true) * ((edges[:, :1] <= true) & (true <= edges[:, 1:]))).sum(0)


def coverage_of_percentiles(images: int, sets: int, resamples: int = 1000, kind: str = "rare") -> float:
    """The share of sets in which plain percentiles of the macro AUC would hold the truth."""
    true, held = truth(kind)["macro_auc"], []
    for seed in range(sets):
        labels, probabilities = classifier(images, seed=seed, **KINDS[kind])
        parts = resample_counts(images, resamples=resamples, seed=seed)
        values = [metrics_of_resamples(counts, labels, probabilities)["macro_auc"] for counts in parts]
        low, high = percentile_interval(np.concatenate(values))
        held.append(low <= true <= high)
    return float(np.mean(held))


def patients_images(patients: int, images_each: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels and probabilities of images that are easy or hard by the patient, and their patients."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=patients).repeat(images_each)
    noise = rng.normal(size=(patients, 3)).repeat(images_each, axis=0) + 0.3 * rng.normal(size=(len(labels), 3))
    return (
        labels,
        softmax(noise + 1.5 * np.eye(3)[labels], axis=1),
        [str(index // images_each) for index in range(len(labels))],
    )


def coverage_of_patients(
    patients: int, images_each: int, sets: int, resamples: int = 1000, population: int = 500_000
) -> tuple[dict[str, float], dict[str, float]]:
    """The share of sets whose intervals hold the truth, with patients resampled and with images resampled."""
    labels, probabilities, _ = patients_images(population, images_each, seed=10**6)
    true = classification_metrics(labels, probabilities, NAMES)
    held: list[dict[str, list[bool]]] = [{name: [] for name in PATIENTS_COVERED} for _ in range(2)]
    for seed in range(sets):
        labels, probabilities, owners = patients_images(patients, images_each, seed)
        for kind, known in zip(held, (owners, None), strict=True):
            found = intervals(labels, probabilities, NAMES, known, resamples=resamples, seed=seed)
            for name in PATIENTS_COVERED:
                kind[name].append(found[name][0] <= true[name] <= found[name][1])
    by_patient, by_image = ({name: float(np.mean(values)) for name, values in kind.items()} for kind in held)
    return by_patient, by_image


def told_apart(images: int, sets: int, resamples: int = 1000) -> tuple[float, float]:
    """The share of pairs of equally good models that are told apart: by McNemar's test, by the interval of macro AUC."""
    pairs = [compare(*two_models(images, better=0, seed=seed), resamples=resamples, seed=seed) for seed in range(sets)]
    edges = [pair["metrics"]["macro_auc"]["interval"] for pair in pairs]
    return float(np.mean([pair["p"] < 0.05 for pair in pairs])), float(np.mean([not a <= 0 <= b for a, b in edges]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    print(
        f"share of {options.sets} simulated sets whose 95 % intervals ({options.resamples} resamples) hold the truth",
        flush=True,
    )
    found = {}
    for kind in KINDS:
        found[kind] = large, small = [coverage(images, options.sets, options.resamples, kind) for images in (1000, 100)]
        print(f"{kind + ' classes':<28}{'truth':>8}{'1000 images':>14}{'100 images':>14}")
        for name in large:
            value = truth(kind)[name] if name in HEADLINES else truth(kind)["per_class"]["a"][name]
            print(f"{name:<28}{value:>8.4f}{100 * large[name]:>12.1f} %{100 * small[name]:>12.1f} %", flush=True)
    plain = [100 * coverage_of_percentiles(images, options.sets, options.resamples) for images in (1000, 100)]
    print(f"{'macro AUC by percentiles':<28}{'':>8}{plain[0]:>12.1f} %{plain[1]:>12.1f} %", flush=True)
    by_patient, by_image = coverage_of_patients(200, 5, options.sets, options.resamples)
    for name in sorted(PATIENTS_COVERED):
        print(
            f"{name}, 5 images of each of 200 patients: {100 * by_patient[name]:.1f} % by patient, "
            f"{100 * by_image[name]:.1f} % by image"
        )
    by_test, by_interval = told_apart(200, options.sets, options.resamples)
    print(
        f"two equally good models, 200 images, told apart: {100 * by_test:.1f} % by McNemar's test, "
        f"{100 * by_interval:.1f} % by the interval of the difference in macro AUC"
    )
    slack = max(0.02, 3 * (0.95 * 0.05 / options.sets) ** 0.5)  # three standard deviations of what is counted here
    large = found["even"][0]
    missed = [f"{name} {100 * large[name]:.1f} %" for name in ("top1", "macro_auc") if abs(large[name] - 0.95) > slack]
    missed += [
        f"{name} {100 * share:.1f} %"
        for each in (*found["even"], *found["rare"])
        for name, share in each.items()
        if name in SHARES and share < 0.95 - slack
    ]
    if missed:
        raise SystemExit(f"not as promised: {', '.join(missed)}")


if __name__ == "__main__":
    main()
