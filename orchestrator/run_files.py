"""``python -m orchestrator.run_files FILE...``: simulate run files one after another; print one table of them all."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.arguments import Parser
from foundation.commands import run_command
from foundation.errors import SimulationError, UserError
from foundation.files import atomic_write
from foundation.printable import printable

if TYPE_CHECKING:
    from foundation.settings.reading import Layers
    from orchestrator.settings.specification import RunSpec
    from orchestrator.summary import Summary

COLUMNS = (
    "run",
    "requests",
    "TTFT ms",
    "TTFT P99",
    "TPOT ms",
    "TPOT P99",
    "E2E ms",
    "E2E P99",
    "requests/s",
    "tokens/s",
    "comm %",
)
_NONE = "-"


def parser() -> Parser:
    """Return the command line's grammar."""
    result = Parser(
        prog="python -m orchestrator.run_files",
        description="Simulate run files one after another and print a row of each: mean and 99th percentile of TTFT, "
        "TPOT and end-to-end latency, throughput, and the share of exposed communication. A run that names "
        "an output leaves its files as it would alone.",
    )
    result.add_argument("files", metavar="FILE", nargs="+", type=Path, help="run files (YAML or JSON)")
    result.add_argument("--table", metavar="CSV", type=Path, help="write the table to this file, too")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 where a run could not be completed."""
    options = parser().parse_args(arguments)
    # Imported late: --help must not wait for numpy.
    from orchestrator.observers.tables import print_table
    from orchestrator.settings.places import located_in

    runs = _read(options.files)
    rows, failed = [], False
    for path, (spec, layers) in runs.items():
        try:
            with located_in(layers):
                rows.append(row(path.stem, simulated(spec)))
        except SimulationError as error:
            print(printable(f"error: {path}: {error}"), file=sys.stderr, flush=True)
            rows.append((path.stem, *[_NONE] * (len(COLUMNS) - 1)))
            failed = True
    print_table("Runs", COLUMNS, rows, sys.stdout)
    if options.table is not None:
        with atomic_write(options.table) as stream:
            csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *rows])
    return 1 if failed else 0


def _read(paths: Sequence[Path]) -> dict[Path, tuple[RunSpec, Layers]]:
    """Read all files before anything is simulated: what is wrong with one is told at once."""
    from foundation.settings.reading import read
    from orchestrator.run_job import check_writable
    from orchestrator.settings.specification import RunCommand, given_by

    layers = {path: given_by(["--settings", str(path)]) for path in paths}
    found = {path: (read(RunCommand, given).run, given) for path, given in layers.items()}
    for spec, _ in found.values():
        check_writable(spec)
    return found


def simulated(spec: RunSpec) -> Summary:
    """Simulate a run, write its files, and return its summary; files that cannot be written are a `UserError`."""
    from orchestrator.run_job import result_files
    from orchestrator.simulation import Simulation

    files = result_files(spec)
    summary = Simulation(spec, [] if files is None else [files]).run().summary
    if files is not None and files.failed:
        raise UserError("its files could not be written", path=spec.output.output, fix="name another place")
    return summary


def row(name: str, summary: Summary) -> tuple[str, ...]:
    """Return a run's cells, in the order of `COLUMNS`."""
    from orchestrator.pricing.classes import COMMUNICATION

    spent = summary.simulated_time_s
    busy = sum(seconds for what, seconds in spent.items() if what not in ("waiting", "idle"))
    share = f"{100 * spent.get(COMMUNICATION, 0.0) / busy:.1f}" if busy else _NONE
    latencies = [summary.latency(latency) for latency in ("ttft_ms", "tpot_ms", "latency_ms")]
    cells = [f"{one[figure]:.3f}" if one else _NONE for one in latencies for figure in ("mean", "p99")]
    rates = [_NONE if one is None else f"{one:.2f}" for one in (summary.requests_per_s, summary.generated_tokens_per_s)]
    return (printable(name), str(summary.finished_requests), *cells, *rates, share)


if __name__ == "__main__":
    sys.exit(run_command(main))
