"""Text traces: formats (one file each), rows as records, and how a text is spread over ranks.

`read_text_trace` and `write_text_trace` convert between a file and a `Trace`; `open_text` streams. Texts of
LLMServingSim come out *unplaced*, so that they can be written again byte for byte; `place` spreads them over ranks as
that program's converters do.
"""

from __future__ import annotations

from pathlib import Path

from converters.text.columns import blocks, collect, records
from converters.text.lines import Lines, shorten
from converters.text.placement import is_placed, place
from converters.text.records import Record, RecordStream
from converters.text.registry import TextFormat, text_formats
from foundation.files import atomic_write
from trace_gen.trace import Trace

__all__ = [
    "Record",
    "RecordStream",
    "TextFormat",
    "blocks",
    "collect",
    "is_placed",
    "open_text",
    "place",
    "read_text_trace",
    "records",
    "text_formats",
    "write_text_trace",
]


def open_text(path: str | Path) -> RecordStream:
    """Read the header of a text trace and return its rows as a stream; the header's first word names the format."""
    lines = Lines(path)
    header = lines.next("its header")
    words = header.split()
    name = words[0] if words else ""
    if not name.isupper() or name.lower() not in text_formats:
        known = ", ".join(name.upper() for name in text_formats)
        raise lines.error(f"the header begins with {shorten(name)}", f"a text trace begins with one of {known}")
    return text_formats.get(name.lower()).read(lines, header)


def read_text_trace(path: str | Path) -> Trace:
    """Read a text trace whole; LLMServingSim's come out unplaced (see `place`)."""
    return collect(open_text(path))


def write_text_trace(trace: Trace, path: str | Path) -> None:
    """Write `trace` in the format it was read in; a trace that was not read is written in ours (``ORRERY``)."""
    write_stream(records(trace), path, trace.attributes.get("format", "orrery"))


def write_stream(stream: RecordStream, path: str | Path, name: str) -> None:
    """Write `stream` in the format called `name`, which must be able to hold it; all or nothing."""
    with atomic_write(path) as out:
        for line in text_formats.get(name).write(stream):
            out.write(line)
