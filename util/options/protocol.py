"""Protocols: what the options say that nobody typed. The paper's is the default; "tuned" is what our measurements favour."""

import argparse

from util.data.reading import Reading
from util.options.parsed import plain
from util.options.parser import MASK_RATIO, THROW_RATIO, Parser, in_words
from util.options.recorded import check_recorded
from util.options.retired import add_retired_options

NOT_OF_THE_METHOD = (  # options of data, places and machine, which no protocol speaks of
    *("protocol", "data_path", "num_classes", "num_workers", "cache", "on_bad_image", "pin_mem", "lesion_masks"),
    *Reading.__dataclass_fields__,
    *("patients", "on_patient_leak", "on_leak", "split", "ordered", "predict", "overlays", "features"),
    *("calibrate", "sensitivity", "specificity", "youden", "positive", "prevalence"),
    *("output_dir", "log_dir", "overwrite", "resume", "start_epoch", "save_every", "keep", "finetune", "eval"),
    *("device", "amp", "compile", "seed", "print_freq", "preview_every"),
    *("figure_format", "figure_width"),
)
PLACES = ("init", "checkpoint", "root", "name", "dataset")  # more options that hold a path or name one


def parse(
    parser: Parser, arguments: list[str] | None, protocols: dict[str, dict], recorded: dict | None = None
) -> argparse.Namespace:
    """Parse a command line. What is not typed comes from a checkpoint, else from the protocol, else from the option itself.

    Args:
        protocols: by name, what the options say under it; "paper" is followed where nothing says otherwise.
        recorded: options that a checkpoint was made with. A protocol that is typed goes before them.
    """
    parser.groups["running"].add_argument(
        "--protocol",
        type=protocol_name,
        choices=tuple(protocols),
        default="paper",
        help="what options say that are not given: paper, as in the paper; tuned, as our measurements favour (RESULTS.md)",
    )
    add_retired_options(parser)
    names, not_typed = vars(parser.parse_args(arguments)), object()
    typed = vars(parser.parse_args(arguments, argparse.Namespace(**dict.fromkeys(names, not_typed))))
    typed = {name: value for name, value in typed.items() if value is not not_typed}
    recorded = {name: value for name, value in (recorded or {}).items() if name in names}
    check_recorded(parser, recorded)
    if typed.keys() & {"intensity_range", "window"}:  # one replaces the other
        recorded = {name: value for name, value in recorded.items() if name not in ("intensity_range", "window")}
    if "protocol" in typed:
        defaults = {**recorded, **protocols[typed["protocol"]]}
    else:
        defaults = {**protocols[recorded.get("protocol", "paper")], **recorded}
    parser.set_defaults(**defaults)
    return parser.parse_args(arguments)


def protocol_name(text: str) -> str:
    if text == "measured":
        raise argparse.ArgumentTypeError("'measured' is called 'tuned' now")
    return text


def departures(args: argparse.Namespace, protocol: argparse.Namespace) -> dict[str, tuple]:
    """The options of the method that depart from their protocol: by name, what they are and what the protocol says."""
    defaults = plain(protocol)  # lists and tuples alike
    return {
        name: (value, defaults[name])
        for name, value in plain(args).items()
        if name not in NOT_OF_THE_METHOD and value != defaults[name]
    }


def settings(options: dict) -> dict:
    """The options of the method, without those of data, places and machine: what may be passed on with a model."""
    left_out = {*NOT_OF_THE_METHOD, *PLACES} - {"protocol"}
    return {name: value for name, value in options.items() if name not in left_out}


def describe(name: str, departures: dict[str, tuple]) -> str:
    """A line that says which protocol a run follows, and where it departs from it."""
    listed = [f"{spelled(option, value)} ({name}: {in_words(default)})" for option, (value, default) in departures.items()]
    return f"protocol: {name}, except {', '.join(listed)}" if listed else f"protocol: {name}"


def spelled(option: str, value) -> str:
    """An option with its value as one would type it: ``--epochs 3``, ``--flips``, ``--no-flips``."""
    if option == "pool":
        return {"token": "--cls_token", "avg": "--global_pool"}[value]
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {in_words(value)}"


def remark_on_masking(masking: str, protocol: str) -> str:
    """A line on what hides patches in fine-tuning, and on what that cost in our measurements."""
    if masking == "none":
        return "note: fine-tuning on all patches; --masking attention uses only those that SAM leaves visible"
    if masking == "random":
        return "note: fine-tuning on as many patches as SAM would leave visible, chosen at random"
    cost = (
        "note: fine-tuning on SAM's visible patches, as in the paper. With small models this ended 15 points below all "
        "patches on BUSI (6 to 24) and 11 on Brain Tumor MRI (-4 to 25; RESULTS.md)"
    )
    return f"{cost}. --protocol tuned uses all patches" if protocol == "paper" else cost


def settle_masking(args: argparse.Namespace) -> None:
    """Settle what masks, by which map and how much of an image, where the command line or the protocol leave it open."""
    ratios_given = args.mask_ratio is not None or args.throw_ratio is not None
    args.masking = args.masking or ("attention" if ratios_given else "none")
    args.mask_ratio = MASK_RATIO if args.mask_ratio is None else args.mask_ratio
    args.throw_ratio = THROW_RATIO if args.throw_ratio is None else args.throw_ratio
    args.map = args.map or finetuning_map(args)


def finetuning_map(args: argparse.Namespace) -> str:
    """SAM draws by the last block's map in either protocol; where it does not run, a map is only shown."""
    return "last" if args.protocol == "paper" or args.masking == "attention" else "consensus"
