"""How a command line ends: one clear line on stderr and the exit code that belongs to the error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from foundation.errors import OrreryError


def run_command(main: Callable[[], int | None]) -> int:
    """Run `main` and return its exit code; an explained error becomes one line on stderr.

    2 is for wrong input, 1 for a simulation that cannot be completed, 130 for an interrupt.
    """
    try:
        return main() or 0
    except OrreryError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`); what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
