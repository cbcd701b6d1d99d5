"""The run as a timeline in the trace-event format, for Perfetto (ui.perfetto.dev) or chrome://tracing.

Process 1 is the engine: a track a pipeline stage, a slice a batch (a run of like iterations is one slice), and
counters. Process 2 is the requests: each takes the lowest free slot from its arrival to its end, and is cut into
waiting, prefill and decode. Where engines hand requests over, the last process is the KV cache that goes from one to
the other, in slots likewise. Times are simulated. Events are written track after track, in order of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from heapq import heappop, heappush
from typing import IO

import numpy as np
from numpy.typing import NDArray

from converters.trace_events import counters, mark, process_name, span, spans, thread_name, write_events
from foundation.records import dataclass
from orchestrator.engine.records import Transferred
from orchestrator.observers.history import History, kind_of
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


def _engine_events(
    process: int, batches: dict[str, IntArray], passed: list[tuple[IntArray, IntArray]]
) -> Iterator[str]:
    """Yield a track a pipeline stage with its slices, and the counters."""
    for stage, (begins, ends) in enumerate(passed):
        yield thread_name(process, stage + 1, f"stage {stage}" if len(passed) > 1 else "iterations")
        yield from _batch_slices(process, stage + 1, batches, begins, ends)
    yield from _counters(process, batches)


def _batch_slices(
    process: int, thread: int, batches: dict[str, IntArray], begins: IntArray, ends: IntArray
) -> list[str]:
    """Return a slice a batch, in their order: those that say the same but for numbers are written together."""
    prefills, requests = batches["prefills"], batches["requests"]
    moved = (batches["evicted_bytes"] > 0) | (batches["reloaded_bytes"] > 0)
    kinds = (prefills > 0) * 1 + ((prefills > 0) & (prefills == requests))
    alike = kinds * 4 + (batches["steps"] > 1) * 2 + moved
    slices = [""] * len(alike)
    for chosen in (np.flatnonzero(alike == one) for one in np.unique(alike).tolist()):
        own = {name: values[chosen] for name, values in batches.items()}
        name, named, arguments = _said(own)
        kind = kind_of(int(own["prefills"][0]), int(own["requests"][0]))
        threads = np.full(len(chosen), thread)
        columns = threads, begins[chosen], ends[chosen]
        written = spans(f"{kind}{name}", kind, process, *columns, named=named, arguments=arguments)
        for place, text in zip(chosen.tolist(), written, strict=True):
            slices[place] = text
    return slices


def _said(alike: dict[str, IntArray]) -> tuple[str, list[IntArray], dict[str, IntArray]]:
    """Return what slices of like batches say: the name after their kind, its numbers, and what is shown of one."""
    steps, requests, tokens = alike["steps"], alike["requests"], alike["prompt_tokens"]
    name, named = (" x %d steps", [steps]) if steps[0] > 1 else ("", [])
    name, named = f"{name}, %d requests", [*named, requests]
    arguments = {"first iteration": alike["iteration"], "steps": steps, "requests": requests}
    if alike["prefills"][0]:
        name, named = f"{name}, %d prompt tokens", [*named, tokens]
        arguments |= {"requests in prefill": alike["prefills"], "prompt tokens": tokens}
    if alike["evicted_bytes"][0] or alike["reloaded_bytes"][0]:
        arguments |= {"KV bytes evicted": alike["evicted_bytes"], "KV bytes reloaded": alike["reloaded_bytes"]}
    return name, named, arguments


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
        over = idle & (values != 0)
        changed = np.append(True, values[1:] != np.where(over, 0, values)[:-1])[: len(values)]
        there = np.stack((changed, over), axis=1)  # at the beginning of a batch, and at its end
        times, shown = np.stack((moments, end), axis=1), np.stack((values, np.zeros_like(values)), axis=1)
        yield from counters(f"{name} ({unit})", process, times[there], shown[there])


def _request_slices(lives: Lives, run_end: int) -> Iterator[str]:
    """Yield a slice a request on the lowest slot that is free, and within it one a phase."""
    shown = Lives(*(getattr(lives, one.name)[:MOST_REQUESTS] for one in fields(lives)))
    ends = np.where(shown.end >= 0, shown.end, np.maximum(run_end, shown.arrival))
    slots, new = _slots(shown.arrival.tolist(), ends.tolist())
    phases = [
        ("waiting", shown.arrival, shown.scheduled),
        ("prefill", shown.scheduled, shown.first_token),
        ("decode", shown.first_token, ends),
    ]
    written: list[list[str]] = [[] for _ in slots]
    _put(written, shown.end >= 0, "request %d", "request", slots, shown.arrival, ends, shown)
    _put(written, shown.end < 0, "request %d (unfinished)", "request", slots, shown.arrival, ends, shown)
    for phase, begins, until in phases:
        over = np.where(until >= 0, until, ends)
        _put(written, (begins >= 0) & (begins < over), phase, phase, slots, begins, over, None)
    for slot, is_new, events in zip(slots.tolist(), new, written, strict=True):
        if is_new:
            yield thread_name(REQUESTS, slot, f"slot {slot}")
        yield from events


def _put(
    written: list[list[str]], where: NDArray[np.bool_], name: str, category: str, slots: IntArray, begins: IntArray,
    ends: IntArray, said: Lives | None,
) -> None:  # fmt: skip
    """Write the slices of those requests `where` there is one, each beside what is written of its request."""
    rows = np.flatnonzero(where)
    columns = slots[rows], begins[rows], ends[rows]
    if said is None:
        slices = spans(name, category, REQUESTS, *columns)
    else:
        counts = {"prompt tokens": said.input[rows], "output tokens": said.output[rows]}
        arguments = {**counts, "seen by the engine (ns)": said.queued[rows]}
        slices = spans(name, category, REQUESTS, *columns, named=[said.id[rows]], arguments=arguments)
    for row, text in zip(rows.tolist(), slices, strict=True):
        written[row].append(text)


def _slots(begins: list[int], ends: list[int]) -> tuple[IntArray, list[bool]]:
    """Return the lowest slot that is free as each begins, and whether it is a new one."""
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    slots: list[int] = []
    new: list[bool] = []
    count = 0
    for begin, end in zip(begins, ends, strict=True):
        while busy and busy[0][0] <= begin:
            heappush(free, heappop(busy)[1])
        new.append(not free)
        if not free:
            count += 1
            heappush(free, count)
        slots.append(heappop(free))
        heappush(busy, (end, slots[-1]))
    return np.array(slots, dtype=np.int64), new


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
