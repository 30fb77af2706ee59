"""What main_finetune.py does under --eval and --predict: a fine-tuned checkpoint, measured or used; nothing is trained."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import engine_finetune as engine
from models_vit import VisionTransformer, create_encoder
from util.data.folders import has_split
from util.data.images import Images, note_skipped
from util.data.inference import Inference
from util.data.opening import open_for_evaluation
from util.data.unlabelled import NewImages, find_files
from util.evaluation import prediction_folder
from util.evaluation.decision import Choice, Decision, decision_results, read_decision
from util.evaluation.overlays import draw_overlays
from util.evaluation.pictures import draw_pictures
from util.evaluation.predictions import Predictions
from util.evaluation.results import complete, in_words, write_evaluation
from util.maps.localisation import find_masks, localise
from util.masking import SAM
from util.options import parsed
from util.options.evaluation import cutoff_rule
from util.system import distributed
from util.system.console import say
from util.system.errors import Incomplete, InputError
from util.system.workplace import named_folder, open_workplace
from util.training import decided
from util.training.checkpoint import Checkpoint, file_sha256
from util.training.run_folder import check_evaluation_folder, write_run_json
from util.weights import history
from util.weights.into_model import load_encoder


def load_classifier(args: argparse.Namespace, source: Checkpoint, classes: list[str]) -> tuple[VisionTransformer, Decision]:
    """The model of a checkpoint, all of it trained, and the temperature and cut-off that were chosen for it."""
    if args.protocol != source.options.get("protocol", args.protocol):
        raise InputError(f"--protocol {args.protocol}: {args.resume} was trained by another; leave the option out")
    decision = read_decision(source.content, classes, source.path)
    say(f"protocol of the checkpoint: {source.options.get('protocol', 'unknown')}")
    model = create_encoder(
        args.model,
        args.patch_size,
        img_size=args.input_size,
        num_classes=len(classes),
        global_pool=args.pool,
        variant=source.variant,
    )
    say(load_encoder(model, source, new_head=False))
    missing = model.state_dict().keys() - source.parameters.keys()
    if missing:
        raise InputError(f"{args.resume} lacks {min(missing)}: leave --cls_token and --global_pool out, or fine-tune first")
    return model, decision


def evaluate(args: argparse.Namespace, source: Checkpoint) -> None:
    """``--eval``: metrics of a checkpoint, printed and written to ``metrics.json`` and ``predictions.csv``, and pictures.

    On request a temperature and a cut-off are chosen on val/ first, and kept in a checkpoint of their own.
    """
    split = args.split or ("test" if has_split(args.data_path, "test") else "val")
    wanted = Choice(args.calibrate, cutoff_rule(args), args.positive)
    choice = wanted if any(wanted) else None
    training_paths, files, val_files = open_for_evaluation(
        args.data_path,
        split,
        num_classes=args.num_classes,
        classes=source.classes,
        patients=args.patients,
        on_patient_leak=args.on_patient_leak,
        on_leak=args.on_leak,
        with_val=choice is not None,
        trained_without_copies=source.trained_without_copies,
    )
    classes = files.classes
    if source.outputs != len(classes):
        raise InputError(f"{args.resume} tells {source.outputs} classes apart, {args.data_path} has {len(classes)}")
    model, decision = load_classifier(args, source, classes)
    if args.prevalence and not decision.cutoff and not (choice and choice.rule):
        raise InputError(f"--prevalence is for a cut-off, and {args.resume} has none: add --sensitivity S, for instance")
    evaluated = source
    if choice:
        path = decided.prepare(choice, source, decision, val_files or files, args.input_size, args.overwrite)
        evaluated = replace(source, path=path)
    folder = Path(args.output_dir or named_folder("eval", args.data_path))
    check_evaluation_folder(folder, evaluated, split, args.data_path, args.overwrite)
    workplace = open_workplace(folder, args.device, args.amp)
    sets = {one.split: Images(one, args.cache, args.on_bad_image, parsed.reading(args)) for one in (files, val_files) if one}
    images = sets[split]
    note_skipped(workplace.folder / "skipped-eval.txt", *sets.values())
    lesion_masks = find_masks(images, args.lesion_masks)

    model.to(workplace.device)
    inference = Inference(args.input_size, args.batch_size, workplace.precision)
    sam = SAM(args.mask_ratio, args.throw_ratio, args.map_temperature) if args.masking == "attention" else None
    outputs = {name: engine.outputs(model, each, inference) for name, each in sets.items()}
    known = {name: (each.labels.numpy(), outputs[name][0].numpy()) for name, each in sets.items()}
    if choice:
        decision = choice.make(decision, *known["val"], classes)
    logits, features = outputs[split]
    probabilities = torch.from_numpy(decision.probabilities(logits.numpy()))
    predictions = Predictions(images.paths, probabilities.numpy(), classes, images.labels.numpy(), images.patients)
    metrics = engine.measure(images, probabilities, args.ordered)
    metrics |= localise(model, images, lesion_masks, inference, args.map, sam)
    about = {"checkpoint": str(evaluated.path), "data_path": str(Path(args.data_path).resolve()), "split": split}
    chosen = [*(["epoch"] if source.is_best else []), *decision.parts] if split == "val" else []
    results = about | complete(metrics, predictions, training_paths, chosen, args.ordered)
    if leak := history.leak_before(source.options, images.paths, f"images of {split}", training_paths):
        results["remarks"].append(leak)
    results |= decision_results(decision, known, split, classes, images.patients, args.prevalence)
    if choice:
        decided.save(source, evaluated.path, decision)
        distributed.barrier()
    results["checkpoint_sha256"] = file_sha256(evaluated.path)  # that of the file as it is now
    write_run_json(workplace, "eval", parsed.plain(args), resumed=source)
    written = write_evaluation(workplace.folder, results, predictions, decision, features.numpy() if args.features else None)
    say(f"evaluated: {split}")
    say(in_words(results))
    drawn = draw_pictures(
        workplace.folder,
        model,
        images,
        inference,
        args.map,
        results,
        probabilities,
        features,
        width=args.figure_width,
        formats=args.figure_format,
    )
    say(f"written in {workplace.folder}: {', '.join(written)}; {', '.join(drawn)}")
    if choice:
        say(f"written: {evaluated.path}, for --eval and --predict")
    distributed.stop()


def predict(args: argparse.Namespace, source: Checkpoint) -> None:
    """``--predict``: classes and probabilities of images without labels, in ``predictions.csv``; on request their maps.

    Raises:
        InputError: where no image can be read.
        Incomplete: once the others are done, where some cannot.
    """
    classes = prediction_folder.names_of_classes(source.classes, source.outputs, args.num_classes, source.path)
    files = find_files(args.predict)
    folder = Path(args.output_dir or prediction_folder.default_folder(args.predict))
    prediction_folder.check_prediction_folder(folder, args.resume, files.fingerprint, args.overwrite)
    model, decision = load_classifier(args, source, classes)
    workplace = open_workplace(folder, args.device, args.amp)
    model.to(workplace.device)
    images = NewImages(files.paths, parsed.reading(args))
    inference = Inference(args.input_size, args.batch_size, workplace.precision)
    logits, features = engine.outputs(model, images, inference)
    problems = images.problems()
    read = [index for index, path in enumerate(files.paths) if path not in problems]
    prediction_folder.check_read(workplace.folder, problems, len(images))
    done = files.some(read)
    predictions = Predictions(done.paths, decision.probabilities(logits[read].numpy()), classes, patients=done.patients)
    prediction_folder.clear_prediction(workplace.folder)
    write_run_json(workplace, "predict", parsed.plain(args), resumed=source)
    overlays = draw_overlays(workplace.folder, model, images, inference, args.map, read) if args.overlays else None
    written = prediction_folder.write_prediction(
        workplace.folder,
        predictions,
        decision,
        checkpoint=args.resume,
        fingerprint=files.fingerprint,
        problems=problems,
        features=features[read].numpy() if args.features else None,
        overlays=overlays,
        map_source=args.map,
    )
    say(prediction_folder.in_words(predictions, decision, problems))
    say(f"written in {workplace.folder}: {', '.join(written)}")
    distributed.stop()
    if problems:
        listed = workplace.folder / prediction_folder.UNREADABLE
        raise Incomplete(f"{len(problems)} of {len(images)} images cannot be read; they are listed in {listed}")
