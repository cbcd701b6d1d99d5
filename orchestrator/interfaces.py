"""How a trace becomes the graph that the backend gets: in memory, by way of a text trace, or of .et files.

All three give the same cycles. With a trace folder every iteration's text trace and .et files are kept there
(``batch000012.txt``, ``batch000012.<rank>.et``), whichever way is taken; files are for one step at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from converters.execution_graph import ExecutionGraph
from converters.lowering import Lowering
from trace_gen.trace import Trace

Lower = Callable[[Trace], ExecutionGraph]


class FileInterface:
    """Writes each trace and graph to `folder`; returns the graph that `interface` (memory, text, et) leads to."""

    def __init__(self, lowering: Lowering, interface: str, folder: Path) -> None:
        from converters.chakra.graph_writer import GraphWriter

        self._lowering = lowering
        self._interface = interface
        self._folder = folder
        self._writer = GraphWriter()
        self._count = 0

    def __call__(self, trace: Trace) -> ExecutionGraph:
        """Return the graph of a one-step `trace`, and leave its files."""
        from converters.chakra.graph_reader import read_graph
        from converters.text import read_text_trace, write_text_trace

        prefix = self._folder / f"batch{self._count:06d}"
        self._count += 1
        text = prefix.with_suffix(".txt")
        write_text_trace(trace, text)
        if self._interface == "text":
            trace = read_text_trace(text)
        graph = self._lowering.lower(trace)
        self._writer.write(graph, prefix)
        return read_graph(prefix, graph.num_ranks) if self._interface == "et" else graph
