"""The command line: the first word names a command (`orchestrator.commands`); without one it is the main job."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from foundation.commands import run_process
from orchestrator.commands import commands


def dispatch(arguments: Sequence[str]) -> int:
    """Run the command that the first word names, or the main job; return the exit code."""
    named = bool(arguments) and not arguments[0].startswith("-")
    command = commands.get(arguments[0] if named else "run")
    return command.run(arguments[1:] if named else arguments)


def main() -> int:
    """Entry point of `main.py` and of the installed `orrery` command."""
    return run_process(lambda: dispatch(sys.argv[1:]))
