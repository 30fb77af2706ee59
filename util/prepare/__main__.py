"""Prepare one of the paper's data sets from its official download.

    python -m util.prepare busi DOWNLOAD DEST

DOWNLOAD is the folder with what was downloaded, zips or unpacked, or one zip. DEST becomes what the scripts take as
--data_path: train/CLASS/*, val/CLASS/*, with split.csv (the split as a table) and SOURCE.md (origin, licence, numbers).
"""

import argparse
import signal
import sys
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from util.errors import InputError, run_script
from util.prepare import btmd, busi, chestxray2017, check, deeplesion, ham10000, layout, messidor2, source, splitting, table
from util.prepare.download import Entry, open_download
from util.prepare.record import DataSet, Found, Record

MODULES = (messidor2, btmd, ham10000, deeplesion, chestxray2017, busi)
DATA_SETS = {module.__name__.rpartition(".")[2]: module.DATA_SET for module in MODULES}


class Parser(argparse.ArgumentParser):
    """Reports a wrong option as one line."""

    def error(self, message: str):
        self.exit(2, f"error: {message} (--help lists the options)\n")


def share(text: str) -> Fraction:
    """An exact share, so that no image is lost to binary rounding."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if not 0 < value < Fraction(7, 10):
        raise argparse.ArgumentTypeError(f"{text}: a share above 0 and below 0.7 is needed, such as 0.1")
    return value


def get_args() -> argparse.Namespace:
    parser = Parser("python -m util.prepare", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("data_set", choices=DATA_SETS)
    parser.add_argument("download", type=Path, metavar="DOWNLOAD", help="folder with the official download, or one zip")
    parser.add_argument("dest", type=Path, metavar="DEST", help="where to write; must be new or empty")
    parser.add_argument("--by", choices=("image", "patient"), help="what is drawn for validation: images, as the paper "
                        "did (inferred; the default), or patients or lesions, none of which is then on both sides")  # fmt: skip
    parser.add_argument("--unique", action="store_true", help="keep identical files on one side; --by patient does too")
    parser.add_argument("--test_share", type=share, metavar="SHARE", help="share of each class for test/, out of train/")
    parser.add_argument("--seed", type=int, help="another seed draws another split (default: 0)")
    parser.add_argument("--official", action="store_true", help="the official split instead; its test part becomes val/")
    parser.add_argument(
        "--split", type=Path, metavar="FILE", help="the split of a table (DEST/split.csv of another) instead"
    )
    parser.add_argument("--copy", action="store_true", help="copy unpacked images instead of linking to them")
    parser.add_argument("--allow_incomplete", action="store_true", help="go on without what is missing or damaged")
    group = parser.add_argument_group("DeepLesion")
    group.add_argument("--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="Hounsfield units that become black "
                       "and white (default: those of each lesion in DL_info.csv)")  # fmt: skip
    group.add_argument("--crop", type=float, metavar="MARGIN", help="cut out the lesion: a square, larger than its box by "
                       "MARGIN of the box's longer side on each side; 0.5 doubles it (default: the whole slice)")  # fmt: skip
    args = parser.parse_args()
    check_options(args)
    return args


def check_options(args: argparse.Namespace) -> None:
    """Raise :class:`InputError` for options that contradict each other or the data set."""
    data_set = DATA_SETS[args.data_set]
    ready = "--official" if args.official else "--split" if args.split else None
    drawing = {"--by": args.by, "--unique": args.unique, "--test_share": args.test_share, "--seed": args.seed}
    drawing["--split"] = args.split if args.official else None
    for option, value in drawing.items():
        if ready and value not in (None, False):
            raise InputError(f"{ready} and {option}: give one; {ready} says already which image is where")
    if args.official and not data_set.official:
        raise InputError(f"--official: {args.data_set} has no official split; leave it out")
    if args.by == "patient" and not data_set.group:
        raise InputError(f"--by patient: {args.data_set} does not tell patients; --unique keeps identical files together")
    if args.data_set != "deeplesion" and (args.window or args.crop is not None):
        raise InputError(f"--window and --crop are for deeplesion, not {args.data_set}")
    if args.window and not args.window[0] < args.window[1]:
        raise InputError(f"--window {args.window[0]:g} {args.window[1]:g}: the first must be the lower one")
    if args.crop is not None and not 0 <= args.crop <= 100:
        raise InputError(f"--crop {args.crop:g}: a margin from 0 (the box itself) to 100 is needed")


def check_places(download: Path, dest: Path) -> None:
    """Raise :class:`InputError` for a DOWNLOAD that was prepared already, and for a DEST that lies in it."""
    inside, outside = dest.resolve(), download.resolve()
    if inside == outside or outside in inside.parents:
        raise InputError(f"DEST {dest} lies in DOWNLOAD {download}; choose a folder outside")
    if (download / "SOURCE.md").is_file() and (download / "split.csv").is_file():
        raise InputError(f"DOWNLOAD {download} is prepared already; give it to --data_path")
    if inside.is_dir() and any(inside.iterdir()) and not (inside / "SOURCE.md").is_file():
        raise InputError(f"DEST {dest} is not empty; choose a new folder")
    if inside.is_file():
        raise InputError(f"DEST {dest} is a file; choose a new folder")


def find(name: str, entries: list[Entry], **options) -> Found:
    """What a download holds of a data set; where that is nothing, say which data set it seems to be."""
    try:
        return DATA_SETS[name].find(entries, **options)
    except InputError as error:
        for other, data_set in DATA_SETS.items():
            try:
                if other != name and data_set.find(entries).records:
                    raise InputError(f"DOWNLOAD is not {name} but looks like {other}: {error}") from None
            except InputError as verdict:
                if "looks like" in str(verdict):
                    raise
        raise InputError(f"DOWNLOAD is not {name} as it is published: {error}") from None


def own_names(records: list[Record]) -> list[Record]:
    """Records whose keys differ: where official parts share a name, the part is put before it."""
    keys = [record.key for record in records]
    shared = {key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else set()
    named = [replace(each, name=f"{each.part}-{each.name}") if each.key in shared else each for each in records]
    keys = [record.key for record in named]
    for index, key in enumerate(keys if len(set(keys)) < len(keys) else ()):
        if key in keys[:index]:
            raise InputError(f"two images of one name: {named[keys.index(key)].entry.path}, {named[index].entry.path}")
    return named


def insist(problems: list[str], allow_incomplete: bool) -> list[str]:
    """What is wrong with the download, for the record; raises :class:`InputError` unless that is allowed."""
    if problems and not allow_incomplete:
        named = "; ".join(problems)
        raise InputError(f"the download is not complete: {named}. Download it again, or go on with --allow_incomplete")
    return problems


def choose(args: argparse.Namespace, records: list[Record], digests: list[str]) -> tuple[list[str], str]:
    """The split of each image, and a sentence that says where it comes from."""
    data_set, keys = DATA_SETS[args.data_set], [record.key for record in records]
    if args.official:
        parts = ", ".join(f"{part} is {split}" for part, split in data_set.official.items())
        splits = [data_set.official[record.part] for record in records]
        splitting.check(keys, splits, ("train", "val"))
        return splits, f"The official split: {parts}."
    if args.split:
        splits = table.apply_split(table.read_split(args.split), keys, args.split, args.allow_incomplete)
        splitting.check(keys, splits, ("train", "val"))
        return splits, f"As in the table {args.split.name}."
    tags, whole = [[("image", index)] for index in range(len(records))], []
    if args.by == "patient":
        if not any(record.patient for record in records):
            raise InputError(f"--by patient: the download does not tell the {data_set.group}")
        tags = [[*own, *([record.patient] if record.patient else [])] for own, record in zip(tags, records, strict=True)]
        whole.append(f"groups ({data_set.group})")
    if args.unique or args.by == "patient":
        tags = [[*own, ("copy", digest)] for own, digest in zip(tags, digests, strict=True)]
        whole.append("identical files")
    splits = splitting.split(keys, splitting.join(tags), args.seed or 0, args.test_share or Fraction(0))
    rest = f"; {' and '.join(whole)} are kept on one side" if whole else ", image by image"
    test = f", {float(args.test_share):g} of each class to test" if args.test_share else ""
    return splits, f"Drawn with seed {args.seed or 0}: 3 * n // 10 images of each class to val (the paper's rule, inferred)" \
                   f"{test}{rest}."  # fmt: skip


def command(args: argparse.Namespace) -> str:
    """The command as a user would give it again, without the places on this machine."""
    words = [f"python -m util.prepare {args.data_set} DOWNLOAD DEST"]
    for name in ("by", "test_share", "seed", "crop"):
        value = getattr(args, name)
        if value is not None:
            words.append(f"--{name} {float(value) if isinstance(value, Fraction) else value}")
    words += [f"--split {args.split.name}"] if args.split else []
    words += [f"--window {args.window[0]:g} {args.window[1]:g}"] if args.window else []
    words += [f"--{name}" for name in ("unique", "official", "copy", "allow_incomplete") if getattr(args, name)]
    return " ".join(words)


def main() -> None:
    args = get_args()
    data_set: DataSet = DATA_SETS[args.data_set]
    check_places(args.download, args.dest)
    options = {"window": args.window, "margin": args.crop} if args.data_set == "deeplesion" else {}
    with open_download(args.download) as entries:
        found = find(args.data_set, entries, **options)
        missing = [f"missing: {table.some(found.missing)}"] if found.missing else []
        problems = insist([*check.compare(data_set, found.records), *missing], args.allow_incomplete)
        contents, damaged = check.read_all(found.records)
        problems += insist([f"damaged: {line}" for line in damaged.values()], args.allow_incomplete)
        records = own_names([
            replace(record, masks=tuple(mask for mask in record.masks if mask.path not in damaged))
            for record in found.records if record.entry.path not in damaged
        ])  # fmt: skip
        digests = [contents[record.entry.path].digest for record in records]
        splits, how = choose(args, records, digests)

        counts = source.count_table(data_set, records, splits)
        facts = [*problems, *[f"Left out: {line}" for line in found.left_out]]
        if found.unexpected:
            facts.append(f"Not part of the data set, not used: {table.some([each.path for each in found.unexpected], 3)}")
        facts += source.leaks(data_set, records, digests, splits)
        rows = [(path, record.label, split, record.patient)
                for path, record, split in zip(layout.paths(records, splits), records, splits, strict=True)]  # fmt: skip
        texts = {
            "split.csv": table.write_split(rows),
            "SOURCE.md": source.describe(data_set, f"    {command(args)}\n\n{how}", counts, facts),
        }
        done = layout.is_written(args.dest, records, splits, texts)
        if not done:
            layout.write(args.dest, records, splits, texts, args.copy)
    print("\n".join([data_set.title, how, *counts, *facts]))
    print(f"{args.dest} is so already; nothing was changed" if done else f"written: {args.dest} (see SOURCE.md there)")


def run() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that half a folder is cleared away
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run_script(run)
