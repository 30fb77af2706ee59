"""The reliability diagram."""

from matplotlib.figure import Figure

BLUE = "#0072B2"


def reliability_figure(calibration: dict, title: str) -> Figure:
    """Share of right predictions against confidence, with exact 95 % intervals, and below it the images of each bin.

    Args:
        calibration: of :func:`util.evaluation.calibration.calibration_metrics`.
        title: of the picture.
    """
    rows, bins = calibration["reliability"], calibration["bins"]
    confidence = [row["confidence"] for row in rows]
    accuracy = [row["accuracy"] for row in rows]
    reach = [[row["accuracy"] - row["interval"][0] for row in rows], [row["interval"][1] - row["accuracy"] for row in rows]]
    figure = Figure(figsize=(5.0, 5.6), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", label="calibrated")
    upper.errorbar(confidence, accuracy, yerr=reach, fmt="o-", color=BLUE, markersize=4, linewidth=1.4, elinewidth=0.8)
    error, brier = calibration["expected_calibration_error"], calibration["brier_score"]
    upper.text(0.03, 0.97, f"expected calibration error {100 * error:.2f} %\nBrier score {brier:.4f}", va="top", fontsize=8)
    upper.set(ylabel="share of right predictions", xlim=(0, 1), ylim=(0, 1))
    upper.legend(loc="lower right", fontsize=8, frameon=False)
    upper.set_title(title, fontsize=8)
    lower.bar(confidence, [row["images"] for row in rows], width=0.8 / bins, color=BLUE)
    lower.set(xlabel=f"confidence: probability of the predicted class ({bins} bins)", ylabel="images")
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
    return figure
