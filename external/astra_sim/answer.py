"""Read what an ASTRA-sim analytical binary printed, and explain what it did not print."""

from __future__ import annotations

import re
import signal

from analytical.machine.limits import LONGEST_RUN_NS
from external.astra_sim.runner import Output, RunFailedError
from foundation.printable import printable

_FINISHED = re.compile(
    r"sys\[([0-9]{1,12})\] finished, ([0-9]{1,24}) cycles, exposed communication (-?[0-9]{1,24}) cycles"
)
_CRITICAL = re.compile(r"\[critical\]\s*(.*)")
_TAIL_LINES = 4
_LONGEST_LINE = 200
_NAMED_RANKS = 12

# What upstream says or does (left: a text of its output) and what it means for the user.
_HINTS = (
    ("only support 1-dim topology", "the congestion-aware binary takes networks of one dimension only"),
    ("!connected(id)", "the congestion-aware binary cannot make a Ring of 2 NPUs: use FullyConnected or Switch"),
    ("event_time > current_time", "an event fell on t = 0: give endpoint-delay or latency a positive value"),
    ("No collective implementation found", "system.json lacks the implementation list of a collective that is used"),
    ("No dependancy free nodes found", "a rank's graph holds no node that could start"),
    ("Remote memory access is not supported", "the memory file allows no memory expansion, but the graph moves memory"),
    ("No space left on device", "the disk is full: free space or name another folder with --work_dir"),
    ("unreleased nodes", "a rank waits for ever: a transfer or collective has no matching partner"),
)


def read_cycles(output: Output, ranks: int) -> dict[int, tuple[int, int]]:
    """Return ``{rank: (finish ns, exposed ns)}`` of ranks 0 .. `ranks` - 1; lines come in finish order.

    Raises `RunFailedError` for a non-zero exit, for ranks without a finished line (a deadlock exits 0 upstream) and for
    a cycle count that is no duration.
    """
    if output.exit_code != 0:
        raise RunFailedError(f"it ended with {_ending(output.exit_code)}{_explained(output)}")
    cycles = {int(rank): (int(finish), int(exposed)) for rank, finish, exposed in _FINISHED.findall(output.stdout)}
    missing = [rank for rank in range(ranks) if rank not in cycles]
    if missing:
        raise RunFailedError(
            f"it exited 0, but {_ranks(missing)} printed no finished line (waiting for ever){_explained(output)}"
        )
    for rank, (finish, exposed) in cycles.items():
        if finish > LONGEST_RUN_NS or abs(exposed) > LONGEST_RUN_NS:
            raise RunFailedError(
                f"rank {rank} finished after {finish} cycles, which is no duration: a compute node without operations "
                "or a bandwidth of 0"
            )
    return {rank: cycles[rank] for rank in range(ranks)}


def _ending(exit_code: int) -> str:
    if exit_code < 0:
        try:
            return f"signal {signal.Signals(-exit_code).name}"
        except ValueError:
            return f"signal {-exit_code}"
    if exit_code > 128 and exit_code - 128 in signal.Signals.__members__.values():
        return f"exit code {exit_code} ({signal.Signals(exit_code - 128).name})"
    return f"exit code {exit_code}"


def _ranks(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    shown = ", ".join(map(str, ranks[:_NAMED_RANKS]))
    return f"ranks {shown}{f' and {len(ranks) - _NAMED_RANKS} more' if len(ranks) > _NAMED_RANKS else ''}"


def _explained(output: Output) -> str:
    """What the output says: a known cause, else the critical lines, else the last lines of stderr or stdout."""
    everything = f"{output.stdout}\n{output.stderr}"
    for text, meaning in _HINTS:
        if text in everything:
            return f": {meaning} (it said {_line_with(text, everything)!r})"
    critical = list(dict.fromkeys(_CRITICAL.findall(output.stdout)))
    lines = critical or output.stderr.strip().splitlines() or _telling(output.stdout)
    tail = " | ".join(map(_shown, lines[-_TAIL_LINES:]))
    return f": {tail}" if tail else ", and it said nothing of the cause"


def _telling(stdout: str) -> list[str]:
    """The lines that are not a finished rank's."""
    usual = ("[statistics]", "] Exiting", " finished, ", "[system::topology")
    return [line for line in stdout.strip().splitlines() if not any(text in line for text in usual)]


def _line_with(text: str, everything: str) -> str:
    return _shown(next(line for line in everything.splitlines() if text in line))


def _shown(line: str) -> str:
    """Return a line of another program's as an error may quote it: without control characters, and cut."""
    return printable(line.strip()[:_LONGEST_LINE])
