"""What surrounds a training step: optimisation, the epoch, the log, checkpoints, stopping and going on."""
