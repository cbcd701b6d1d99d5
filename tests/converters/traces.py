"""Traces made by hand for the converters' tests: small, and every column under the test's control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trace_gen.trace import NPU, CommType, Location, RowKind, RowWork, Trace
from trace_gen.vocabulary import class_of


@dataclass
class Row:
    """One row; the defaults make a compute row of 100 ns that moves nothing."""

    op: str = "op"
    ranks: tuple[int, ...] = (0,)
    kind: RowKind = RowKind.COMPUTE
    layer: int = -1
    stage: int = 0
    request: int = -1
    sub_batch: int = 0
    latency: int | Sequence[int] = 100
    flops: int = 0
    mem_bytes: int = 0
    input: tuple[Location, int, int] = (Location.LOCAL, 0, 0)
    weight: tuple[Location, int, int] = (Location.LOCAL, 0, 0)
    output: tuple[Location, int, int] = (Location.LOCAL, 0, 0)
    comm: tuple[CommType, int] = (CommType.NONE, 0)
    group: tuple[int, ...] | None = None
    deps: tuple[int, ...] = field(default=())


def make_trace(rows: Sequence[Row], steps: int = 1, requests: Sequence[int] = (), **attributes: str) -> Trace:
    ops = tuple(dict.fromkeys(row.op for row in rows))
    sets = tuple(dict.fromkeys(row.ranks for row in rows))
    groups = tuple(dict.fromkeys(row.group for row in rows if row.group is not None))

    def column(values: Sequence[Any], dtype: Any) -> Any:
        return np.array(values, dtype=dtype)

    def stepped(values: Sequence[Any]) -> Any:
        return np.array([np.broadcast_to(value, steps) for value in values], dtype=np.int64).reshape(-1, steps).T.copy()

    return Trace(
        op_names=ops,
        devices=(NPU,),
        rank_sets=sets,
        groups=groups,
        batch_requests=column(requests, np.int64),
        op=column([ops.index(row.op) for row in rows], np.int32),
        operator_class=column([class_of(row.op, row.kind) for row in rows], np.int8),
        kind=column([row.kind for row in rows], np.int8),
        device=column([0] * len(rows), np.int8),
        layer=column([row.layer for row in rows], np.int32),
        stage=column([row.stage for row in rows], np.int32),
        rank_set=column([sets.index(row.ranks) for row in rows], np.int32),
        request=column([row.request for row in rows], np.int64),
        sub_batch=column([row.sub_batch for row in rows], np.int32),
        work=RowWork.by_row(
            stepped([row.latency if row.kind == RowKind.COMPUTE else 0 for row in rows]),
            stepped([row.flops for row in rows]),
            stepped([row.mem_bytes for row in rows]),
        ),
        input_loc=column([row.input[0] for row in rows], np.int8),
        input_node=column([row.input[1] for row in rows], np.int32),
        input_bytes=column([row.input[2] for row in rows], np.int64),
        weight_loc=column([row.weight[0] for row in rows], np.int8),
        weight_node=column([row.weight[1] for row in rows], np.int32),
        weight_bytes=column([row.weight[2] for row in rows], np.int64),
        output_loc=column([row.output[0] for row in rows], np.int8),
        output_node=column([row.output[1] for row in rows], np.int32),
        output_bytes=column([row.output[2] for row in rows], np.int64),
        comm_type=column([row.comm[0] for row in rows], np.int8),
        comm_bytes=column([row.comm[1] for row in rows], np.int64),
        comm_group=column([-1 if row.group is None else groups.index(row.group) for row in rows], np.int32),
        dep_offsets=column(np.cumsum([0, *(len(row.deps) for row in rows)]), np.int64),
        dep_rows=column([dep for row in rows for dep in row.deps], np.int64),
        attributes=dict(attributes),
    )


def slower(trace: Trace, latency: int) -> Trace:
    """Return `trace` with `latency` ns more for every row."""
    return replace(trace, work=replace(trace.work, latency_ns=trace.work.latency_ns + latency))


def transformer(tp: int = 2, pp: int = 2, layers: int = 4, steps: int = 1, latency: int = 1000) -> Trace:
    """Llama-like: embedding, blocks of attention and feed-forward with two all-reduces each, head; `pp` stages."""
    rows: list[Row] = []

    def add(op: str, stage: int, layer: int = -1, reduce: bool = False, **more: Any) -> None:
        ranks = tuple(range(stage * tp, (stage + 1) * tp))
        comm = (CommType.ALLREDUCE, 8192) if reduce else (CommType.NONE, 0)
        spread = latency + 7 * len(rows)
        rows.append(
            Row(
                op,
                ranks,
                stage=stage,
                layer=layer,
                latency=[spread + step for step in range(steps)],
                comm=comm,
                group=ranks if reduce else None,
                flops=spread * 10,
                mem_bytes=spread,
                **{"input": (Location.LOCAL, 0, 8192), "output": (Location.LOCAL, 0, 8192), **more},
            )
        )

    add("embedding", 0, reduce=True, input=(Location.REMOTE, 0, 64))
    for layer in range(layers):
        stage = layer * pp // layers
        for op in ("input_norm", "qkv_proj", "attention"):
            add(op, stage, layer)
        add("o_proj", stage, layer, reduce=True)
        for op in ("post_norm", "gate_up_proj"):
            add(op, stage, layer)
        add("down_proj", stage, layer, reduce=True)
    add("final_norm", pp - 1)
    add("lm_head", pp - 1, output=(Location.REMOTE, 0, 16))
    return make_trace(rows, steps)
