"""What a text format is, and the registry of formats. A format is one file; the header's first word chooses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from converters.text.lines import Lines
from converters.text.records import RecordStream
from foundation.registry import Registry


class TextFormat(Protocol):
    """Reads and writes one format, streaming and without loss: what was read in canonical form is written alike."""

    def read(self, lines: Lines, header: str) -> RecordStream:
        """Read the trace whose first line is `header`; `attributes["format"]` is the format's name."""

    def write(self, stream: RecordStream) -> Iterator[str]:
        """Yield the lines of a stream that this format read (or one of its family); anything else is a `UserError`."""


text_formats: Registry[TextFormat] = Registry("text trace format")
for _name, _module, _attribute in (
    ("orca", "orca", "ORCA"),
    ("colocated", "llmservingsim", "COLOCATED"),
    ("prefill", "llmservingsim", "PREFILL"),
    ("decode", "llmservingsim", "DECODE"),
    ("event", "event", "EVENT"),
    ("orrery", "own", "ORRERY"),
):
    text_formats.register_lazy(_name, f"converters.text.{_module}", _attribute)
