"""Another script, run as a user runs it: its lines are passed on and kept, and signals that stop us stop it too."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from util.system.console import say
from util.system.errors import InputError, Stopped

ROOT = Path(__file__).resolve().parents[2]


def run(words: Sequence[str], title: str, log: Path, cwd: Path | None = None) -> None:
    """Run ``python WORDS`` to its end.

    SIGTERM and Ctrl-C are handed on, and waited for: a training saves before it ends.

    Args:
        words: script and options, or ``-m`` and a module.
        title: stands before each line that is passed on.
        log: a file to which the lines are added.
        cwd: the folder to run in (default: this one).

    Raises:
        Stopped: when a signal ended it.
        InputError: when it failed; with its last line.
    """
    asked: list[int] = []
    log.parent.mkdir(parents=True, exist_ok=True)
    last = ""
    with (
        open(log, "a", encoding="utf-8") as kept,
        # in a session of its own: Ctrl-C on a terminal would else reach it twice, which means "at once"
        subprocess.Popen(
            [sys.executable, *words],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process,
    ):

        def hand_on(number: int, _frame) -> None:
            asked.append(number)
            process.send_signal(number)

        previous = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for line in process.stdout or ():
                kept.write(line)
                kept.flush()
                last = line.strip() or last
                say(f"{title}: {line.rstrip()}")
            status = process.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
    if status and asked:
        raise Stopped(asked[0])
    if status:
        raise InputError(f"{title} ended with status {status}: {last.removeprefix('error: ')} (all it said: {log})")
