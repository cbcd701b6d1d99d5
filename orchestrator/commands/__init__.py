"""What `orrery` does besides the main job, a module each: `orrery NAME [FLAGS]`, or `python main.py NAME [FLAGS]`.

To add a command, write a module here that registers one. Every module of this package is imported for `--help`, so
what is heavy is imported by the command when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foundation.records import dataclass
from foundation.registry import Registry


@dataclass(frozen=True, slots=True)
class Command:
    """What a command does, in one line, and the function that does it: arguments -> exit code."""

    summary: str
    run: Callable[[Sequence[str]], int]


commands: Registry[Command] = Registry("command", package="orchestrator.commands")
