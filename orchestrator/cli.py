"""The command line of the main job: reads flags, answers `--help`, hands the values to `orchestrator.run`.

Everything heavy is imported after the flags are read, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from foundation.commands import run_command
from foundation.errors import UserError
from orchestrator.flags import FLAGS


class FlagParser(argparse.ArgumentParser):
    """An argument parser whose complaints are our one-line errors."""

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError` instead of printing the usage."""
        raise UserError(message.removeprefix("argument "), fix="see --help")


def parser() -> FlagParser:
    """Return the parser: flags in groups, values as text (they are checked all at once by `orchestrator.config`)."""
    result = FlagParser(
        prog="main.py",
        usage="main.py [FLAGS]",
        description="Simulate one LLM serving run: requests in, a table of latencies out.",
        epilog="Hyphens may stand for underscores in flags. GB is 1e9 bytes unless said otherwise.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for flag in FLAGS:
        if flag.group not in groups:
            groups[flag.group] = result.add_argument_group(flag.group)
        text = flag.help.replace("%", "%%")
        if flag.is_switch:
            groups[flag.group].add_argument(f"--{flag.name}", action="store_true", help=text)
            continue
        shown = flag.shown_default or ("none" if flag.default is None else f"{flag.default}")
        groups[flag.group].add_argument(
            f"--{flag.name}",
            metavar="{" + ",".join(flag.choices) + "}" if flag.choices else flag.name.upper(),
            help=f"{text} (default: {shown})",
        )
    return result


def underscored(arguments: Sequence[str]) -> list[str]:
    """Return `arguments` with hyphens inside flag names turned into underscores; values stay as they are."""
    result = []
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            name, equals, value = argument[2:].partition("=")
            argument = f"--{name.replace('-', '_')}{equals}{value}"
        result.append(argument)
    return result


def simulate(arguments: Sequence[str]) -> int:
    """Run the main job with the given command-line arguments; return the exit code."""
    values = vars(parser().parse_args(underscored(arguments)))
    from orchestrator.config import RunConfig
    from orchestrator.run import run

    run(RunConfig.from_flags(values), sys.stdout)
    return 0


def main() -> int:
    """Entry point of `main.py` and of the installed `orrery` command."""
    return run_command(lambda: simulate(sys.argv[1:]))
