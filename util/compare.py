"""Compare two evaluations of the same images: is one better, or may that be chance?

    python -m util.compare runs/a/eval runs/b/eval

A and B are folders with a ``predictions.csv``, or such files. Printed are each metric of both, the difference with its 95 %
interval from a paired bootstrap, and McNemar's exact test.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder, called by its path

from util.evaluation.comparison import align, compare
from util.evaluation.predictions import read_predictions
from util.evaluation.table import HEADLINES, PERCENT
from util.options.parser import SEED, PlainParser
from util.system.errors import InputError, run_script
from util.system.text import counted

# Of fewer patients all may favour one model by chance in more than 5 % of the cases (a sign test: 2 / 2 ** 5)
FEWEST = 6


def comparison_table(result: dict) -> str:
    """A line for each metric: A's, B's, the difference and its 95 % interval; shares in percent."""
    lines = [f"{'':<20}{'A':>10}{'B':>10}{'B - A':>10}   95 % interval"]
    for name, row in result["metrics"].items():
        scale, digits, unit = (100, 2, " %") if name in PERCENT else (1, 4, "")
        a, b, difference = (scale * row[key] for key in ("a", "b", "difference"))
        interval = " to ".join(f"{scale * edge:+.{digits}f}" for edge in row["interval"] or ()) or "-"
        lines.append(
            f"{HEADLINES[name]:<20}{f'{a:.{digits}f}{unit}':>10}{f'{b:.{digits}f}{unit}':>10}{difference:>+10.{digits}f}   "
            f"{interval}"
        )
    return "\n".join(lines)


def conclusion(result: dict) -> str:
    """One sentence: which is better in top-1, by how much, and whether that may be chance.

    The test decides where images are independent; where patients are known, the interval over patients does, unless they
    are fewer than :data:`FEWEST`.
    """
    row, p, patients = result["metrics"]["top1"], result["p"], result["patients"]
    difference = 100 * row["difference"]
    if difference:
        what = f"B's top-1 is {abs(difference):.2f} points {'higher' if difference > 0 else 'lower'} than A's"
    else:
        what = "A and B have the same top-1"
    test = "McNemar's exact test" + (", which takes images for independent," if patients else "")
    only_b = counted(result["only_b"], "image", "images")
    evidence = f"only B classifies {only_b} right, only A {result['only_a']}; {test} p = {p:.2g}"
    if row["interval"]:
        low, high = (100 * edge for edge in row["interval"])
        evidence = f"95 % interval {low:+.2f} to {high:+.2f}; {evidence}"
    if patients and patients < FEWEST:
        verdict = f"{counted(patients, 'patient is', 'patients are')} too few to tell whether this is chance"
    else:
        chance = low <= 0 <= high if patients else p >= 0.05
        verdict = "this may be chance" if chance else "chance alone seldom gives so much"
    return f"{what} ({evidence}): {verdict}."


def main() -> None:
    parser = PlainParser(description=__doc__.split("\n")[0])
    parser.add_argument("a", type=Path, metavar="A", help="an evaluation's folder, or its predictions.csv")
    parser.add_argument("b", type=Path, metavar="B", help="another one, of the same images")
    parser.add_argument("--ordered", action="store_true", help="classes are grades in this order: adds the quadratic kappa")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (default: 1000)")
    parser.add_argument("--seed", type=SEED, default=0, help="of the resamples (default: 0)")
    args = parser.parse_args()
    if args.resamples < 100:
        raise InputError(f"--resamples {args.resamples}: give at least 100")
    a = read_predictions(args.a)
    b = align(a, read_predictions(args.b))
    result = compare(a, b, args.ordered, args.resamples, args.seed)
    patients = f" of {result['patients']} patients, who are resampled" if result["patients"] else ""
    print(f"A: {args.a}\nB: {args.b}\n{result['images']} images{patients}\n")
    print(comparison_table(result))
    print(f"\n{conclusion(result)}")


if __name__ == "__main__":
    run_script(main)
