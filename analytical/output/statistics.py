"""The statistics that ASTRA-sim prints for every rank at its end. Source: Statistics.cc.

Times by type are unions of the nodes' intervals in ns. Averages are over the time of compute nodes plus 1 ns, as
upstream's are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from analytical.events.program import Program
from analytical.machine.compute import roofline_nodes
from analytical.machine.remote_memory import transfer_ns
from astra_files.memory import RemoteMemoryConfig
from astra_files.system import SystemConfig
from converters.execution_graph import IntArray, NodeType
from foundation.records import dataclass

GPU, COMM, CPU, REMOTE, INVALID = "GPU time", "Comm time", "CPU time", "Remote mem time", "Invalid time"


@dataclass(frozen=True, slots=True)
class RooflineAverages:
    """Averages over a rank's compute time; fractions of 1 but for the intensity (FLOP per byte)."""

    compute_bound: float
    compute_utilisation: float
    memory_utilisation: float
    operation_intensity: float


@dataclass(frozen=True, slots=True)
class RankStatistics:
    """One rank's figures, in ns. `overlap` is 0 where a rank has anything but GPU compute and communication."""

    wall: int
    times: dict[str, int]
    overlap: int
    roofline: RooflineAverages | None

    def lines(self) -> Iterator[str]:
        """Yield the figures as upstream words them."""
        yield f"Wall time: {self.wall}"
        for name, time in self.times.items():
            yield f"{name}: {time}"
        if self.overlap > 0:
            yield f"Total compute-communication overlap: {self.overlap}"
        if self.roofline is not None:
            yield f"Compute bound percentage: {self.roofline.compute_bound * 100:.3f}%"
            yield f"Average compute utilization: {self.roofline.compute_utilisation * 100:.3f}%"
            yield f"Average memory utilization: {self.roofline.memory_utilisation * 100:.3f}%"
            yield f"Average operation intensity: {self.roofline.operation_intensity:.3f}"


def rank_statistics(
    program: Program, step: int, start: IntArray, end: IntArray, system: SystemConfig
) -> RankStatistics:
    """Return the statistics of one rank from its nodes' start and end (ns, ``[n]``, by row)."""
    kinds = _kinds(program)
    times = {}
    for name in (GPU, COMM, CPU, REMOTE, INVALID):
        chosen = kinds == name
        if chosen.any():
            times[name] = _union(start[chosen], end[chosen])
    wall = int(end.max())
    overlap = times[GPU] + times[COMM] - wall if set(times) == {GPU, COMM} else 0
    averages = _averages(program, step, end - start, system) if system.roofline_enabled else None
    return RankStatistics(wall, times, overlap, averages)


def chain_statistics(
    program: Program, step: int, finish: int, system: SystemConfig, memory: RemoteMemoryConfig
) -> RankStatistics:
    """Return the statistics of a rank that runs one node after another from 0 to `finish` ns.

    Nothing overlaps, so the communication takes what the nodes with a runtime of their own leave.
    """
    kinds, runtime = _kinds(program), program.runtime(step, system)
    times = {name: int(runtime[kinds == name].sum()) for name in (GPU, CPU) if (kinds == name).any()}
    if (kinds == REMOTE).any():
        times[REMOTE] = sum(transfer_ns(memory, size) for size in program.size(step)[kinds == REMOTE].tolist())
    if (kinds == COMM).any():
        times[COMM] = finish - sum(times.values())
    averages = _averages(program, step, runtime, system) if system.roofline_enabled else None
    return RankStatistics(finish, times, 0, averages)


def _kinds(program: Program) -> NDArray[np.str_]:
    kind = program.graph.node_type[program.order]
    cpu = program.graph.is_cpu_op[program.order]
    memory = (kind == NodeType.MEM_LOAD) | (kind == NodeType.MEM_STORE)
    compute = kind == NodeType.COMP
    return np.select(
        [memory, compute & cpu, compute, kind == NodeType.INVALID], [REMOTE, CPU, GPU, INVALID], default=COMM
    )


def _union(start: IntArray, end: IntArray) -> int:
    """Return the length of the union of intervals."""
    order = np.lexsort((end, start))
    start, end = start[order], end[order]
    covered = np.maximum.accumulate(end)
    gaps = np.maximum(start[1:] - covered[:-1], 0)
    return int(covered[-1] - start[0] - gaps.sum())


def _averages(program: Program, step: int, runtime: IntArray, system: SystemConfig) -> RooflineAverages:
    graph, order = program.graph, program.order
    duration = runtime.astype(np.float64)
    compute = (graph.node_type == NodeType.COMP)[order]
    total = 1.0 + float(duration[compute].sum())
    num_ops, tensor_size = graph.work.at(step)
    rows = np.flatnonzero((roofline_nodes(graph, system) & (tensor_size > 0))[order])
    weight = duration[rows]
    peak, bandwidth = system.peak_perf * 1_000_000_000_000, system.local_mem_bw * 1_000_000_000
    intensity = num_ops[order][rows] / tensor_size[order][rows].astype(np.float64)
    perf = np.minimum(bandwidth * intensity, peak)
    return RooflineAverages(
        compute_bound=float(weight[perf >= peak].sum()) / total,
        compute_utilisation=float((perf / peak * weight).sum()) / total,
        memory_utilisation=float((perf / intensity / bandwidth * weight).sum()) / total,
        operation_intensity=float((intensity * weight).sum()) / total,
    )
