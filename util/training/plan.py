"""How long a training goes, where it begins and what it keeps."""

from dataclasses import dataclass
from pathlib import Path

from util.training.save_every import SaveEvery


@dataclass(frozen=True)
class Plan:
    """The options of a training that are not its method's.

    Args:
        epochs: number of epochs in all.
        seed: of the run.
        save_every, keep: which checkpoints stay (:class:`util.training.saver.Saver`).
        print_freq: batches between checks of the loss.
        start_epoch: first epoch; None: the one after the checkpoint's, or 0.
        early_stopping: the epoch after which so many epochs have passed without a better score is the last; None: never.
        overwrite: clear the folder of another run's files first.
        log_dir: of TensorBoard's events; None: the run's folder.
    """

    epochs: int
    seed: int
    save_every: SaveEvery
    keep: int | None
    print_freq: int
    start_epoch: int | None = None
    early_stopping: int | None = None
    overwrite: bool = False
    log_dir: Path | None = None
