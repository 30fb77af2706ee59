"""What the benchmarks share: where a run took place, which code it ran, its log, and tables in Markdown."""

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def revision() -> str:
    """The commit of this checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"


def ran_on(folder: Path) -> str:
    """Machine, number format and versions of a run, on which its figures depend."""
    about = json.loads((folder / "run.json").read_text())["environment"]
    machine = f"{about['cores']} x {about['processor']}" if about["device"] == "cpu" else about["device"]
    return f"{machine}, {about['precision']}, PyTorch {about['torch']}, timm {about['timm']}"


def read_lines(path: Path) -> list[dict]:
    """The epochs of a run's log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(header: Iterable[str], lines: list[list]) -> str:
    lines = [[*header], ["---" for _ in header], *lines]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
