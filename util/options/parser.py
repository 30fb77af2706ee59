"""The command-line parser, and the kinds of values that options have."""

import argparse
import re
from typing import NamedTuple


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to each help text, except where there is none to state."""

    def _get_help_string(self, action):
        stated = "(default" in action.help or action.default in (None, False, argparse.SUPPRESS)
        return action.help if stated else super()._get_help_string(action)


TITLES = {  # of the groups, in the order of need
    "paper": "the paper's command lines",
    "running": "running",
    "optimisation": "optimisation",
    "masking": "masking (SAM: METHOD.md)",
    "model": "model",
    "augmentation": "augmentation (the paper has crop and flip only)",
    "data": "data",
    "evaluation": "evaluation",
}


class Parser(argparse.ArgumentParser):
    """Options in the groups of :data:`TITLES`; a wrong one is reported as one line, without the usage before it."""

    def __init__(self, description: str):
        super().__init__(
            description=description, formatter_class=HelpFormatter, allow_abbrev=False, usage="%(prog)s [options]"
        )
        self.groups = {name: self.add_argument_group(title) for name, title in TITLES.items()}

    def error(self, message: str):
        self.exit(2, f"error: {message} (--help lists the options)\n")


def number(kind: type, low: float | None = None, high: float | None = None, open_ends: str = ""):
    """An argparse type: a number of ``kind`` from ``low`` to ``high``; ``open_ends`` names the ends left out."""

    def convert(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {'a whole' if kind is int else 'a'} number") from None
        below = low is not None and (value < low or (value == low and "low" in open_ends))
        above = high is not None and (value > high or (value == high and "high" in open_ends))
        if below or above or value != value:
            opening = "(" if low is None or "low" in open_ends else "["
            closing = ")" if high is None or "high" in open_ends else "]"
            start, end = ("-inf" if low is None else f"{low:g}"), ("inf" if high is None else f"{high:g}")
            raise argparse.ArgumentTypeError(f"{text} is outside {opening}{start}, {end}{closing}")
        return value

    return convert


MASK_RATIO, THROW_RATIO = 0.45, 0.3  # the paper's
COUNT = number(int, 1)
NOT_NEGATIVE = number(float, 0)
RATIO = number(float, 0, 1, open_ends="high")
SHARE = number(float, 0, 1)


class SaveEvery(NamedTuple):
    """When to save beyond ``checkpoint-last.pth`` after each epoch: every so many epochs, or also every so many steps."""

    epochs: int
    steps: int

    def __str__(self) -> str:
        return f"{self.steps}steps" if self.steps else f"{self.epochs}"

    @classmethod
    def parse(cls, text: str) -> "SaveEvery":
        match = re.fullmatch(r"([1-9]\d*)(steps?)?", text)
        if not match:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a number of epochs, as 20, nor of steps, as 500steps")
        return cls(0, int(match[1])) if match[2] else cls(int(match[1]), 0)

    def due(self, epoch: int) -> bool:
        """Whether the checkpoint of an epoch is to be kept."""
        return self.epochs > 0 and epoch % self.epochs == 0
