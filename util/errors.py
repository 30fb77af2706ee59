"""One kind of error for what a user can mend, and one place that turns it into one line."""

import sys


class InputError(Exception):
    """Something the user gave (an option, a folder, a file) is wrong; the message names it and says what to do."""


class NonFiniteLoss(ArithmeticError):
    """The loss became infinite or not a number; the message says where and what to try."""


def run_script(main):
    """Call ``main()`` and end with one line on stderr for what a user can mend.

    Exit status 2 for an :class:`InputError`, 1 for a :class:`NonFiniteLoss`, 130 for Ctrl-C.
    """
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except NonFiniteLoss as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: --resume auto goes on after the last finished epoch", file=sys.stderr)
        sys.exit(130)
