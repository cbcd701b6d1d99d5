"""A parser of command lines whose refusals are like all others: one line that says what is wrong, exit code 2.

For commands that take files and an action. The settings of a run are declared instead (`foundation.settings`), and
`foundation.settings.command_line` reads them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from foundation.digits import whole_number
from foundation.errors import UserError, near_names
from foundation.printable import brief

_SEE_HELP = "see --help"


class Parser(argparse.ArgumentParser):
    """argparse's parser, but wrong words are a `UserError`, and flags are never abbreviated."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Refuse a command line, as argparse words it."""
        flag, _, what = message.removeprefix("argument ").partition(": ")
        if what:
            raise UserError(what, field=flag.partition("/")[0], fix=_SEE_HELP)
        raise UserError(message, fix=_SEE_HELP)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse what is all known: each parser, those of subcommands among them, refuses what it does not know."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            raise self._unknown(unknown[0])
        return found, unknown

    def _unknown(self, word: str) -> UserError:
        flag = word.partition("=")[0]
        if not flag.startswith("--"):
            return UserError(f"{brief(word)} belongs to no flag", fix=_SEE_HELP)
        known = {name for name in self._option_string_actions if name.startswith("--")}
        doubled = {f"--{name[2:].replace('_', '-')}" for name in known if "_" in name}
        near = near_names(flag, known - doubled)
        return UserError("unknown flag", field=flag, fix=near if near.startswith("did you mean") else _SEE_HELP)


def whole(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """Return the type of a flag's value that is a whole number from `low` to `high`."""

    def read(text: str) -> int:
        value = whole_number(text, low, high)
        if value is None:
            said = f"{brief(text)} is not a whole number of at least {low}"
            raise argparse.ArgumentTypeError(
                f"{said} and at most {high}" if whole_number(text, low) is not None else said
            )
        return value

    return read
