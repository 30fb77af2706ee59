"""Checkpoints of earlier versions: options that have other names today, and what is not there any more."""

from pathlib import Path

from util.system.errors import InputError

LAST_COMMIT = "c10a737"  # the last one with the ideas that measurements showed to be of no use (docs/trials.md)
NO_USE = f"it did not help and was removed (docs/trials.md); commit {LAST_COMMIT} is the last one that has it"


def by_todays_names(options: dict) -> dict:
    """The options of an older checkpoint, by the names that they have today."""
    renamed = {"look_every": "preview_every"}
    renewed = {renamed.get(name, name): value for name, value in options.items()}
    if renewed.get("protocol") == "measured":
        renewed["protocol"] = "tuned"
    if isinstance(renewed.get("save_every"), list) and len(renewed["save_every"]) == 2:
        epochs, steps = renewed["save_every"]
        renewed["save_every"] = f"{steps}steps" if steps else f"{epochs}"
    return renewed


def refuse_removed(options: dict, path: Path) -> None:
    """Raise :class:`InputError` where a run to go on with was made with what is not there any more."""
    idle = {"registers": (0, None), "map_uniform": (0.0,), "visible_end": ("low",)}
    for name, values in idle.items():
        if options.get(name, values[0]) not in values:
            raise InputError(f"{path} was made with --{name} {options[name]}: {NO_USE}")
