"""Errors that a user can mend, and one place that turns each into one line."""

import errno
import signal
import sys


class InputError(Exception):
    """Something the user gave (an option, a folder, a file) is wrong; the message names it and says what to do."""


class NonFiniteLoss(ArithmeticError):
    """The loss became infinite or not a number; the message says where and what to try."""


class DiskError(OSError):
    """A checkpoint could not be written; the message says where, why, and what is left."""


class Incomplete(Exception):
    """The work is done but for some files; the message says how many, and where they are listed."""


class Stopped(Exception):
    """Training was asked to stop by ``signal``; nothing is half done."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number  # the exit status by convention


DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def run_script(main):
    """Call ``main()`` and end with one line on stderr for what a user can mend.

    Exit status 2 for an :class:`InputError`; 1 for a :class:`NonFiniteLoss`, a full or failing disk, and work that is
    :class:`Incomplete`; 143 and 130 where SIGTERM and Ctrl-C stopped the run.
    """
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (NonFiniteLoss, DiskError, Incomplete) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        print(f"error: {error}; checkpoints are intact: free space, then --resume auto", file=sys.stderr)
        sys.exit(1)
    except Stopped as stop:
        sys.exit(stop.status)
    except KeyboardInterrupt:
        print("interrupted: --resume auto goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
