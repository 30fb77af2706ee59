"""One kind of error for what a user can mend, and one place that turns it into one line."""

import sys


class InputError(Exception):
    """Something the user gave (an option, a folder, a file) is wrong; the message names it and says what to do."""


def run_script(main):
    """Call ``main()``; print an :class:`InputError` as one line on stderr and exit with status 2."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
