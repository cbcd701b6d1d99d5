"""Chakra execution traces (.et): the wire format, single nodes, and whole graphs.

`read_graph` and `write_graph` convert between files and `ExecutionGraph`; `read_nodes` and `write_nodes` stream
standard nodes for tools. docs/chakra.md says what a file holds.
"""

from converters.chakra.graph_reader import GROUPS_SUFFIX, read_graph, read_groups
from converters.chakra.graph_writer import GraphWriter, WrittenGraph, write_graph
from converters.chakra.nodes import read_metadata, read_nodes, write_nodes

__all__ = [
    "GROUPS_SUFFIX",
    "GraphWriter",
    "WrittenGraph",
    "read_graph",
    "read_groups",
    "read_metadata",
    "read_nodes",
    "write_graph",
    "write_nodes",
]
