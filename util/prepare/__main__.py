"""``python -m util.prepare DATA_SET DOWNLOAD DEST``: see :data:`util.prepare.options.DESCRIPTION`."""

import argparse
import signal
import sys
from collections.abc import Hashable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it runs from any folder, called by its path

from util.prepare import check, layout, source, splitting, table
from util.prepare.data_sets import DATA_SETS
from util.prepare.download import Entry, open_download
from util.prepare.options import command, get_args
from util.prepare.record import Found, Record, name_apart
from util.system.errors import DiskError, InputError, run_script


def check_places(download: Path, dest: Path) -> None:
    """Raise :class:`InputError` for a DOWNLOAD that was prepared already, and a DEST that lies in it or is in use."""
    inside, outside = dest.resolve(), download.resolve()
    if inside == outside or outside in inside.parents:
        raise InputError(f"DEST {dest} lies in DOWNLOAD {download}; choose a folder outside")
    if (download / "SOURCE.md").is_file() and (download / "split.csv").is_file():
        raise InputError(f"DOWNLOAD {download} is prepared already; give it to --data_path")
    layout.check_free(dest)


def find(name: str, entries: list[Entry], **options) -> Found:
    """What a download holds of a data set; :class:`InputError` says what is wrong, and which data set it may be instead."""
    try:
        return DATA_SETS[name].find(entries, **options)
    except InputError as error:
        other = next((other for other in DATA_SETS if other != name and holds(other, entries)), None)
        hint = f"; DOWNLOAD looks like {other}" if other else ""
        raise InputError(f"DOWNLOAD is not {name} as it is published: {error}{hint}") from None


def holds(name: str, entries: list[Entry]) -> bool:
    try:
        return bool(DATA_SETS[name].find(entries).records)
    except InputError:
        return False


def insist(problems: list[str], allow_incomplete: bool) -> list[str]:
    """What is wrong with the download, to be kept on record; raises :class:`InputError` unless that is allowed."""
    if problems and not allow_incomplete:
        named = "; ".join(problems)
        raise InputError(f"the download is not as it is published: {named}; complete it, or give --allow_incomplete")
    return problems


def choose(args: argparse.Namespace, records: list[Record], digests: list[str]) -> tuple[list[str], str]:
    """The split of each image, and a sentence that says where it comes from."""
    data_set, keys = DATA_SETS[args.data_set], [record.key for record in records]
    if args.official or args.split:
        if args.official:
            splits = [data_set.official[record.part] for record in records]
            how = f"The official split: {', '.join(f'{part} is {split}' for part, split in data_set.official.items())}."
        else:
            splits = table.apply_split(table.read_split(args.split), keys, args.split, args.allow_incomplete)
            how = f"As in the table {args.split.name}."
        splitting.check(keys, splits, ("train", "val"))
        return splits, how
    tags: list[list[Hashable]] = [[] for _ in records]
    whole = []
    if args.by == "patient":
        if not any(record.patient for record in records):
            raise InputError(f"--by patient: the download does not tell the {data_set.group}; complete it")
        whole.append(f"all images of a {data_set.group}")
        tags = [[("patient", record.patient)] if record.patient else [] for record in records]
    if args.by == "patient" or args.unique:
        whole.append("identical files")
        tags = [[*known, ("file", digest)] for known, digest in zip(tags, digests, strict=True)]
    splits = splitting.split(keys, splitting.join(tags), args.seed or 0, args.test_share or Fraction(0))
    drawn = f"with {' and '.join(whole)} kept on one side" if whole else "image by image"
    how = f"Drawn with seed {args.seed or 0}, {drawn}: "
    how += "3 * n // 10 images of each class for val (the paper's rule, inferred)"
    how += f", {float(args.test_share):g} of each class for test" if args.test_share else ""
    return splits, f"{how}."


def main() -> None:
    args = get_args()
    data_set = DATA_SETS[args.data_set]
    check_places(args.download, args.dest)
    options = {"window": args.window, "margin": args.crop} if args.data_set == "deeplesion" else {}
    with open_download(args.download) as entries:
        download = find(args.data_set, entries, **options)
        missing = [f"missing: {table.some(download.missing)}"] if download.missing else []
        problems = insist([*check.compare(data_set, download.records), *missing], args.allow_incomplete)
        contents, damaged = check.read_all(download.records)
        unreadable = [f"damaged: {table.some(list(damaged.values()), 3)}"] if damaged else []
        problems += insist(unreadable, args.allow_incomplete)
        whole = [
            replace(record, masks=tuple(mask for mask in record.masks if mask.path not in damaged))
            for record in download.records
            if record.entry.path not in damaged
        ]
        if not whole:
            raise InputError(f"no image of {args.data_set} is left: {'; '.join(problems)}")
        records = name_apart(whole)
        digests = [contents[record.entry.path].digest for record in records]
        splits, how = choose(args, records, digests)

        counts = source.count_table(data_set, records, splits)
        facts = [*problems, *[f"Left out: {line}" for line in download.left_out]]
        if download.unexpected:
            names = table.some([entry.path for entry in download.unexpected], 3)
            facts.append(f"Not part of the data set and not used: {names}")
        facts += source.leaks(data_set, records, digests, splits)
        texts = {
            "split.csv": table.write_split(records, splits, layout.paths(records, splits)),
            "SOURCE.md": source.describe(data_set, f"    {command(args)}\n\n{how}", counts, facts),
        }
        done = layout.is_written(args.dest, records, splits, texts)
        if not done:
            layout.write(args.dest.resolve(), records, splits, texts, args.copy)
    print("\n".join([data_set.title, how, *counts, *facts]))
    print(f"{args.dest} is so already; nothing was changed" if done else f"written: {args.dest} (SOURCE.md there says more)")


def run() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit that clears away what was half written
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
    except DiskError:
        raise
    except OSError as error:  # a folder or zip that may not be read
        raise InputError(f"{error.filename or 'DOWNLOAD or DEST'}: {error.strerror or error}") from None


if __name__ == "__main__":
    run_script(run)
