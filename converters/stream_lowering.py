"""Text traces of any length -> ``PREFIX.<rank>.et``, block by block in constant memory.

The nodes are those of `converters.lowering`: the same plans, filled in and encoded for a block of rows at a time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converters.chakra.graph_writer import HEADER, encode_nodes, heads
from converters.graph_plan import Planner
from converters.lowering import Filling, Sizes, WorkColumns, moved_bytes
from converters.rank_files import RankFiles
from converters.text import RecordStream, blocks
from converters.trace_survey import Survey


def survey_stream(stream: RecordStream) -> Survey:
    """Read `stream` to its end."""
    survey = Survey()
    for block in blocks(stream):
        survey.add(block)
    return survey


def stream_lower(
    prefix: str | Path, planner: Planner, stream: RecordStream, filling: Filling, *, step: int = 0
) -> list[Path]:
    """Write the nodes of `stream`, whose survey `planner` was made of, at `step`; return the paths."""
    with RankFiles(prefix, planner.ranks) as files:
        files.append(range(planner.ranks), HEADER)
        for block in blocks(stream):
            moved = np.concatenate([moved_bytes(block), planner.transfer_bytes])
            plans = [plan for plan in planner.plan(block) if plan.row.size]
            for graph in filling.graphs(plans, WorkColumns.of(plans, block), Sizes.of(plans, moved), block):
                for ranks, content in encode_nodes(graph, step, heads(graph, graph.dep_index)):
                    files.append(ranks, content)
        for ranks in planner.idle_ranks():
            graph = filling.idle(ranks, 1)
            for some, content in encode_nodes(graph, 0, heads(graph, graph.dep_index)):
                files.append(some, content)
    return files.paths
