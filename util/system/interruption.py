"""SIGTERM and Ctrl-C ask a run to stop: it finishes the step, saves, and ends. A second Ctrl-C stops at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from util.system import distributed
from util.system.errors import Stopped

_asked: int | None = None  # the signal that asked this process to stop


def _ask(number: int, _frame) -> None:
    global _asked
    if number == signal.SIGINT and _asked == signal.SIGINT:
        raise KeyboardInterrupt
    _asked = number
    again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
    os.write(2, f"\n{signal.Signals(number).name}: saving after this step{again}\n".encode())  # print may be under way


@contextmanager
def watch() -> Iterator[None]:
    """In this context SIGTERM and the first Ctrl-C do not end the process: :func:`signal_received` tells of them."""
    global _asked
    _asked = None
    previous = {number: signal.signal(number, _ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def signal_received() -> int:
    """The signal that asked this process to stop, or 0."""
    return _asked or 0


def stop_if_asked() -> None:
    """Raise :class:`Stopped` where a signal asked for it. (Several processes stop together instead, after a step.)"""
    if signal_received() and distributed.world_size() == 1:
        raise Stopped(signal_received())


def leave_to_parent(_worker: int) -> None:
    """For a loader's worker: what reaches the whole process group is the main process's to answer; it may need a batch yet.

    Ctrl-C is ignored. SIGTERM ends the worker only when its parent sends it, as Python does when the parent ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # not on every system
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = os.getppid()

    def answer() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=answer, daemon=True).start()
