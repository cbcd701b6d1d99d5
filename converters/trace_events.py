"""The one writer of trace-event files, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

An event is one line of JSON text; `write_events` puts any number of them into a file, one by one. Times come in ns and
are written as us with three decimals, exactly. Format: "Trace Event Format",
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from converters.execution_graph import TimelineEvent
from foundation.files import atomic_write

IntArray = NDArray[np.int64]
_WRITTEN_AT_ONCE = 1000
TRACKS = ("cpu", "comp", "comm", "recv")
"""The resources of a rank (`TimelineEvent.track`), in the order of their threads."""


def write_events(
    stream: IO[str],
    events: Iterable[str],
    *,
    unit: Literal["ns", "ms"] = "ns",
    other: Mapping[str, object] | None = None,
) -> None:
    """Write a file of `events` to `stream`. `unit`: how times are shown; `other`: facts about the whole file."""
    facts = "" if other is None else f'"otherData": {json.dumps(other)},\n'
    stream.write(f'{{"displayTimeUnit": "{unit}",\n{facts}"traceEvents": [\n')
    separator, rest = "", iter(events)
    while some := list(islice(rest, _WRITTEN_AT_ONCE)):
        stream.write(separator + ",\n".join(some))
        separator = ",\n"
    stream.write("\n]}\n")


def process_name(process: int, name: str) -> str:
    """Return the event that names a process (a group of tracks)."""
    return _named("process_name", process, 0, name)


def thread_name(process: int, thread: int, name: str) -> str:
    """Return the event that names a thread (a track)."""
    return _named("thread_name", process, thread, name)


def span(
    name: str,
    category: str,
    track: tuple[int, int],
    begin_ns: int,
    end_ns: int,
    arguments: Mapping[str, int] | None = None,
) -> str:
    """Return a slice of `track` (process, thread); `arguments` are shown when it is chosen."""
    shown = f', "args": {_numbers(arguments)}' if arguments else ""
    times = f'"ts": {_us(begin_ns)}, "dur": {_us(end_ns - begin_ns)}'
    said = f'"name": {_quoted(name)}, "cat": {_quoted(category)}'
    return f'{{{said}, "ph": "X", "pid": {track[0]}, "tid": {track[1]}, {times}{shown}}}'


def spans(
    name: str,
    category: str,
    process: int,
    threads: IntArray,
    begins_ns: IntArray,
    ends_ns: IntArray,
    *,
    named: Sequence[IntArray] = (),
    arguments: Mapping[str, IntArray] | None = None,
) -> list[str]:
    """Return slices, none before t = 0, that say the same but for numbers; all columns are ``[n]``.

    `name` has a ``%d`` for each column of `named`.
    """
    shown = ", ".join(f"{_escaped(argument)}: %d" for argument in arguments or ())
    said = f', "args": {{{shown}}}' if shown else ""
    line = (
        f'{{"name": {_quoted(name)}, "cat": {_escaped(category)}, "ph": "X", "pid": {process}, "tid": %d, '
        f'"ts": %d.%03d, "dur": %d.%03d{said}}}'
    )
    times = (*np.divmod(begins_ns, 1000), *np.divmod(ends_ns - begins_ns, 1000))
    columns = (*named, threads, *times, *(arguments or {}).values())
    return [line % row for row in zip(*(column.tolist() for column in columns), strict=True)]


def counters(name: str, process: int, at_ns: IntArray, values: NDArray[Any]) -> list[str]:
    """Return changes of a counter of `process`, none before t = 0; columns are ``[n]``."""
    line = f'{{"name": {_escaped(name)}, "ph": "C", "pid": {process}, "ts": %d.%03d, "args": {{"value": %.6g}}}}'
    rows = zip(*(column.tolist() for column in (*np.divmod(at_ns, 1000), values)), strict=True)
    return [line % row for row in rows]


def mark(name: str, process: int) -> str:
    """Return a mark at the beginning, across all tracks."""
    return json.dumps({"name": name, "ph": "i", "s": "g", "pid": process, "tid": 0, "ts": 0})


def write_timeline(path: str | Path, ranks: int, events: Iterable[TimelineEvent]) -> None:
    """Write the timelines of ranks ``0 .. ranks - 1`` to `path`: a process a rank, a thread a resource."""
    with atomic_write(path) as stream:
        write_events(stream, _timeline(ranks, events))


def _timeline(ranks: int, events: Iterable[TimelineEvent]) -> Iterator[str]:
    for rank in range(ranks):
        yield process_name(rank, f"rank {rank}")
        for thread, track in enumerate(TRACKS):
            yield thread_name(rank, thread, track)
    threads = {track: thread for thread, track in enumerate(TRACKS)}
    for event in events:
        arguments = {"node": event.node_id, "start_ns": event.start_ns, "end_ns": event.end_ns}
        where = event.rank, threads[event.track]
        yield span(event.name, event.track, where, event.start_ns, event.end_ns, arguments)


def _named(kind: str, process: int, thread: int, name: str) -> str:
    return json.dumps({"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}})


def _numbers(values: Mapping[str, int]) -> str:
    return "{" + ", ".join(f"{_quoted(name)}: {value}" for name, value in values.items()) + "}"


def _escaped(text: str) -> str:
    """Return text quoted, for a template whose numbers are filled in by ``%``."""
    return _quoted(text).replace("%", "%%")


def _us(ns: int) -> str:
    """Return ns as us with three decimals."""
    whole, rest = divmod(abs(ns), 1000)
    return f"-{whole}.{rest:03d}" if ns < 0 else f"{whole}.{rest:03d}"
