"""What the main job says: what is simulated, notes, lines of intervals and iterations where asked, and the result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from foundation.printable import printable
from orchestrator.engine.records import CompletedBatch
from orchestrator.introduction import introduction
from orchestrator.observers.files import ResultFiles
from orchestrator.observers.interface import Observer, Run
from orchestrator.observers.intervals import Interval
from orchestrator.observers.tables import print_summary
from orchestrator.result import RunResult, TurnedAway
from trace_gen.batch_shape import KVTransfer

_MOST_LISTED = 5


class Console(Observer):
    """Introduces a run on `stream` and ends with its summary and the names of its files."""

    def __init__(self, stream: TextIO, files: ResultFiles | None = None) -> None:
        self._stream = stream
        self._files = files
        self._said: list[str] = []

    def say(self, text: str) -> None:
        """Print a line and flush, so that a reader of a pipe sees it at once."""
        print(printable(text), file=self._stream, flush=True)

    def begin(self, run: Run) -> None:
        """Say what is simulated."""
        self._said = introduction(run)
        for line in self._said:
            self.say(line)

    def end(self, result: RunResult) -> None:
        """Print notes, the tables, whom was turned away, and where everything is."""
        print_summary(result.summary, result.wall_ms, self._stream)
        lines = [*_turned_away(result.turned_away), *(f"note: {note}" for note in result.notes)]
        lines = [line for line in lines if line not in self._said]
        if result.backend:
            counts = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in result.backend.items())
            lines.append(f"backend: {counts}")
        if result.stopped is not None:
            lines.append(f"stopped early: {result.stopped}")
        if lines or self._files is not None:
            print(file=self._stream)
        for line in [*lines, *(_file_lines(self._files) if self._files is not None else ())]:
            self.say(line)


class IntervalLines(Observer):
    """Prints a line an interval."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def interval(self, interval: Interval) -> None:
        """Print throughput and state."""
        print(
            f"[{interval.end_ns / 1e9:.3f} s] prompt {interval.prompt_per_s:.1f} tokens/s, "
            f"generation {interval.generation_per_s:.1f} tokens/s, running {interval.running}, "
            f"waiting {interval.waiting}, KV in use {100 * interval.kv_used:.1f} %",
            file=self._stream,
            flush=True,
        )


class IterationLines(Observer):
    """Prints a line an iteration, and who has finished."""

    def __init__(self, stream: TextIO, *, several: bool) -> None:
        self._stream = stream
        self._several = several

    def batch(self, done: CompletedBatch) -> None:
        """Print the iterations of a batch, each with its own number and times."""
        batch = done.batch
        if not batch.requests:
            return
        whose = f"engine {done.engine} " if self._several else ""
        work = f"{len(batch.requests)} requests, {int(batch.new_tokens.sum())} tokens"
        if prompts := batch.prompt_work()[1]:
            work += f" ({prompts} of prompts)"
        ends = done.ends_ns.tolist()
        begins = [done.start_ns, *ends[:-1]] if len(done.stages_ns) == 1 else done.stages_ns[:, 0, 0].tolist()
        for step, (serial, begin, end) in enumerate(zip(done.serials.tolist(), begins, ends, strict=True)):
            moved = "" if step else _moved(batch.kv_evictions, "evicted") + _moved(batch.kv_loads, "reloaded")
            times = f"{begin / 1e6:.6f} ms + {(end - begin) / 1e6:.6f} ms"
            print(f"{whose}iteration {serial}: {times}, {work}{moved}", file=self._stream)
        if finished := sorted(request.id for request in done.outcome.finished):
            print(f"  finished: {', '.join(map(str, finished))}", file=self._stream)


def _moved(transfers: tuple[KVTransfer, ...], verb: str) -> str:
    return "".join(
        f"; {verb} request {transfer.request_id} ({transfer.blocks} blocks, {transfer.bytes / 1e6:.3f} MB)"
        for transfer in transfers
    )


def _turned_away(turned_away: Iterable[TurnedAway]) -> list[str]:
    """Return a line for each of the first few, and how many more there are."""
    listed = [f"request {one.id} was not served: {one.reason}" for one in turned_away]
    more = len(listed) - _MOST_LISTED
    return [*listed[:_MOST_LISTED], *((f"... and {more} more",) if more > 0 else ())]


def _file_lines(files: ResultFiles) -> list[str]:
    """Return where the files are; the report, for people, comes last."""
    report = [path for path in files.written if path.suffix == ".html"]
    others = [path for path in files.written if path not in report]
    lines = [f"note: {note}" for note in files.notes]
    if others:
        names = ", ".join(path.name for path in others)
        lines.append(f"files in {others[0].parent}: {names}")
    return [*lines, *(f"report: {path}" for path in report)]
