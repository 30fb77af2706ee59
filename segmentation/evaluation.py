"""``--evaluate``: metrics, a row an image, the masks and a contact sheet of a checkpoint."""

from pathlib import Path

from torch import nn

from segmentation import engine, metrics, pictures
from segmentation.data import open_pairs, resize
from segmentation.losses import LOSSES
from segmentation.protocol import default_folder, departures
from segmentation.setr import build_setr
from util.data.reading import Reading
from util.options import protocol
from util.options.parsed import plain
from util.system import distributed
from util.system.console import say
from util.system.errors import InputError
from util.system.workplace import check_evaluation_folder, describe, open_workplace
from util.training import checkpoint


def evaluate_only(args) -> None:
    """Evaluate ``args.evaluate`` on the validation set of ``args.root``."""
    source = checkpoint.load(args.evaluate)
    reading = Reading.of(vars(args))
    (pairs,) = open_pairs(args.root, ("val",), args.img_ext, args.mask_ext, args.num_classes, reading)
    if source.classes != pairs.classes:
        raise InputError(f"{args.evaluate} was trained on the masks {source.classes}, --root has {pairs.classes}")
    folder = Path(args.output_dir) if args.output_dir else default_folder(args.dataset, f"{args.name}-eval")
    check_evaluation_folder(folder, args.evaluate, "val", args.overwrite)
    workplace = open_workplace(folder, args.device, args.amp)
    size = (args.input_h, args.input_w)
    model = build_setr(
        args.model,
        args.patch_size,
        size,
        len(pairs.classes),
        deep_supervision=args.deep_supervision,
        final_norm=args.final_norm,
        align_corners=args.align_corners,
    )
    load(model, source.parameters, args.evaluate)
    departing = departures(args)
    describe(workplace, "eval", plain(args), departing)
    say(protocol.describe(args.protocol, departing))
    model.to(workplace.device)
    whole = resize(size, args.antialias)
    results, counts, predicted, true = engine.evaluate(
        model, pairs, whole, LOSSES[args.loss], args.batch_size, workplace.precision
    )
    results = {"checkpoint": args.evaluate, "protocol": args.protocol, "input": list(size), **results}
    if distributed.is_main():
        metrics.write_results(folder, results, counts, pairs.paths, pairs.classes)
        iou = pictures.mean_iou(metrics.metrics_of(counts)["iou"])
        title = f"{'/'.join(Path(args.evaluate).parts[-2:])}: best, median and worst of {len(iou)} images"
        pictures.contact_sheet(pairs, predicted > 127, true > 0, iou, size, title).savefig(folder / "sheet.png")
        pictures.write_masks(folder / "masks", pairs, predicted)
    say(metrics.table(results))
    say(f"written: {folder}/metrics.json, predictions.csv, sheet.png, masks/")
    distributed.stop()


def load(model: nn.Module, parameters: dict, path: str) -> None:
    """Load a checkpoint's weights; raise :class:`InputError` where they are not those of the model."""
    try:
        model.load_state_dict(parameters)
    except RuntimeError as error:
        reason = str(error).split("\n")[-1].strip()
        raise InputError(
            f"--evaluate {path}: its weights do not fit the model that its options describe ({reason})"
        ) from None
