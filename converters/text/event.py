"""Header ``EVENT``: one row that lets every NPU wait until the first arrival."""

from __future__ import annotations

from collections.abc import Iterator

from converters.text.lines import Lines
from converters.text.orca import TABLE as WIDE
from converters.text.records import RecordStream
from converters.text.table import Table, read_head

TABLE = Table((30, *[15] * 10), " ", frozenset(), marker_collectives=False)
"""Layout of LLMServingSim main; v0.2.1 wrote `ORCA`'s, which the attribute ``layout`` remembers as ``0.2``."""


class EventFormat:
    """``EVENT``: rows are named as they stand, without a row number."""

    def read(self, lines: Lines, header: str) -> RecordStream:
        """See `TextFormat.read`."""
        if header.split() != ["EVENT"]:
            raise lines.error("the header of an event trace is the one word EVENT")
        rows, names = read_head(lines)
        attributes = {"format": "event"}
        if names == WIDE.header():
            attributes["layout"] = "0.2"
        return RecordStream(attributes, rows, TABLE.read(lines, rows, numbered=False))

    def write(self, stream: RecordStream) -> Iterator[str]:
        """See `TextFormat.write`."""
        table = WIDE if stream.attributes.get("layout") == "0.2" else TABLE
        yield "EVENT\n"
        yield f"{stream.rows}\n"
        yield table.header()
        for index, record in enumerate(stream.records):
            yield table.write(record, index, numbered=False)


EVENT = EventFormat()
