"""The run as a timeline in the trace-event format, for Perfetto (ui.perfetto.dev) or chrome://tracing.

Process 1 is the engine: a track a pipeline stage, a slice a batch (a run of like iterations is one slice), and
counters. Process 2 is the requests: each takes the lowest free slot from its arrival to its end, and is cut into
waiting, prefill and decode. Where engines hand requests over, the last process is the KV cache that goes from one to
the other, in slots likewise. Times are simulated. Events are written one by one, track after track, in order of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from heapq import heappop, heappush
from typing import IO

import numpy as np
from numpy.typing import NDArray

from converters.trace_events import Slice, counter, mark, process_name, span, thread_name, write_events
from foundation.records import dataclass
from orchestrator.engine.records import Transferred
from orchestrator.observers.history import DECODE, History, kind_of
from orchestrator.result import RunResult
from orchestrator.summary import Summary

IntArray = NDArray[np.int64]
ENGINE, REQUESTS = 1, 2
MOST_REQUESTS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Lives:
    """Requests as columns ``[n]`` (ns), in order of arrival, ties by id; a moment that was not reached is -1."""

    id: IntArray
    input: IntArray
    output: IntArray
    arrival: IntArray
    queued: IntArray
    scheduled: IntArray
    first_token: IntArray
    end: IntArray

    @classmethod
    def of(cls, result: RunResult) -> Lives:
        """Return the finished requests, and those that an engine saw but had not finished when the run ended."""
        finished, open_now = result.columns, result.unfinished
        columns = {one.name: np.concatenate((finished[one.name], open_now[one.name])) for one in fields(cls)}
        order = np.lexsort((columns["id"], columns["arrival"]))
        return cls(**{name: values[order] for name, values in columns.items()})


def write_chrome_trace(stream: IO[str], title: str, result: RunResult, history: History) -> None:
    """Write the timeline to `stream`. What is left out to bound the file is said in `otherData` and as a mark on it."""
    lives = Lives.of(result)
    batches = {number: engine.columns() for number, engine in sorted(history.engines.items())}
    notes = _notes(result.summary, history, sum(len(kept["start"]) for kept in batches.values()), len(lives.id))
    other = {"title": title, "complete": result.summary.complete, "error": result.summary.error, "notes": notes}
    write_events(stream, _events(lives, batches, result, history, notes), unit="ms", other=other)


def _events(
    lives: Lives, batches: dict[int, dict[str, IntArray]], result: RunResult, history: History, notes: list[str]
) -> Iterator[str]:
    """Yield every event as JSON text."""
    several = result.summary.engines > 1
    for number in range(result.summary.engines):
        yield process_name(_process(number), f"engine {number}" if several else "engine")
    yield process_name(REQUESTS, "requests")
    for note in notes:
        yield mark(note, ENGINE)
    for number, kept in batches.items():
        yield from _engine_events(_process(number), kept, history.engines[number].stage_spans())
    yield from _request_slices(lives, result.time.makespan_ns)
    yield from _transfer_slices(history.transfers, REQUESTS + result.summary.engines)


def _process(engine: int) -> int:
    """Return the process of an engine: the first one's, and those after the requests'."""
    return ENGINE if engine == 0 else REQUESTS + engine


def _engine_events(process: int, batches: dict[str, IntArray], spans: list[tuple[IntArray, IntArray]]) -> Iterator[str]:
    """Yield a track a pipeline stage with its slices, and the counters."""
    descriptions = list(_describe(batches))
    for stage, (begins, ends) in enumerate(spans):
        yield thread_name(process, stage + 1, f"stage {stage}" if len(spans) > 1 else "iterations")
        for begin, end, said in zip(begins.tolist(), ends.tolist(), descriptions, strict=True):
            yield said.at((process, stage + 1), begin, end)
    yield from _counters(process, batches)


def _describe(batches: dict[str, IntArray]) -> Iterator[Slice]:
    """Yield what the slices of each batch say, the same on every stage."""
    names = ("iteration", "steps", "requests", "prefills", "prompt_tokens", "evicted_bytes", "reloaded_bytes")
    rows = zip(*(batches[name].tolist() for name in names), strict=True)
    for iteration, steps, requests, prefills, tokens, evicted, reloaded in rows:
        kind = kind_of(prefills, requests)
        work = f"{requests} requests" if kind == DECODE else f"{requests} requests, {tokens} prompt tokens"
        name = f"{kind} x {steps} steps, {work}" if steps > 1 else f"{kind}, {work}"
        arguments: dict[str, int] = {"first iteration": iteration, "steps": steps, "requests": requests}
        if prefills:
            arguments |= {"requests in prefill": prefills, "prompt tokens": tokens}
        if evicted or reloaded:
            arguments |= {"KV bytes evicted": evicted, "KV bytes reloaded": reloaded}
        yield Slice(name, kind, arguments)


def _counters(process: int, batches: dict[str, IntArray]) -> Iterator[str]:
    """Yield requests and KV use (%) as counters, an event a change; between batches nothing is in use."""
    start, end = batches["start"], batches["end"]
    idle = np.append(start[1:] > np.maximum.accumulate(end)[:-1], True) if len(start) else np.zeros(0, dtype=bool)
    used = 100.0 * batches["used_blocks"] / np.maximum(batches["total_blocks"], 1)
    for name, unit, moments, values in (
        ("running", "requests", start, batches["running"]),
        ("waiting", "requests", start, batches["waiting"]),
        ("KV cache in use", "%", batches["last_step_start"], used),
    ):
        before: float | None = None
        rows = zip(moments.tolist(), values.tolist(), end.tolist(), idle.tolist(), strict=True)
        for moment, value, ended, then_idle in rows:
            if value != before:
                yield counter(f"{name} ({unit})", process, moment, value)
            before = value
            if then_idle and value:
                yield counter(f"{name} ({unit})", process, ended, 0)
                before = 0


def _request_slices(lives: Lives, run_end: int) -> Iterator[str]:
    """Yield a slice a request on the lowest slot that is free, and within it one a phase."""
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    slots = 0
    columns = (
        lives.id,
        lives.input,
        lives.output,
        lives.arrival,
        lives.queued,
        lives.scheduled,
        lives.first_token,
        lives.end,
    )
    rows = zip(*(column[:MOST_REQUESTS].tolist() for column in columns), strict=True)
    for identity, prompt, output, arrival, queued, scheduled, first, finished in rows:
        while busy and busy[0][0] <= arrival:
            heappush(free, heappop(busy)[1])
        if not free:
            slots += 1
            heappush(free, slots)
            yield thread_name(REQUESTS, slots, f"slot {slots}")
        slot = heappop(free)
        end = finished if finished >= 0 else max(run_end, arrival)
        heappush(busy, (end, slot))
        name = f"request {identity}" if finished >= 0 else f"request {identity} (unfinished)"
        arguments = {"prompt tokens": prompt, "output tokens": output, "seen by the engine (ns)": queued}
        yield span(name, "request", (REQUESTS, slot), arrival, end, arguments)
        phases = (("waiting", arrival, scheduled), ("prefill", scheduled, first), ("decode", first, end))
        for phase, begin, until in phases:
            if begin >= 0 and begin < (until if until >= 0 else end):
                yield span(phase, phase, (REQUESTS, slot), begin, until if until >= 0 else end)


def _transfer_slices(transfers: Sequence[Transferred], process: int) -> Iterator[str]:
    """Yield a slice a transfer of KV cache, from when it sets out until it is there, on the lowest free slot."""
    if transfers:
        yield process_name(process, "KV transfers")
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    for one in sorted(transfers, key=lambda transfer: (transfer.began_ns, transfer.request.id)):
        while busy and busy[0][0] <= one.began_ns:
            heappush(free, heappop(busy)[1])
        if not free:
            heappush(free, len(busy) + 1)
            yield thread_name(process, len(busy) + 1, f"slot {len(busy) + 1}")
        slot = heappop(free)
        heappush(busy, (one.came_ns, slot))
        name = f"request {one.request.id}: engine {one.source} to {one.target}"
        arguments = {"bytes": one.bytes, "wanted since (ns)": one.asked_ns}
        yield span(name, "KV transfer", (process, slot), one.began_ns, one.came_ns, arguments)


def _notes(summary: Summary, history: History, batches: int, requests: int) -> list[str]:
    notes = [] if summary.complete else [f"incomplete: the run ended early: {summary.error}"]
    if batches < history.batches:
        notes.append(f"only the first {batches} of {history.batches} batches are shown")
    if len(history.transfers) < history.all_transfers:
        notes.append(f"only the first {len(history.transfers)} of {history.all_transfers} KV transfers are shown")
    if requests > MOST_REQUESTS:
        notes.append(f"only the first {MOST_REQUESTS} of {requests} requests, by arrival, are shown")
    return notes
