"""Options of the released scripts that are gone: each ends the run with one line that says what to type instead."""

import argparse

# Options that changed nothing in the released scripts, or that torchrun replaces; for scripts of both kinds.
RELEASED = {
    "--resplit": "this option did nothing in the released scripts; leave it out",
    "--input_channels": "this option did nothing in the released scripts (images are read as RGB); leave it out",
    "--cfg": "this option did nothing in the released scripts; leave it out",
    "--batch_size_up": "maps are computed in batches of --batch_size; leave it out",
    "--world_size": "to use several GPUs, leave it out and start the script with torchrun --nproc_per_node N",
    "--dist_url": "leave it out and start the script with torchrun, which connects the processes",
    "--local_rank": "leave it out and start the script with torchrun, which numbers the processes",
    "--local-rank": "start the script with torchrun, not with torch.distributed.launch",
    "--dist_on_itp": "leave it out and start the script with torchrun",
    "--dist_eval": "leave it out: with torchrun, evaluation is always shared among the processes",
}


def refuse_removed(parser: argparse.ArgumentParser, removed: dict[str, str] = RELEASED) -> None:
    """Make a parser answer options that are gone, with a value or without, with one line and exit status 2.

    Args:
        parser: of a script; its help does not show these options.
        removed: what to do instead, by the option as it is typed, such as ``--cfg``.
    """

    class Refuse(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None):
            parser.exit(2, f"error: {option_string}: {removed[option_string]}\n")

    for option in removed:
        parser.add_argument(option, action=Refuse, nargs="?", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
