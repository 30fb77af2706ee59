"""The optimiser, and learning rates beside the cosine of ``util.training.optimisation``: ``at(epoch)`` gives the rate."""

from bisect import bisect_right
from dataclasses import dataclass
from math import floor

import torch
from torch import nn

from util.training.optimisation import Schedule


@dataclass(frozen=True)
class EveryEpoch:
    """A cosine that changes the rate between epochs only, as ``torch.optim.lr_scheduler.CosineAnnealingLR`` stepped once an
    epoch does; a warm-up before it still changes with every step."""

    cosine: Schedule

    def at(self, epoch: float) -> float:
        warmup = self.cosine.warmup_epochs
        return self.cosine.at(epoch if epoch < warmup else max(floor(epoch), warmup))


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

    nbytes = 0  # in a checkpoint, as good as none

    def __init__(self, optimizer: torch.optim.Optimizer, factor: float, patience: int, min_lr: float):
        self._lr = optimizer.param_groups[0]["lr"]
        self._rule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=patience, min_lr=min_lr)

    def at(self, epoch: float) -> float:
        return self._rule.optimizer.param_groups[0]["lr"]

    def observe(self, loss: float) -> None:
        self._rule.step(loss)

    def state_dict(self) -> dict:
        """What a checkpoint keeps of it, under ``plateau``."""
        state = self._rule.state_dict()
        return {"plateau": {name: state[name] for name in ("best", "num_bad_epochs", "last_epoch")}}

    def load_state_dict(self, content: dict) -> None:
        """Take from a checkpoint what :meth:`state_dict` put there; a run under another schedule left nothing.

        The rate goes on as it was lowered, unless that run began with another ``lr`` or followed another schedule.
        """
        self._rule.load_state_dict({**self._rule.state_dict(), **(content.get("plateau") or {})})
        if not content.get("plateau") or content.get("args", {}).get("lr", self._lr) != self._lr:
            for group in self._rule.optimizer.param_groups:
                group["lr"] = self._lr


def make_optimizer(
    model: nn.Module, kind: str, lr: float, weight_decay: float, *, momentum: float, nesterov: bool
) -> torch.optim.Optimizer:
    """PyTorch's optimiser of a name, over all parameters alike; ``momentum`` and ``nesterov`` are of SGD."""
    sgd = {"momentum": momentum, "nesterov": nesterov} if kind == "SGD" else {}
    kinds = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD}
    optimizer = kinds[kind](model.parameters(), lr=lr, weight_decay=weight_decay, **sgd)
    optimizer.param_groups[0]["lr_scale"] = 1.0
    return optimizer


def make_schedule(
    optimizer: torch.optim.Optimizer,
    kind: str,
    *,
    lr: float,
    min_lr: float,
    epochs: int,
    warmup_epochs: float,
    step: str,
    factor: float,
    patience: int,
    milestones: tuple[int, ...],
    gamma: float,
) -> Schedule | EveryEpoch | MultiStep | Plateau:
    """The schedule that ``--scheduler`` names; ``step`` is how often the cosine changes the rate, "epoch" or "iteration"."""
    if kind == "cosine":
        cosine = Schedule(lr, epochs, warmup_epochs, min_lr)
        return EveryEpoch(cosine) if step == "epoch" else cosine
    if kind == "plateau":
        return Plateau(optimizer, factor, patience, min_lr)
    return MultiStep(lr, milestones, gamma) if kind == "multistep" else MultiStep(lr)
