"""Options that are not taken: each is answered by one line that says why, and what to do instead."""

import argparse

from util.training.older import NO_USE

_TORCHRUN = "leave it out; for several GPUs start the script by torchrun --nproc_per_node N, which sets it"
_IDLE = "it did nothing in the released scripts; leave it out"
RETIRED = {
    **dict.fromkeys(("--registers", "--map_uniform", "--visible_end"), NO_USE),
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
