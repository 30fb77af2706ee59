"""The command-line parser, and the kinds of values that options have."""

import argparse
import math
from collections.abc import Mapping
from functools import partial

from util.system.text import one_line


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to each help text unless there is none to state, and what the tuned protocol says otherwise."""

    def __init__(self, *args, tuned: Mapping[str, object] | None = None, **named):
        super().__init__(*args, **named)
        self._tuned = tuned or {}

    def _get_help_string(self, action):
        tuned = self._tuned.get(action.dest)
        if tuned not in (None, action.default) and "tuned" not in action.help:
            return f"{action.help} (default: {in_words(action.default)}; tuned: {in_words(tuned)})"
        has_none = action.default is None or action.default is False or action.default == argparse.SUPPRESS
        return action.help if has_none or "(default" in action.help else super()._get_help_string(action)


TITLES = {  # of the groups, in the order of need
    "paper": "the paper's command lines",
    "running": "running",
    "optimisation": "optimisation",
    "masking": "masking (SAM: METHOD.md)",
    "model": "model",
    "augmentation": "augmentation",
    "data": "data",
    "evaluation": "evaluation",
}


class PlainParser(argparse.ArgumentParser):
    """Reports a wrong option as one line, without the usage before it."""

    def error(self, message: str):
        self.exit(2, f"error: {one_line(message)} (--help lists the options)\n")


class Parser(PlainParser):
    """Options in the groups of :data:`TITLES`.

    Args:
        description: of the script.
        tuned: what its options say under the tuned protocol, for ``--help``.
    """

    def __init__(self, description: str, tuned: Mapping[str, object] | None = None):
        formatter = partial(HelpFormatter, tuned=tuned)
        super().__init__(description=description, formatter_class=formatter, allow_abbrev=False, usage="%(prog)s [options]")
        self.groups = {name: self.add_argument_group(title) for name, title in TITLES.items()}


def number(kind: type, low: float | None = None, high: float | None = None, open_ends: str = ""):
    """An argparse type: a finite number of ``kind`` from ``low`` to ``high``; ``open_ends`` names the ends left out."""

    def convert(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not {'a whole' if kind is int else 'a'} number") from None
        below = low is not None and (value < low or (value == low and "low" in open_ends))
        above = high is not None and (value > high or (value == high and "high" in open_ends))
        if below or above or (kind is float and not math.isfinite(value)):
            opening = "(" if low is None or "low" in open_ends else "["
            closing = ")" if high is None or "high" in open_ends else "]"
            start, end = ("-inf" if low is None else f"{low:.10g}"), ("inf" if high is None else f"{high:.10g}")
            raise argparse.ArgumentTypeError(f"{text[:40]} is outside {opening}{start}, {end}{closing}")
        return value

    return convert


def in_words(value) -> str:
    """An option's value for a reader: several words for a list, "on" or "off" for a flag, "none" where there is no value."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return " ".join(map(in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


MASK_RATIO, THROW_RATIO = 0.45, 0.3  # the paper's
COUNT = number(int, 1)
NOT_NEGATIVE = number(float, 0)
RATIO = number(float, 0, 1, open_ends="high")
SHARE = number(float, 0, 1)
SEED = number(int, 0, 2**32 - 1)  # as NumPy and scikit-learn take it


def path(text: str) -> str:
    """An argparse type: a path. An empty one, as an unset variable of a shell gives it, is an error and not "none"."""
    if not text.strip():
        raise argparse.ArgumentTypeError("its path is empty: give one, or leave the option out")
    return text
