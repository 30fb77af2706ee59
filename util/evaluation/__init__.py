"""What comes after prediction: metrics, intervals, calibration and cut-offs from labels and probabilities, and pictures."""
