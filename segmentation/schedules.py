"""Learning rates beside the cosine of ``util.optimisation``: ``at(epoch)`` gives the rate, as everywhere here."""

from bisect import bisect_right
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class MultiStep:
    """``lr``, multiplied by ``gamma`` at each milestone (an epoch); no milestones: constant."""

    lr: float
    milestones: tuple[int, ...] = ()
    gamma: float = 1.0

    def at(self, epoch: float) -> float:
        return self.lr * self.gamma ** bisect_right(sorted(self.milestones), epoch)


class Plateau:
    """``lr``, times ``factor`` whenever the validation loss has not fallen for more than ``patience`` epochs (PyTorch's)."""

    def __init__(self, optimizer: torch.optim.Optimizer, factor: float, patience: int, min_lr: float):
        self._rule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=patience, min_lr=min_lr)

    def at(self, epoch: float) -> float:
        return self._rule.optimizer.param_groups[0]["lr"]

    def observe(self, loss: float) -> None:
        self._rule.step(loss)

    def state_dict(self) -> dict:
        state = self._rule.state_dict()
        return {name: state[name] for name in ("best", "num_bad_epochs", "last_epoch")}

    def load_state_dict(self, state: dict) -> None:
        self._rule.load_state_dict({**self._rule.state_dict(), **state})
