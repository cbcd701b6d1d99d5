"""``python -m external.astra_sim``: check the ASTRA-sim binary or image at hand, or serve a spool folder with one."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from external.astra_sim.settings import AstraSimSettings
from foundation.arguments import Parser
from foundation.commands import run_command


def main() -> int:
    """Run the command that `sys.argv` names; return its exit code."""
    arguments = _parser().parse_args()
    if arguments.command == "check":
        from external.astra_sim.check import check

        return check({name: value for name, value in vars(arguments).items() if value and name != "command"})
    return _serve(arguments)


def _parser() -> Parser:
    parser = Parser(prog="python -m external.astra_sim", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    checking = commands.add_parser(
        "check", help="say what was found, run a two-rank graph on it and compare with the embedded backend"
    )
    what = checking.add_mutually_exclusive_group()
    what.add_argument("--astra_sim", "--astra-sim", metavar="PATH", help="the binary (default: $ORRERY_ASTRA_SIM)")
    what.add_argument(
        "--astra_sim_image", "--astra-sim-image", metavar="NAME", help="a container image that holds a binary"
    )
    what.add_argument("--spool_dir", "--spool-dir", metavar="DIR", help="a spool folder that something serves")
    _add_timeout(checking, 60)
    serving = commands.add_parser("serve", help="run a binary on every graph that appears in a spool folder")
    serving.add_argument("--spool_dir", "--spool-dir", metavar="DIR", required=True, help="the folder to serve")
    which = serving.add_mutually_exclusive_group()
    which.add_argument("--astra_sim", "--astra-sim", metavar="PATH", help="the ASTRA-sim binary to run")
    which.add_argument(
        "--command",
        dest="program",
        metavar="COMMAND",
        help="any other command that takes the binary's flags (default: our own `python -m analytical`)",
    )
    _add_timeout(serving, AstraSimSettings.backend_timeout)
    return parser


def _add_timeout(parser: Parser, default: float) -> None:
    parser.add_argument(
        "--backend_timeout",
        "--backend-timeout",
        metavar="S",
        default=f"{default:g}",
        help="seconds that one run may take (default: %(default)s)",
    )


def _serve(arguments: argparse.Namespace) -> int:
    from external.astra_sim.factories import timeout_of
    from external.astra_sim.process import file_identity, find_binary
    from external.astra_sim.serve import CommandAnswerer, serve

    timeout_s = timeout_of(vars(arguments))
    if arguments.astra_sim:
        binary = find_binary(arguments.astra_sim)
        serve(arguments.spool_dir, CommandAnswerer([str(binary)], file_identity(binary), timeout_s))
    elif arguments.program is not None:
        serve(arguments.spool_dir, CommandAnswerer(_words(arguments.program), None, timeout_s))
    else:
        from external.astra_sim.answering_process import AnsweringProcess

        # It may be started anywhere, and a checkout that is not installed would not be found.
        root = str(Path(__file__).resolve().parents[2])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        serve(arguments.spool_dir, AnsweringProcess(timeout_s))
    return 0


def _words(command: str) -> list[str]:
    import shlex

    from foundation.errors import UserError

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"{command!r} is no command: {error}", field="--command") from None
    if not words:
        raise UserError("the command is empty", field="--command")
    return words


if __name__ == "__main__":
    sys.exit(run_command(main))
