"""Errors that a user can mend, and one place that turns each into one line."""

import errno
import io
import os
import signal
import sys

from util.system import lock
from util.system.text import one_line


class InputError(Exception):
    """Something the user gave (an option, a folder, a file) is wrong; the message names it and says what to do."""


class NonFiniteLoss(ArithmeticError):
    """The loss became infinite or not a number; the message says where and what to try."""


class DiskError(OSError):
    """A checkpoint could not be written; the message says where, why, and what is left."""


class Incomplete(Exception):
    """The work is done but for some files; the message says how many, and where they are listed."""


class Stopped(Exception):
    """Training was asked to stop by the signal ``number``; nothing is half done."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number  # the exit status by convention


DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def run_script(main):
    """Call ``main()`` and end with one line on stderr for what a user can mend.

    Exit status 2 for an :class:`InputError`; 1 for a :class:`NonFiniteLoss`, a full or failing disk, and work that is
    :class:`Incomplete`; 143 and 130 where SIGTERM and Ctrl-C stopped the run, and 141 where what reads its output ended, as
    ``| head`` does. Folders that were locked are free again.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_DFL:  # as scripts set it while libraries load
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no name that cannot be printed ends a run
    try:
        main()
    except InputError as error:
        end(2, f"error: {error}")
    except (NonFiniteLoss, DiskError, Incomplete) as error:
        end(1, f"error: {error}")
    except BrokenPipeError:
        if not nobody_reads():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing is said at exit either
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        end(1, f"error: {error}: free space and start again")
    except Stopped as stop:
        sys.exit(stop.status)
    except KeyboardInterrupt as stop:
        end(130, ": ".join(["interrupted", *map(str, stop.args)]))
    finally:
        lock.release()
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGINT, before)


def nobody_reads() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False


def end(status: int, line: str) -> None:
    print(one_line(line), file=sys.stderr)
    sys.exit(status)
