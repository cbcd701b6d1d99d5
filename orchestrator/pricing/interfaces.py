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
    """Returns the graph that `interface` (memory, text, et) leads to, by files in `folder`.

    `keep`: leave both kinds of files of every trace there; otherwise one file is written over and over.
    """

    def __init__(self, lowering: Lowering, interface: str, folder: Path, *, keep: bool) -> None:
        from converters.chakra.graph_writer import GraphWriter

        self._lowering = lowering
        self._interface = interface
        self._folder = folder
        self._keep = keep
        self._writer = GraphWriter()
        self._count = 0

    def __call__(self, trace: Trace) -> ExecutionGraph:
        """Return the graph of a one-step `trace`, and leave its files."""
        prefix = self._folder / f"batch{self._count:06d}"
        self._count += 1 if self._keep else 0
        graph = self._lowering.lower(self._by_text(trace, prefix.with_suffix(".txt")))
        return self._by_et(graph, prefix)

    def _by_text(self, trace: Trace, path: Path) -> Trace:
        if self._interface != "text" and not self._keep:
            return trace
        from converters.text import read_text_trace, write_text_trace

        write_text_trace(trace, path)
        return read_text_trace(path) if self._interface == "text" else trace

    def _by_et(self, graph: ExecutionGraph, prefix: Path) -> ExecutionGraph:
        if self._interface != "et" and not self._keep:
            return graph
        from converters.chakra.graph_reader import read_graph

        self._writer.write(graph, prefix)
        return read_graph(prefix, graph.num_ranks) if self._interface == "et" else graph
