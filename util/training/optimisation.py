"""One optimiser step: parameter groups, learning-rate schedule, precision, accumulation and clipping (METHOD.md)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from util.system.device import Precision


def layer_index(name: str, depth: int) -> int:
    """MAE's numbering of a parameter's layer: 0 for the embeddings, 1 to ``depth`` for blocks, ``depth + 1`` after them."""
    if name in ("cls_token", "pos_embed") or name.startswith(("patch_embed.", "norm_pre.")):
        return 0
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return depth + 1


def parameter_groups(
    model: nn.Module, weight_decay: float, layer_decay: float = 1.0, never_decay: Iterable[str] = ()
) -> list[dict]:
    """Group parameters by weight decay and learning-rate scale.

    Args:
        model: its ``blocks`` give the depth.
        weight_decay: for all but biases, other 1-D parameters and those named in ``never_decay``.
        layer_decay: the learning rate of a layer is scaled by ``layer_decay ** (depth + 1 - layer)``.

    Returns:
        Groups for an optimiser, each with ``lr_scale`` for the schedule.
    """
    depth = len(model.blocks)
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decayed = parameter.ndim > 1 and name not in never_decay
        layer = layer_index(name, depth) if layer_decay != 1.0 else depth + 1
        scale = layer_decay ** (depth + 1 - layer)
        fresh = {"params": [], "weight_decay": weight_decay if decayed else 0.0, "lr_scale": scale}
        groups.setdefault((layer, decayed), fresh)["params"].append(parameter)
    return list(groups.values())


class LearningRate(Protocol):
    """A learning rate over time, counted in epochs: :class:`Schedule` and segmentation's others."""

    def at(self, epoch: float) -> float: ...


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from zero, then half a cosine down to ``min_lr``; all lengths in epochs."""

    lr: float
    epochs: int
    warmup_epochs: float
    min_lr: float = 0.0

    def at(self, epoch: float) -> float:
        """Learning rate at a time counted in epochs, such as 2.5 in the middle of the third."""
        if epoch < self.warmup_epochs:
            return self.lr * epoch / self.warmup_epochs
        done = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def compile_model(model: nn.Module) -> None:
    """Compile a model's forward pass with torch.compile; what cannot be compiled runs as it is."""
    torch._dynamo.config.suppress_errors = True
    model.compile()


class Stepper:
    """Turns losses into optimiser steps.

    Args:
        model: what is trained (for clipping); its ``variant`` says how pixels are normalised.
        optimizer: its groups carry ``lr_scale``.
        schedule: gives the learning rate before every step.
        precision: of the forward pass; fp16 gets a gradient scaler.
        accum_iter: number of batches whose gradients make one step.
        clip_grad: largest gradient norm, or None.
        average: of the model's weights over the steps, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: LearningRate,
        precision: Precision,
        accum_iter: int = 1,
        clip_grad: float | None = None,
        average: ModelEmaV3 | None = None,
    ):
        self.model, self.optimizer, self.schedule, self.average = model, optimizer, schedule, average
        self.precision = precision
        self.scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.dtype == torch.float16)
        self.accum_iter, self.clip_grad = accum_iter, clip_grad
        self.overflows, self.last_scale = 0, self.scaler.get_scale()

    def steps_per_epoch(self, batches: int) -> int:
        """Batches used of an epoch's ``batches``: whole accumulation windows only."""
        return batches // self.accum_iter * self.accum_iter

    def set_learning_rate(self, epoch: float) -> float:
        lr = self.schedule.at(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        return lr

    def state_dict(self) -> dict:
        """What a checkpoint keeps of the weights and of the optimiser.

        ``model`` is what is evaluated. With an average it is that, and ``trained_model`` what training goes on with.
        """
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        if self.average:
            content |= {"model": self.average.module.state_dict(), "trained_model": self.model.state_dict()}
        return content

    def load_state_dict(self, content: dict) -> None:
        """Take from a checkpoint what :meth:`state_dict` put there; options given now, such as weight decay, stay.

        An average that the checkpoint does not have begins with the weights as they are.
        """
        self.model.load_state_dict(content.get("trained_model", content["model"]))
        if self.average:
            self.average.module.load_state_dict(content["model"])
        settings = [
            {name: value for name, value in group.items() if name not in ("params", "lr")}
            for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(content["optimizer"])
        self._check_state()
        for group, given in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(given)
        self.scaler.load_state_dict(content["scaler"])
        self.last_scale = self.scaler.get_scale()

    def _check_state(self) -> None:
        """Raise ValueError unless what the optimiser remembers belongs to its parameters."""
        adam = "betas" in self.optimizer.defaults
        for parameter, state in self.optimizer.state.items():
            if adam and not {"step", "exp_avg", "exp_avg_sq"} <= state.keys():
                raise ValueError("the optimiser lacks a moment")
            for name, value in state.items():
                right = isinstance(value, torch.Tensor) and value.dtype == torch.float32 and value.layout == torch.strided
                if not right or value.shape != (() if name == "step" else parameter.shape) or not value.isfinite().all():
                    raise ValueError(f"{name} of the optimiser is damaged")

    def scaling(self) -> dict[str, float]:
        """For the log, under fp16: the loss scale, and how often it was halved in all because a gradient overflowed.

        Such steps are left out by the scaler. Waits for the device.
        """
        if not self.scaler.is_enabled():
            return {}
        scale = self.scaler.get_scale()
        self.overflows += max(0, round(math.log2(self.last_scale / scale)))
        self.last_scale = scale
        return {"loss_scale": scale, "overflows": self.overflows}

    def backward(self, loss: Tensor, last_of_window: bool) -> None:
        """Add a loss's gradient; at the end of an accumulation window, update the model."""
        self.scaler.scale(loss / self.accum_iter).backward()
        if not last_of_window:
            return
        if self.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.model)


def averaging_note(decay: float, steps: int) -> str:
    """A line on ``--ema``: what the averaged weights are for, and how far ``steps`` of training take them from the start."""
    line = (
        f"note: --ema {decay:g}: what is evaluated and saved as the model is the average of the weights, over about "
        f"{1 / (1 - decay):.0f} steps; maps are made by the trained weights themselves"
    )
    left = decay**steps
    return (
        f"{line}. After {steps} steps the start still makes {100 * left:.0f} % of it: lower --ema" if left > 0.01 else line
    )
