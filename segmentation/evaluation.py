"""``--evaluate``: metrics, a row an image, the masks and a contact sheet of a checkpoint."""

from pathlib import Path

import torch
from torch import nn

from segmentation import engine, metrics, pictures
from segmentation.data import Pairs, image_paths, open_split, resize
from segmentation.intervals import intervals
from segmentation.losses import LOSSES
from segmentation.metrics import Counts
from segmentation.protocol import default_folder, departures
from segmentation.setr import build_setr
from util.data.copies import copies_of, without_copies
from util.evaluation.figure import save
from util.options import protocol
from util.options.parsed import plain, reading
from util.system import distributed
from util.system.console import say
from util.system.errors import InputError
from util.system.workplace import open_workplace
from util.training import checkpoint
from util.training.run_folder import check_evaluation_folder, write_run_json
from util.weights import history


def evaluate_only(args) -> None:
    """Evaluate ``args.evaluate`` on the test set of ``args.root``, or on the validation set (``--split``)."""
    source = checkpoint.load(args.evaluate)
    split = args.split or ("test" if (Path(args.root) / "test").is_dir() else "val")
    pairs = open_split(args.root, split, args.img_ext, args.mask_ext, args.num_classes, reading(args))
    if source.classes != pairs.classes:
        raise InputError(f"{args.evaluate} was trained on the masks {source.classes}, --root has {pairs.classes}")
    folder = Path(args.output_dir) if args.output_dir else default_folder(args.dataset, f"{args.name}-eval")
    pictures.refuse_other_masks(folder)
    check_evaluation_folder(folder, source, split, args.root, args.overwrite)
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
        variant=source.variant,
    )
    load(model, source.parameters, args.evaluate)
    departing = departures(args)
    write_run_json(workplace, "eval", plain(args), departing, resumed=source)
    say(protocol.describe(args.protocol, departing))
    model.to(workplace.device)
    whole = resize(size, args.antialias)
    trained_on = image_paths(args.root, "train", args.img_ext)
    if source.trained_without_copies:
        trained_on = without_copies(trained_on, image_paths(args.root, "val", args.img_ext))
    leak = history.leak_before(source.options, pairs.paths, f"images of {split}", trained_on)
    results, counts, predicted, true = engine.evaluate(
        model, pairs, whole, LOSSES[args.loss], args.batch_size, workplace.precision
    )
    results = {
        **{"checkpoint": args.evaluate, "checkpoint_sha256": source.sha256, "split": split},
        **{"data_path": str(Path(args.root).resolve()), "protocol": args.protocol, "input": list(size)},
        **results,
        "intervals": intervals(counts, pairs.classes),
        **remarks(pairs, counts, trained_on, split == "val" and source.is_best, leak, args.batch_size),
    }
    if distributed.is_main():
        pictures.clear(folder)
        metrics.write_results(folder, results, counts, pairs.paths, pairs.classes)
        iou = metrics.metrics_of(counts)["iou"].mean(1)  # over its classes
        title = f"{split}: best, median and worst of {len(iou)} images"
        sheet = pictures.contact_sheet(pairs, predicted > 127, true > 0, iou, title, args.figure_width)
        drawn = ", ".join(save(sheet, folder, "sheet", args.figure_format))
        pictures.write_masks(folder / "masks", pairs, predicted)
    say(f"evaluated: {split}")
    say(metrics.table(results))
    for line in results["remarks"]:
        say(f"note: {line}")
    if distributed.is_main():
        say(f"written: {folder}/metrics.json, predictions.csv, {drawn}, masks/")
    distributed.stop()


def remarks(pairs: Pairs, counts: Counts, training: list[str], chose_epoch: bool, leak: str, batch_size: int) -> dict:
    """What a reader must know of the metrics of a set, as :func:`util.evaluation.remarks.remarks` says it of classes.

    Returns:
        ``remarks``, a line each; where some images are copies of training images, ``copies``, their number, and
        ``without_copies``, the metrics of the others (None where there are no others).
    """
    lines, more = [leak] if leak else [], {}
    if chose_epoch:
        lines.append("the epoch was chosen on these images, so the metrics look too good; those of test/ would not")
    if copies := copies_of(pairs.paths, training):
        unseen = torch.tensor([path not in copies for path in pairs.paths])
        others = (
            metrics.summary(Counts(*(each[unseen] for each in counts)), batch_size, pairs.classes) if unseen.any() else None
        )
        more = {"copies": len(copies), "without_copies": others}
        iou = f"; without them the mean IoU is {100 * others['per_image']['iou']:.2f} %" if others else ""
        lines.append(f"{len(copies)} of these {len(pairs)} images are copies of a training image{iou}")
    return {"remarks": lines, **more}


def load(model: nn.Module, parameters: dict, path: str) -> None:
    """Load a checkpoint's weights; raise :class:`InputError` where they are not those of the model."""
    try:
        model.load_state_dict(parameters)
    except RuntimeError as error:
        reason = str(error).split("\n")[-1].strip()
        raise InputError(
            f"--evaluate {path}: its weights do not fit the model that its options describe ({reason})"
        ) from None
