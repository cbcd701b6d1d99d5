"""Header ``ORCA``: the text trace of LLMServingSim v0.2.1: undivided times and sizes, attention by request."""

from __future__ import annotations

from collections.abc import Iterator

from converters.text.lines import Lines
from converters.text.records import RecordStream
from converters.text.table import Table, header_facts, read_head

TABLE = Table((33, 14, *[12] * 9), "", frozenset({"ATTENTION"}), marker_collectives=False)


class OrcaFormat:
    """``ORCA\\t\\tmodel_parallel_NPU_group: <pipeline stages>``."""

    def read(self, lines: Lines, header: str) -> RecordStream:
        """See `TextFormat.read`."""
        facts = header_facts(lines, header.split()[1:])
        group = lines.integer(facts.get("model_parallel_NPU_group", ""), "model_parallel_NPU_group", minimum=1)
        rows, _ = read_head(lines)
        return RecordStream({"format": "orca", "npu_group": str(group)}, rows, TABLE.read(lines, rows))

    def write(self, stream: RecordStream) -> Iterator[str]:
        """See `TextFormat.write`."""
        yield f"ORCA\t\tmodel_parallel_NPU_group: {stream.attributes.get('npu_group', '1')}\n"
        yield f"{stream.rows}\n"
        yield TABLE.header()
        for index, record in enumerate(stream.records):
            yield TABLE.write(record, index)


ORCA = OrcaFormat()
