"""The figures of the paper's experiment on a CPU as Markdown; what has not ended is "not run"."""

from statistics import mean

from benchmarks.experiments.cells import LONG, ROWS, RUNS
from benchmarks.record import table

PAPER = {"btmd": (2072, 2106), "busi": (181, 233)}  # the paper's figures as right answers (inferred, docs/datasets.md)
TITLES = {"btmd": "Brain Tumor MRI", "busi": "BUSI", "phantoms": "phantoms"}
NOT_RUN = "not run"


def ended(results: dict, names: list[str]) -> list[dict]:
    return [results[name] for name in names if name in results]


def by_seed(results: dict, names: list[str], figure) -> str:
    """``figure`` of each seed's run, or that it was not run."""
    cells = [figure(results[name]) if name in results else NOT_RUN for name in names]
    return NOT_RUN if set(cells) == {NOT_RUN} else ", ".join(cells)


def average(values, digits: int) -> str:
    values = list(values)
    return f"{mean(values):.{digits}f}" if values else ""


def top1(count: dict) -> float:
    return 100 * count["right"] / count["of"]


def minutes(results: dict, name: str) -> float:
    """CPU time of a run and of the pre-training that it begins from."""
    return sum(results[each]["cpu_minutes"] for each in (name, RUNS[name].start) if each)


def split_table(results: dict) -> str:
    lines = []
    for data, rows in ROWS.items():
        right, of = PAPER[data]
        lines.append(
            [TITLES[data], "the paper (ViT-B/16, 224 px)", "", f"{right:,} (of {of:,})", f"{100 * right / of:.2f}", "", ""]
        )
        for title, names in rows.items():
            runs = ended(results, names)
            ends = [f"{100 * edge:.1f}" for each in runs[:1] for edge in each["all"]["interval"]]
            total = f" (of {runs[0]['all']['of']:,})" if runs else ""
            lines.append(
                [
                    *(TITLES[data], title, average((minutes(results, name) for name in names if name in results), 0)),
                    by_seed(results, names, lambda run: f"{run['all']['right']:,}") + total,
                    *(average((top1(each["all"]) for each in runs), 2), " to ".join(ends)),
                    average((top1(each.get("without_copies", each["all"])) for each in runs), 2),
                ]
            )
    header = ["data", "what", "CPU minutes", "right, by seed", "top-1 (%)", "95 % interval", "without copies (%)"]
    return table(header, lines)


def long_table(results: dict) -> str:
    lines = []
    for data, rows in LONG.items():
        for title, names in rows.items():
            runs = ended(results, names)
            curve = [average((100 * each["curve"][epoch - 1] for each in runs), 1) for epoch in (25, 50)]
            end = by_seed(results, names, lambda run: f"{top1(run['all']):.2f}")
            deleted = [average((top1(run[key]) for run in runs), 1) for key in ("most_attended_deleted", "random_deleted")]
            pointing = average((100 * run["map_pointing"] for run in runs if "map_pointing" in run), 1)
            chance = average((100 * run["localisation"]["chance"] for run in runs if "localisation" in run), 1)
            minutes = average((run["cpu_minutes"] for run in runs), 0)
            lines.append([TITLES[data], title, minutes, *curve, end, *deleted, pointing, chance])
    header = ["data", "patches", "CPU minutes", "after 25 (%)", "after 50 (%)", "after 100, by seed (%)"]
    return table([*header, "most attended deleted (%)", "random deleted (%)", "pointing (%)", "chance (%)"], lines)


def tables(results: dict) -> str:
    machines = "; ".join(dict.fromkeys(each["ran_on"] for each in results.values()))
    commits = ", ".join(dict.fromkeys(each["commit"] for each in results.values()))
    return f"""# The paper's experiment as far as a CPU goes

Commit {commits}, one thread a run on {machines}. `paper-on-cpu.json` and `python -m benchmarks.experiments --list` have the
commands. All figures are of the last epoch, and means over the seeds that ended.

## The paper's split

70 % for training and 30 % for validation by `python -m util.prepare`, seed 0. CPU minutes are those of the process, both
phases together. The interval is Clopper and Pearson's of the first seed that ended. Copies are validation images that are a
training image too, byte for byte.

{split_table(results)}

## A long schedule

100 epochs of fine-tuning, all from the same pre-training of a seed; CPU minutes without that one. Deleted is a tenth of the
patches, in validation only. Pointing is how often the maximum of the last block's map lies in the lesion.

{long_table(results)}
"""
