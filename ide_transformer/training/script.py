"""What every script does around its one call."""

import sys
from collections.abc import Callable

from ..errors import InputError


def main_of(call: Callable[[], None]) -> None:
    """Runs a script: input that cannot be used is printed without a traceback, status 2."""
    try:
        call()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
