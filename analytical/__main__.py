"""``python -m analytical``: stands in for ASTRA-sim's AstraSim_Analytical_Congestion_{Unaware,Aware}."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from analytical.command_line import command_help, read_command
from foundation.commands import run_process


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when every rank has finished. Raises `OrreryError`, which says what is wrong."""
    arguments = sys.argv[1:] if argv is None else argv
    if any(argument in ("-h", "--help") for argument in arguments):
        print(command_help())
        return 0
    command = read_command(arguments)
    if command.output.serve:
        from analytical.serving import serve

        serve(sys.stdin, sys.stdout)
        return 0
    import gc

    from analytical.command import Simulator

    gc.disable()  # nothing that the run makes is garbage in cycles, and the process ends with it
    Simulator().run(command, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(run_process(main))
