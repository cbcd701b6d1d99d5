"""Text traces in each format: read whole, summed, spread over ranks, made a graph, written and read again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.fuzz.target import Target, targets
from converters.lowering import lower
from converters.statistics import report, summarise
from converters.text import collect, is_placed, open_text, place, read_text_trace, write_text_trace

NPUS = 4


def _read(path: Path, name: str) -> None:
    trace = collect(open_text(path))
    report(summarise(open_text(path)))
    again = path.with_name("again.txt")
    write_text_trace(trace, again)
    assert len(read_text_trace(again).op) == len(trace.op)
    stream = open_text(path)
    if stream.attributes["format"] != name:
        return  # another target's
    lower(collect(place(stream, *(() if is_placed(stream) else (NPUS,)))))


for _name in ("orca", "colocated", "prefill", "decode", "event", "orrery"):
    targets.register(f"text_{_name}")(
        Target(f"text traces in the format {_name.upper()}", partial(_read, name=_name), "trace.txt")
    )
