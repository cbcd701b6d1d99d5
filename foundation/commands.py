"""How a command line ends: one clear line on stderr and the exit code that belongs to the error."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from foundation.errors import OrreryError
from foundation.printable import printable

DEPENDENCIES = frozenset({"google", "numpy", "rich", "yaml"})
"""What every installation has; where one is missing, it is not our Python that runs."""


OBJECTS_A_COLLECTION = 50_000
"""Python looks for garbage in cycles, of which there is next to none, after every 700 new objects: a twentieth of the
time of a short run goes there."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came (`docker stop`, a batch system's limit): what an interrupt saves, it saves too."""


def run_process(main: Callable[[], int | None]) -> int:
    """`run_command` where the process ends with it: all that is left is not searched for garbage once more."""
    code = run_command(main)
    gc.freeze()
    return code


def run_command(main: Callable[[], int | None]) -> int:
    """Run `main` and return its exit code; an explained error becomes one line on stderr.

    2 is for wrong input, 1 for a simulation that cannot be completed, 130 for an interrupt, 143 for SIGTERM.
    """
    _print_any_name()
    in_charge = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, _terminate) if in_charge else None
    often = gc.get_threshold()
    gc.set_threshold(OBJECTS_A_COLLECTION, *often[1:])
    try:
        return main() or 0
    except OrreryError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in DEPENDENCIES:
            raise
        print(_missing(error.name), file=sys.stderr)
        return 2
    except Terminated:
        print("terminated", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`); what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    finally:
        gc.set_threshold(*often)
        if in_charge:
            signal.signal(signal.SIGTERM, previous)


def _print_any_name() -> None:
    """Let file names that are not the terminal's text be printed, escaped, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _missing(module: str) -> str:
    ours = Path(__file__).resolve().parents[1] / ".venv" / "bin" / "python"
    right = f"run {ours}" if ours.exists() else "./setup.sh makes .venv/bin/python, which has it"
    return f"error: {sys.executable} has no {module}, which Orrery needs; {right}"


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated("terminated")
