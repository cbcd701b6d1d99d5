"""Runs one batch a member on a deployment: what Orrery counts, over all ranks, and what its own rules find."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from parallelism.papers import Degrees, Work

from analytical.embedded import create
from converters.execution_graph import ExecutionGraph, IterationResult, NodeType
from converters.lowering import lower
from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.trace import CommType, OperatorClass, Trace
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace


@dataclass(frozen=True)
class Counted:
    """What a batch costs on all ranks together, when each rank finished, and violations of trace_test's rules."""

    gemm: int
    grouped: int
    attention: int
    weights: int
    messages: Counter[tuple[str, int, int]]
    sends: Counter[int]
    finish_ns: list[int]
    compute_ns: list[int]
    violations: dict[str, list[object]]


def count(name: str, members: Sequence[Sequence[Work]], degrees: Degrees) -> Counted:
    """Generate, lower, simulate and check one iteration of the model called `name`."""
    model = load_model(name)
    mesh = Mesh(degrees.tensor, degrees.pipeline, degrees.expert, degrees.data, degrees.context)
    latencies = make_perf_model("roofline", PerfModelOptions(model, load_hardware("H100"), mesh.tensor))
    generator = TraceGenerator(
        model,
        mesh,
        latencies,
        context_mode="ring" if degrees.ring else "allgather",
        sequence_parallel=degrees.scattered,
    )
    batches = tuple(_batch(batch, 1000 * member) for member, batch in enumerate(members))
    trace = generator.generate(batches)
    dims = [size for size in mesh.sizes if size > 1] or [1]
    graph = lower(trace, network_dims=dims)
    found = run_rules(of_trace(name, trace, ModelFacts(model, mesh, generator.precision, batches)))
    return Counted(
        gemm=_flops(trace, OperatorClass.GEMM),
        grouped=_flops(trace, OperatorClass.GROUPED_GEMM),
        attention=_flops(trace, OperatorClass.ATTENTION),
        weights=int((trace.weight_bytes * _ranks(trace)).sum()),
        messages=_messages(trace),
        sends=_sends(graph, mesh.stage_size),
        finish_ns=[finish for finish, _ in _simulate(graph, dims).by_rank().values()],
        compute_ns=_compute_ns(trace, mesh.ranks),
        violations={rule: list(where) for rule, where in found.violations.items()},
    )


def _batch(works: Sequence[Work], first: int) -> BatchShape:
    def column(values: list[int]) -> np.ndarray:
        return np.array(values, dtype=np.int64)

    return BatchShape(
        request_ids=column([first + number for number in range(len(works))]),
        new_tokens=column([work.new for work in works]),
        context_tokens=column([work.context for work in works]),
        samples=column([work.samples for work in works]),
    )


def _ranks(trace: Trace) -> np.ndarray:
    """Ranks that run each row."""
    return np.array([len(ranks) for ranks in trace.rank_sets])[trace.rank_set]


def _flops(trace: Trace, kind: OperatorClass) -> int:
    return int((trace.flops[0] * _ranks(trace))[trace.operator_class == kind].sum())


def _messages(trace: Trace) -> Counter[tuple[str, int, int]]:
    """Every collective once for each group that runs it."""
    found: Counter[tuple[str, int, int]] = Counter()
    for row in np.flatnonzero(trace.comm_type != CommType.NONE).tolist():
        group = int(trace.comm_group[row])
        parts = trace.group_parts[group] if trace.group_parts else 1
        message = CommType(trace.comm_type[row]).name, len(trace.groups[group]) // parts, int(trace.comm_bytes[row])
        found[message] += parts
    return found


def _sends(graph: ExecutionGraph, stage: int) -> Counter[int]:
    """What goes to other stages: the ranks of one pass blocks of keys and values round, too."""
    found: Counter[int] = Counter()
    for rank, own in graph.by_rank():
        sends = own.node_type == NodeType.COMM_SEND
        leaves = (rank + own.comm_dst_delta) // stage != rank // stage
        found.update(own.comm_size[sends & leaves].tolist())
    return found


def _compute_ns(trace: Trace, ranks: int) -> list[int]:
    """Return the compute time of every rank."""
    runs = np.zeros((len(trace.rank_sets), ranks), dtype=np.int64)
    for index, members in enumerate(trace.rank_sets):
        runs[index, list(members)] = 1
    times: list[int] = (trace.latency_ns[0] @ runs[trace.rank_set]).tolist()
    return times


def _simulate(graph: ExecutionGraph, dims: Sequence[int]) -> IterationResult:
    network = {"topology": "Switch", "npus_count": "", "bandwidth": 400.0, "latency": 500.0}
    lists = {key: [value] * len(dims) for key, value in network.items()} | {"npus_count": list(dims)}
    text = "\n".join(f"{key}: {values}" for key, values in lists.items()).replace("'", "")
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    system = {
        "scheduling-policy": "FIFO",
        "collective-optimization": "localBWAware",
        "local-mem-bw": 1000,
        "active-chunks-per-dimension": 1,
        "preferred-dataset-splits": 4,
        "endpoint-delay": 10,
        "roofline-enabled": 1,
        "peak-perf": 1,
        **{f"{kind}-implementation": ["ring"] * len(dims) for kind in kinds},
    }
    backend = create(
        network=text, system=json.dumps(system), memory='{"memory-type": "NO_MEMORY_EXPANSION"}', options={}
    )
    return backend.simulate(graph)
