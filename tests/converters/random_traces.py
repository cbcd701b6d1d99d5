"""Random small traces of every shape that the lowering has a rule for."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.converters.traces import Row, make_trace
from trace_gen.trace import CommType, Location, RowKind, Trace

COLLECTIVES = [comm for comm in CommType if comm not in (CommType.NONE, CommType.PERMUTE)]
OUTSIDE = [Location.REMOTE, Location.CXL, Location.STORAGE]


@st.composite
def traces(draw: st.DrawFn, steps: int = 1, dependencies: bool = False) -> Trace:
    """TP up to 3, up to 3 stages in order, up to 2 sub-batches, rows on stages, single ranks and pairs."""
    tp, stages = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    sub_batches = draw(st.sampled_from([(0,), (0,), (1, 2), (0, 1)]))
    rows: list[Row] = []
    for stage in range(stages):
        ranks = tuple(range(stage * tp, (stage + 1) * tp))
        for _ in range(draw(st.integers(0, 2))):
            rows.append(draw(_move(ranks, stage)))
        for _ in range(draw(st.integers(1, 5))):
            rows.append(draw(_work(ranks, stage, sub_batches, steps)))
    if dependencies:
        for index, row in enumerate(rows):
            if index and draw(st.integers(0, 3)) == 0:
                row.deps = tuple(sorted(draw(st.sets(st.integers(0, index - 1), max_size=3))))
    return make_trace(rows, steps)


@st.composite
def _move(draw: st.DrawFn, ranks: tuple[int, ...], stage: int) -> Row:
    there = (draw(st.sampled_from(OUTSIDE)), 0, draw(st.integers(0, 9999)))
    kind = draw(st.sampled_from([RowKind.MEM_LOAD, RowKind.MEM_STORE]))
    here = (Location.LOCAL, 0, 0)
    loads = kind == RowKind.MEM_LOAD
    return Row("kv", ranks, kind, stage=stage, input=there if loads else here, output=here if loads else there)


@st.composite
def _work(draw: st.DrawFn, ranks: tuple[int, ...], stage: int, sub_batches: tuple[int, ...], steps: int) -> Row:
    kind = draw(st.sampled_from([RowKind.COMPUTE] * 5 + [RowKind.COMM, RowKind.MEM_STORE]))
    members = draw(st.sampled_from([ranks, ranks, ranks, ranks[:1], ranks[-1:], ranks[:2]]))
    together = members == ranks and (kind == RowKind.COMM or (kind == RowKind.COMPUTE and draw(st.booleans())))
    group = draw(st.sampled_from([None, members, tuple(reversed(members))])) if together else None
    comm = (draw(st.sampled_from(COLLECTIVES)), draw(st.integers(1, 9999))) if together else (CommType.NONE, 0)
    operands = [
        (draw(st.sampled_from([Location.LOCAL, Location.LOCAL, *OUTSIDE])), 0, draw(st.integers(0, 9999)))
        for _ in range(3)
    ]
    return Row(
        draw(st.sampled_from(["norm", "attention", "proj"])),
        members,
        kind,
        layer=draw(st.integers(-1, 2)),
        stage=stage,
        request=draw(st.integers(-1, 3)),
        sub_batch=draw(st.sampled_from(sub_batches)),
        latency=[draw(st.integers(1, 10**6)) for _ in range(steps)],
        flops=draw(st.integers(0, 10**15)),
        mem_bytes=draw(st.integers(0, 10**12)),
        input=operands[0],
        weight=operands[1],
        output=operands[2],
        comm=comm,
        group=group,
    )
