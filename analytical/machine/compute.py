"""How long compute takes: by the roofline, or replayed from the recording."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from astra_files.system import SystemConfig
from converters.execution_graph import IntArray, NodeType, RankGraph


def roofline_nodes(graph: RankGraph, system: SystemConfig) -> np.ndarray:
    """Return which nodes take their runtime from the roofline, shape ``[n]``."""
    on = system.roofline_enabled and not system.replay_only
    chosen: np.ndarray = (graph.node_type == NodeType.COMP) & ~graph.is_cpu_op & on
    return chosen


def step_runtimes(graph: RankGraph, step: int, system: SystemConfig) -> NDArray[np.float64]:
    """Return the ns that each node runs for in one step, ``[n]``: by the roofline, or replayed.

    Whole numbers, as doubles: far beyond `limits.LONGEST_NS` they do not wrap around. A replay takes duration_micros *
    1000, and 1 ns for 0; so do nodes whose time is not for them to say.
    """
    recorded = graph.duration_us.astype(np.float64)
    result = np.where(recorded > 0, recorded * 1000, 1.0)
    modelled = np.flatnonzero(roofline_nodes(graph, system))
    if modelled.size:
        operations, size = (values[modelled] for values in graph.work.at(step))
        sized = np.where(size > 0, size, 1)
        operations = np.where(size > 0, operations, 1)  # without bytes a node is skipped
        result[modelled] = np.where(size > 0, roofline_ns(operations, sized, system), 0.0)
    return result


def roofline_ns(operations: IntArray, size: IntArray, system: SystemConfig) -> NDArray[np.float64]:
    """Return the roofline's ns of nodes of at least one operation and byte each: whole numbers, as doubles.

    Workload.cc, Roofline.cc, in doubles and in their order, so that the last bit is theirs:
    perf = min(local-mem-bw * intensity, peak-perf), runtime = trunc(num_ops / perf * 10^9).
    """
    bandwidth, peak = system.local_mem_bw * 1_000_000_000, system.peak_perf * 1_000_000_000_000
    if size.max(initial=1) == 1 and bandwidth * float(operations.min(initial=1)) >= peak:
        work = operations / peak  # nodes that carry nanoseconds: a byte each, and the compute peak alone decides
    else:
        work = operations.astype(np.float64)
        work /= np.minimum(bandwidth * (work / size), peak)
    work *= 1e9
    return np.trunc(work, out=work)
