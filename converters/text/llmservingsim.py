"""Headers ``COLOCATED``, ``PREFILL`` and ``DECODE``: text traces of LLMServingSim 1.x and main, per rank as they stand.

Sections: ``EXPERT i`` (one expert-parallel rank's experts, with the collective before the first and after ``EXPERT
END``) and ``PIM ch`` (one processing-in-memory channel). ``kv_load`` and ``kv_evict`` rows lead; ``misc`` names the
sub-batch; ``pp_stage_boundaries`` are the rows (not counting those leading ones) at which later stages begin.
"""

from __future__ import annotations

from collections.abc import Iterator

from converters.text.lines import Lines
from converters.text.records import RecordStream
from converters.text.table import Table, header_facts, read_head

_MARKERS = frozenset({"EXPERT", "PIM"})
TABLE = Table((30, *[15] * 10), " ", _MARKERS, marker_collectives=True)
TABLE_1_0 = Table((30, *[15] * 10), "", _MARKERS, marker_collectives=False)
"""v1.0.0 had no space between columns, and ``EXPERT`` markers without a collective."""


class ServingSimFormat:
    """One of the three; they differ in what a converter makes of them."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self, lines: Lines, header: str) -> RecordStream:
        """See `TextFormat.read`."""
        facts = header_facts(lines, header.split()[1:])
        group = lines.integer(facts.get("model_parallel_NPU_group", ""), "model_parallel_NPU_group", minimum=1)
        attributes = {"format": self._name, "npu_group": str(group)}
        if "pp_stage_boundaries" in facts:
            edges = [lines.integer(text, "a stage boundary") for text in facts["pp_stage_boundaries"].split(",")]
            attributes["pp_stage_boundaries"] = ",".join(map(str, edges))
        rows, names = read_head(lines)
        if names == TABLE_1_0.header():
            attributes["layout"] = "1.0"
        return RecordStream(attributes, rows, TABLE.read(lines, rows))

    def write(self, stream: RecordStream) -> Iterator[str]:
        """See `TextFormat.write`."""
        facts = stream.attributes
        table = TABLE_1_0 if facts.get("layout") == "1.0" else TABLE
        header = f"{self._name.upper()}\t\tmodel_parallel_NPU_group: {facts.get('npu_group', '1')}"
        if "pp_stage_boundaries" in facts:
            header += f"\t\tpp_stage_boundaries: {facts['pp_stage_boundaries']}"
        yield header + "\n"
        yield f"{stream.rows}\n"
        yield table.header()
        for index, record in enumerate(stream.records):
            yield table.write(record, index)


COLOCATED, PREFILL, DECODE = (ServingSimFormat(name) for name in ("colocated", "prefill", "decode"))
