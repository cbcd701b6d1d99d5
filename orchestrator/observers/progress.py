"""How far a run is: a bar on a terminal, a plain line now and then elsewhere; with both clocks and what is left.

    12.0 s: 4321 of 50000 requests done (8.6 %), simulated 432.1 s, running 41, waiting 3, KV in use 62.1 %, 2 min left

Wall-clock time decides when something is said, never what is simulated.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, TextIO

from foundation.records import dataclass
from orchestrator.engine.iterations import Iterations
from orchestrator.engine.records import Aborted, CompletedBatch, Rejected
from orchestrator.observers.interface import Observer, Run
from orchestrator.result import RunResult
from orchestrator.schedulers.interface import KVUsage

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_BAR_EVERY_S = 0.1
_BAR_WIDTH = 20
_FIRST_LINE_S, _LINE_EVERY_S = 2.0, 10.0


@dataclass(slots=True)
class State:
    """What is shown: requests done of `total`, simulated time, and the engines' requests and KV blocks."""

    total: int
    done: int = 0
    now_ns: int = 0
    running: int = 0
    waiting: int = 0
    used_blocks: int = 0
    total_blocks: int = 0

    def line(self, elapsed_s: float) -> str:
        """Return the state as one line, `elapsed_s` seconds of wall-clock time after the start."""
        share = 100 * self.done / self.total
        kv = 100 * self.used_blocks / self.total_blocks if self.total_blocks else 0.0
        left = f", {duration(elapsed_s * (self.total - self.done) / self.done)} left" if self.done else ""
        return (
            f"{elapsed_s:.1f} s: {self.done} of {self.total} requests done ({share:.1f} %), simulated "
            f"{self.now_ns / 1e9:.1f} s, running {self.running}, waiting {self.waiting}, KV in use {kv:.1f} %{left}"
        )


def duration(seconds: float) -> str:
    """Return a time as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class ProgressShown(Observer):
    """Shows progress on `stream`; see the module's docstring."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._state = State(1)
        self._born = self._due = monotonic()
        self._usage: dict[int, tuple[int, int, int, int]] = {}
        self._bar: tuple[RichProgress, TaskID] | None = None

    def begin(self, run: Run) -> None:
        """Start the clock."""
        self._state = State(run.source.count)
        self._born = monotonic()
        self._due = self._born + (0 if self._stream.isatty() else _FIRST_LINE_S)

    def batch(self, done: CompletedBatch) -> None:
        """Take the state after a batch, and show it when it is time."""
        self._take(done.engine, len(done.outcome.finished), done.end_ns, done.after)

    def iterations(self, told: Iterations) -> None:
        """Take the state after many iterations, and show it when it is time."""
        self._take(told.engine, len(told.finished), int(told.end_ns.max(initial=0)), told.after)

    def turned_away(self, record: Rejected | Aborted) -> None:
        """Count a request that is over without an answer."""
        self._state.done += 1

    def end(self, result: RunResult) -> None:
        """Take the bar away, before others say how the run ended."""
        self.close()

    def close(self) -> None:
        """Take the bar away, also after a defect: it hides the cursor."""
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None

    def _take(self, engine: int, finished: int, now_ns: int, after: KVUsage) -> None:
        state = self._state
        state.done += finished
        state.now_ns = max(state.now_ns, now_ns)
        used = after.total_blocks - after.free_blocks
        self._usage[engine] = (after.running, after.waiting, used, after.total_blocks)
        if monotonic() >= self._due:
            self._show()

    def _show(self) -> None:
        state, now = self._state, monotonic()
        sums = [sum(column) for column in zip(*self._usage.values(), strict=True)]
        state.running, state.waiting, state.used_blocks, state.total_blocks = sums
        if self._bar is None and self._stream.isatty():
            self._bar = _bar(self._stream, state.total)
        if self._bar is None:
            print(state.line(now - self._born), file=self._stream, flush=True)
            self._due = now + _LINE_EVERY_S
            return
        bar, task = self._bar
        text = state.line(now - self._born).partition("), ")[2]
        bar.update(task, completed=state.done, description=text)
        bar.refresh()
        self._due = now + _BAR_EVERY_S


def _bar(stream: TextIO, total: int) -> tuple[RichProgress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    fixed = Column(no_wrap=True)  # where there is little room, the words go over several lines, and nothing is cut
    columns = (
        BarColumn(_BAR_WIDTH, table_column=fixed),
        MofNCompleteColumn(table_column=fixed),
        TimeElapsedColumn(table_column=fixed),
        TextColumn("{task.description}", table_column=Column()),
    )
    progress = Progress(*columns, console=Console(file=stream), auto_refresh=False, transient=True)
    progress.start()
    return progress, progress.add_task("", total=total)
