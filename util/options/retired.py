"""Options that are not taken: each is answered by one line that says why, and what to do instead."""

import argparse
from pathlib import Path

from util.system.errors import InputError

LAST_COMMIT = "c10a737"  # the last one with the ideas that measurements showed to be of no use (docs/trials.md)

_NO_USE = f"it did not help and was removed (docs/trials.md); commit {LAST_COMMIT} is the last one that has it"
_TORCHRUN = "leave it out; for several GPUs start the script by torchrun --nproc_per_node N, which sets it"
_IDLE = "it did nothing in the released scripts; leave it out"
RETIRED = {
    **dict.fromkeys(("--registers", "--map_uniform", "--visible_end"), _NO_USE),
    **dict.fromkeys(("--world_size", "--dist_url", "--local_rank", "--local-rank", "--dist_on_itp"), _TORCHRUN),
    "--dist_eval": "leave it out; under torchrun all processes share an evaluation",
    "--resplit": f"{_IDLE} (python -m util.split makes splits)",
    "--input_channels": "images are read as RGB, greyscale included; leave it out",
    "--cfg": f"{_IDLE}; options are given on the command line",
    "--batch_size_up": "maps are made in batches of --batch_size; leave it out",
}


class Retired(argparse.Action):
    """Ends the script with the option's line in :data:`RETIRED`."""

    def __init__(self, option_strings: list[str], dest: str):
        super().__init__(option_strings, dest, nargs="*", default=argparse.SUPPRESS, help=argparse.SUPPRESS)

    def __call__(self, parser, namespace, values, option_string=None):
        parser.error(f"{option_string}: {RETIRED[option_string]}")


def add_retired_options(parser: argparse.ArgumentParser) -> None:
    """Let a parser answer the options of :data:`RETIRED`, unless it has an option of that name."""
    for name in RETIRED:
        if name not in parser._option_string_actions:
            parser.add_argument(name, action=Retired)


def by_todays_names(options: dict) -> dict:
    """The options of an older checkpoint, by the names that they have today."""
    renamed = {"look_every": "preview_every"}
    renewed = {renamed.get(name, name): value for name, value in options.items()}
    if renewed.get("protocol") == "measured":
        renewed["protocol"] = "tuned"
    if isinstance(renewed.get("save_every"), list):
        epochs, steps = renewed["save_every"]
        renewed["save_every"] = f"{steps}steps" if steps else f"{epochs}"
    return renewed


def refuse_retired(options: dict, path: Path) -> None:
    """Raise :class:`InputError` where a run to go on with was made with what is not there any more."""
    idle = {"registers": (0, None), "map_uniform": (0.0,), "visible_end": ("low",)}
    for name, values in idle.items():
        if options.get(name, values[0]) not in values:
            raise InputError(f"{path} was made with --{name} {options[name]}: {_NO_USE}")
