"""``python -m analytical``: stands in for ASTRA-sim's AstraSim_Analytical_Congestion_{Unaware,Aware}."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from foundation.commands import run_command
from foundation.errors import OrreryError, SimulationError

DESCRIPTION = """\
Simulate Chakra execution graphs as ASTRA-sim's analytical backend does, cycle for cycle (1 cycle = 1 ns), with the
same flags and the same lines: for every rank, in the order in which they finish, its cycles, its exposed communication
and its statistics. Where ASTRA-sim hangs, crashes or answers nonsense, this says why and exits with 1.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m analytical",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    files = parser.add_argument_group("input files")
    _add(files, "--workload-configuration", "PREFIX", "the graphs: PREFIX.<rank>.et, one a rank", required=True)
    _add(files, "--system-configuration", "FILE", "system.json", required=True)
    _add(files, "--remote-memory-configuration", "FILE", "memory.json", required=True)
    _add(files, "--network-configuration", "FILE", "network.yml", required=True)
    text = 'communicator groups, JSON {"1": [ranks]}; a name that contains "empty" means none (default: empty)'
    _add(files, "--comm-group-configuration", "FILE", text, default="empty")
    model = parser.add_argument_group("model")
    _add(
        model,
        "--congestion",
        "{unaware,aware}",
        "messages pass each other freely, or queue for links, in one dimension (default: unaware)",
        default="unaware",
    )
    _add(model, "--num-queues-per-dim", "N", "queues for collectives a dimension (default: 1)", default="1")
    _add(model, "--injection-scale", "X", "factor on endpoint-delay (default: 1)", default="1")
    _add(
        model,
        "--rendezvous-protocol",
        "{true,false}",
        "a message waits for 8192 bytes from its receiver (default: false)",
        default="false",
        nargs="?",
        const="true",
    )
    _add(
        model,
        "--metadata",
        "{refuse,skip}",
        "METADATA nodes, as in traces of frameworks: refuse them, for ASTRA-sim aborts, or leave them out "
        "(default: refuse)",
        default="refuse",
    )
    output = parser.add_argument_group("output")
    _add(output, "--timeline", "FILE", "write every node's start and end as a Chrome trace (for Perfetto)")
    for ignored in ("--logging-configuration", "--logging-folder", "--comm-scale", "--compute-scale"):
        _add(output, ignored, "X", "accepted and without effect (ASTRA-sim's own, of which the scales do nothing)")
    return parser


def _add(group: argparse._ArgumentGroup, flag: str, metavar: str, text: str, **options: object) -> None:
    """Add a flag in both spellings, with hyphens and with underscores."""
    spellings = dict.fromkeys((flag, "--" + flag[2:].replace("-", "_")))
    group.add_argument(*spellings, metavar=metavar, help=text, **options)  # type: ignore[arg-type]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when every rank has finished, 1 with one line on stderr otherwise."""
    arguments = build_parser().parse_args(argv)
    import gc

    from analytical.command import simulate_files

    gc.disable()  # nothing that the run makes is garbage in cycles, and the process ends with it
    try:
        simulate_files(arguments, sys.stdout)
    except OrreryError as error:
        raise SimulationError(str(error)) from error  # like ASTRA-sim's own refusals, a wrong file exits with 1
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
