"""The two protocols of segmentation, and how a checkpoint, the command line and a protocol settle the options together."""

import argparse
from pathlib import Path

from models_vit import ENCODERS
from segmentation.checkpoints import encoder_options, newest
from util.system.errors import InputError
from util.training import checkpoint
from util.training.checkpoint import Checkpoint
from util.training.resuming import options_to_go_on_with

ENCODER = {"model": "vit_base_patch16", "patch_size": 16, "input_w": 224, "input_h": 224}
TRAINING = {
    **{"epochs": 200, "batch_size": 8, "accum_iter": 1, "loss": "BCEDiceLoss", "optimizer": "Adam", "lr": 1e-4},
    **{"min_lr": 1e-5, "weight_decay": 1e-4, "momentum": 0.9, "nesterov": False, "scheduler": "cosine", "warmup_epochs": 0},
    **{"factor": 0.1, "patience": 2, "milestones": (100, 150), "gamma": 0.1, "clip_grad": None, "early_stopping": None},
    **{"flips": False, "crop_scale": (1.0, 1.0), "color_jitter": 0.0, "deep_supervision": False},
}
# What a protocol decides: as the released scripts do it where they are right, or as this project did it before.
PAPER = {
    **{"final_norm": False, "align_corners": True, "encoder_init": "truncated_normal"},
    **{"turn_probability": 0.5, "antialias": False, "schedule_step": "epoch", "best_by": "batch_iou"},
}
TUNED = {
    **{"final_norm": True, "align_corners": False, "encoder_init": "xavier"},
    **{"turn_probability": 1.0, "antialias": True, "schedule_step": "iteration", "best_by": "image_iou"},
}
PROTOCOLS = {name: {**ENCODER, **TRAINING, **own} for name, own in (("paper", PAPER), ("tuned", TUNED))}
# A checkpoint's own; no option changes them afterwards.
FIXED = ("protocol", *ENCODER, "deep_supervision", "final_norm", "align_corners", "antialias")


def settle(args: argparse.Namespace, given: set[str]) -> None:
    """Put in place what the command line leaves open.

    A run to resume goes on with all its options, and a run to evaluate keeps those of its protocol. An encoder's checkpoint
    settles model, patch size and input size. The protocol settles the rest.

    Raises:
        InputError: when an option contradicts the checkpoint.
    """
    option, path = None, None
    if args.evaluate:
        option, path = "--evaluate", args.evaluate
    elif args.resume == "auto":
        option, path = "--resume", newest(Path(args.output_dir or default_folder(args.dataset, args.name)))
    elif args.resume:
        option, path = "--resume", args.resume
    own = checkpoint.load(path, weights=False) if path else None
    if own and own.phase != "segmentation":
        raise InputError(f"{option} {path} is not a checkpoint of this script; to start from an encoder use --checkpoint")
    if own:
        known = recorded(own)
        contradicted = next((name for name in FIXED if name in given and getattr(args, name) != known[name]), None)
        if contradicted:
            by_hand, there = spelled(contradicted, getattr(args, contradicted)), spelled(contradicted, known[contradicted])
            raise InputError(f"{by_hand} contradicts {path}, which was trained with {there}; leave the option out")
        protocol = PROTOCOLS[known["protocol"]]
        taken = protocol if args.evaluate else options_to_go_on_with(own)
        found = {"protocol": known["protocol"], **protocol, **{name: known[name] for name in taken if name in known}}
    else:
        args.protocol = args.protocol or "paper"
        model = {"model": args.model or ENCODER["model"]}
        model["patch_size"] = ENCODERS[model["model"]]["patch_size"]
        found = {**PROTOCOLS[args.protocol], **model, **(encoder_of(args, given) if args.checkpoint else {})}
    for name, value in found.items():
        if name in vars(args) and name not in given:
            setattr(args, name, tuple(value) if isinstance(value, list) else value)


def default_folder(dataset: str, name: str) -> Path:
    """Where a run's files lie without ``--output_dir``."""
    return Path("output_dir") / f"{dataset}-{name}"


def recorded(source: Checkpoint) -> dict:
    """The options of a segmentation checkpoint; those that know no protocol followed what is now ``tuned``."""
    known = source.options
    if "protocol" in known:
        return known
    return {**known, **TUNED, "protocol": "tuned", "turn_probability": float(known.get("turns", True))}


def encoder_of(args: argparse.Namespace, given: set[str]) -> dict:
    """What ``--checkpoint`` settles; raise :class:`InputError` where options contradict its weights."""
    source = checkpoint.load(args.checkpoint, weights=False)
    found = encoder_options(source)
    for name in ("model", "patch_size"):
        if name in given and getattr(args, name) != found[name]:
            raise InputError(
                f"{spelled(name, getattr(args, name))} contradicts {args.checkpoint}, which holds {found['model']} "
                f"({source.shape}); leave the option out"
            )
    return found


def spelled(name: str, value) -> str:
    """An option as it is typed."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    words = value if isinstance(value, tuple | list) else [value]
    return " ".join([f"--{name}", *(f"{word:g}" if isinstance(word, float) else str(word) for word in words)])


def departures(args: argparse.Namespace) -> dict[str, tuple]:
    """The options that depart from the protocol: by name, what they are and what the protocol says."""
    return {
        name: (getattr(args, name), value)
        for name, value in PROTOCOLS[args.protocol].items()
        if getattr(args, name) != value
    }
