"""The options that a checkpoint holds: checked like typed ones before they become defaults."""

import argparse

from util.system.errors import InputError
from util.system.text import one_line


def check_recorded(parser: argparse.ArgumentParser, recorded: dict) -> None:
    """Raise :class:`InputError` naming the first option of a checkpoint that no command line could have given.

    Args:
        parser: of the script.
        recorded: values by the options' names; names that the parser does not know are left aside.
    """
    actions: dict[str, list[argparse.Action]] = {}
    for action in parser._actions:
        actions.setdefault(action.dest, []).append(action)
    for name, value in recorded.items():
        known = actions.get(name, [])
        if known and not any(fits(action, value) for action in known):
            raise InputError(f"the checkpoint was made with --{one_line(name)} {one_line(repr(value))[:60]}: no such value")


def fits(action: argparse.Action, value) -> bool:
    """Whether an option could have been given so that it has this value."""
    if value is None:
        return action.default is None
    if isinstance(value, bool):
        return isinstance(action.const, bool) or (action.nargs == 0 and action.const is None)
    if action.nargs == 0:
        return value == action.const
    several = isinstance(value, list | tuple)
    if several != (action.nargs == "+" or isinstance(action.nargs, int)):
        return False
    if not several:
        return takes(action, value, as_text=isinstance(value, str))
    return action.nargs in ("+", len(value)) and all(takes(action, each) for each in value)


def takes(action: argparse.Action, word, as_text: bool = False) -> bool:
    """Whether an option takes a word; ``as_text``: argparse will read it."""
    try:
        read = action.type(word if as_text else str(word)) if callable(action.type) else word
    except (argparse.ArgumentTypeError, TypeError, ValueError):
        return False
    same = as_text or (type(word) in (int, float, str) and read in (word, (word,)))
    return same and isinstance(word, str | int | float) and (action.choices is None or read in action.choices)
