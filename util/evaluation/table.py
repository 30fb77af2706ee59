"""Metrics and their intervals as lines for a reader."""

from util.evaluation.intervals import Interval

HEADLINES = {
    "top1": "top-1",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "macro_auc": "macro AUC",
    "average_precision": "average precision",
    "quadratic_kappa": "quadratic kappa",
}
OF_EACH_CLASS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "positive_predictive_value": "pos. pred. value",
    "negative_predictive_value": "neg. pred. value",
    "auc": "AUC",
}
PERCENT = {*OF_EACH_CLASS, "top1", "balanced_accuracy"} - {"auc"}


def metrics_table(metrics: dict, intervals: dict) -> str:
    """The headlines, one a line, then the classes, each with its 95 % intervals; "-" for what is not defined.

    Args:
        metrics: of :func:`util.evaluation.metrics.classification_metrics`.
        intervals: of :func:`util.evaluation.intervals.intervals`.
    """
    patients = metrics.get("patients")
    of, over = (f" of {patients} patients", " over patients") if patients else ("", "")
    lines = [f"{metrics['images']} images{of}; in brackets 95 % intervals{over}"]
    lines += [
        f"{title:<20}{with_interval(metrics[name], intervals.get(name), name in PERCENT)}"
        for name, title in HEADLINES.items()
        if name in metrics
    ]
    if metrics["absent"]:
        lines.append(f"no image of {', '.join(metrics['absent'])}: left out of the averages")
    lines.append(f"{'class':<20}{'images':>7}" + "".join(f"  {title:<24}" for title in OF_EACH_CLASS.values()).rstrip())
    for name, row in metrics["per_class"].items():
        limits = intervals["per_class"][name]
        cells = (f"  {with_interval(row[metric], limits[metric], metric in PERCENT):<24}" for metric in OF_EACH_CLASS)
        lines.append(f"{name:<20}{row['images']:>7}" + "".join(cells).rstrip())
    return "\n".join(lines)


def with_interval(value: float | None, interval: Interval, percent: bool) -> str:
    """``91.20 % (89.10 to 93.00)``, or ``0.9120 (0.8910 to 0.9300)``."""
    if value is None:
        return "-"
    scale, digits, unit = (100, 2, " %") if percent else (1, 4, "")
    text = f"{scale * value:.{digits}f}{unit}"
    if interval is None:
        return text
    low, high = interval
    return f"{text} ({scale * low:.{digits}f} to {scale * high:.{digits}f})"
