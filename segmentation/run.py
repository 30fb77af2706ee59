"""A run of segmentation: a schedule with a memory is all that it has beyond any run."""

from pathlib import Path

from segmentation.schedules import Plateau
from util.run import Run


class SegmentationRun(Run):
    """A run whose checkpoints hold what the plateau schedule has seen."""

    def state(self) -> dict:
        schedule = self.stepper.schedule
        return {"plateau": schedule.state_dict() if isinstance(schedule, Plateau) else None}

    def restore_state(self, content: dict) -> None:
        if isinstance(self.stepper.schedule, Plateau) and content["plateau"]:
            self.stepper.schedule.load_state_dict(content["plateau"])


def default_folder(dataset: str, name: str) -> Path:
    """Where a run's files lie without ``--output_dir``."""
    return Path("output_dir") / f"{dataset}-{name}"
