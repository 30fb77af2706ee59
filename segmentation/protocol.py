"""The two protocols of segmentation, and how a checkpoint, the command line and a protocol settle the options together."""

import argparse
from pathlib import Path
from typing import Any

from segmentation.checkpoints import encoder_options, newest
from util.options.finetuning import OF_READING
from util.options.protocol import spelled
from util.options.recorded import check_recorded
from util.sizes import ENCODERS
from util.system.errors import InputError
from util.training import checkpoint
from util.training.checkpoint import Checkpoint
from util.training.resuming import resumed_options

ENCODER: dict[str, Any] = {"model": "vit_base_patch16", "patch_size": 16, "input_w": 224, "input_h": 224}
TRAINING: dict[str, Any] = {
    **{"epochs": 200, "batch_size": 8, "accum_iter": 1, "loss": "BCEDiceLoss", "optimizer": "Adam", "lr": 1e-4},
    **{"min_lr": 1e-5, "weight_decay": 1e-4, "momentum": 0.9, "nesterov": False, "scheduler": "cosine", "warmup_epochs": 0},
    **{"factor": 0.1, "patience": 2, "milestones": (100, 150), "gamma": 0.1, "clip_grad": None, "early_stopping": None},
    **{"flips": False, "crop_scale": (1.0, 1.0), "color_jitter": 0.0, "deep_supervision": False},
}
# What a protocol decides: as the released scripts do it where they are right, or as this project did it before.
PAPER: dict[str, Any] = {
    **{"final_norm": False, "align_corners": True, "encoder_init": "truncated_normal"},
    **{"turn_probability": 0.5, "antialias": False, "schedule_step": "epoch", "best_by": "batch_iou"},
}
TUNED: dict[str, Any] = {
    **{"final_norm": True, "align_corners": False, "encoder_init": "xavier"},
    **{"turn_probability": 1.0, "antialias": True, "schedule_step": "iteration", "best_by": "image_iou"},
}
PROTOCOLS = {"paper": {**ENCODER, **TRAINING, **PAPER}, "tuned": {**ENCODER, **TRAINING, **TUNED}}
# What a trained model depends on: its checkpoint decides, and no option changes it afterwards.
FIXED = ("protocol", *ENCODER, "deep_supervision", "final_norm", "align_corners", "antialias")


def settle(args: argparse.Namespace, typed: set[str], parser: argparse.ArgumentParser) -> dict:
    """The values of the options that the command line leaves open.

    A run to resume goes on with all its options, and a run to evaluate keeps those of its protocol. An encoder's checkpoint
    settles model, patch size and input size. The protocol settles the rest.

    Args:
        args: the command line as it was parsed.
        typed: names of the options that it gives.
        parser: that did it; it checks what the checkpoint holds.

    Raises:
        InputError: when an option contradicts the checkpoint, or that one does not agree with itself.
    """
    option, path = None, None
    if args.evaluate:
        option, path = "--evaluate", args.evaluate
    elif args.resume == "auto":
        option, path = "--resume", newest(Path(args.output_dir or default_folder(args.dataset, args.name)))
    elif args.resume:
        option, path = "--resume", args.resume
    if not path:
        settled = begin(args, typed)
    else:
        source = checkpoint.load(path, weights=False)
        if source.phase != "segmentation":
            raise InputError(
                f"{option} {path} is not a checkpoint of this script; to start from an encoder use --checkpoint"
            )
        check_recorded(parser, source.options)
        check_size(source)
        refuse_contradictions(args, typed, source, FIXED if args.evaluate else (*FIXED, "optimizer"))
        known = with_protocol(source.options if args.evaluate else resumed_options(source))
        protocol = PROTOCOLS[known["protocol"]]
        if args.evaluate:
            kept = (*protocol, *OF_READING, "protocol")
            known = {name: value for name, value in known.items() if name in kept}
        if typed & {"intensity_range", "window"}:  # one replaces the other
            known |= {"intensity_range": None, "window": None}
        settled = {**protocol, **known}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in settled.items() if name in vars(args)
    }


def begin(args: argparse.Namespace, typed: set[str]) -> dict:
    """The options of a run that starts from an encoder, or from random weights."""
    protocol = args.protocol or "paper"
    model = args.model or ENCODER["model"]
    encoder = {"model": model, "patch_size": ENCODERS[model]["patch_size"]}
    if args.checkpoint:
        encoder |= encoder_of(args, typed)
    return {"protocol": protocol, **PROTOCOLS[protocol], **encoder}


def default_folder(dataset: str, name: str) -> Path:
    """Where a run's files lie without ``--output_dir``."""
    return Path("output_dir") / f"{dataset}-{name}"


def with_protocol(options: dict) -> dict:
    """The options of a segmentation checkpoint; those that know no protocol followed what is now ``tuned``."""
    if "protocol" in options:
        return options
    return {**options, **TUNED, "protocol": "tuned", "turn_probability": float(options.get("turns", True))}


def refuse_contradictions(args: argparse.Namespace, typed: set[str], source: Checkpoint, names: tuple[str, ...]) -> None:
    """Raise :class:`InputError` where a typed option of these names is otherwise than the checkpoint was trained with."""
    known = with_protocol(source.options)
    for name in names:
        if name in typed and name in known and getattr(args, name) != known[name]:
            raise InputError(
                f"{spelled(name, getattr(args, name))} contradicts {source.path}, which was trained with "
                f"{spelled(name, known[name])}; leave the option out"
            )


def check_size(source: Checkpoint) -> None:
    """Raise :class:`InputError` where the options of a checkpoint are not those of its weights."""
    position = source.parameters.get("encoder.pos_embed")
    known = {**ENCODER, **source.options}
    patches = (known["input_w"] // known["patch_size"]) * (known["input_h"] // known["patch_size"])
    if position is not None and (position.ndim != 3 or position.shape[1] - 1 != patches):
        raise InputError(f"{source.path} is damaged: its weights are not for the input size that it names")


def encoder_of(args: argparse.Namespace, typed: set[str]) -> dict:
    """What ``--checkpoint`` settles; raise :class:`InputError` where options contradict its weights."""
    from util.weights.sources import load_weights  # timm, which takes seconds to load

    origin = load_weights(args.checkpoint, weights=False)
    options = encoder_options(origin)
    if "model" in typed and args.model != options["model"]:
        raise InputError(
            f"--model {args.model} contradicts {args.checkpoint}, which holds {options['model']} ({origin.shape}); "
            "leave the option out"
        )
    return options


def departures(args: argparse.Namespace) -> dict[str, tuple]:
    """The options that depart from the protocol: by name, what they are and what the protocol says."""
    return {
        name: (getattr(args, name), value)
        for name, value in PROTOCOLS[args.protocol].items()
        if getattr(args, name) != value
    }
