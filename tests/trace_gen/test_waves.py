"""Waves: what each member does alone is its own trace's, what members do together is worked out here by formula.

T_m tokens of member m, k experts a token, R ranks of a stage, t tensor-parallel ranks of a member; 16 bits a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import batch, batches, make_generator, model

from analytical.embedded import create
from converters.execution_graph import ExecutionGraph, IterationResult, NodeType
from converters.lowering import lower
from foundation.errors import InternalError, UserError
from trace_gen.architecture import Layer, LayerRun, ModelArchitecture, NormKind
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.batch_shape import BatchShape, KVTransfer, dummy_batch, empty_batch
from trace_gen.generator import TraceGenerator
from trace_gen.mesh import Mesh
from trace_gen.mlp.dense import DenseMlp
from trace_gen.mlp.experts import Experts
from trace_gen.precision import Precision
from trace_gen.trace import NO_REQUEST, CommType, OperatorClass, Trace
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace

HIDDEN, COUNT, CHOSEN, WIDTH, SHARED, LAYERS = 64, 48, 2, 48, 40, 3
MIXTURE = Layer(GroupedAttention(8, 4, 16), Experts(COUNT, CHOSEN, WIDTH, SHARED, True))
DENSE = Layer(GroupedAttention(8, 4, 16, window=50), DenseMlp(112))
TINY = ModelArchitecture("tiny", "tiny", HIDDEN, (LayerRun(MIXTURE, LAYERS),), 512, 4096, NormKind.RMS, False)
MIXED = replace(TINY, runs=(LayerRun(DENSE, 1), LayerRun(MIXTURE, 2), LayerRun(DENSE, 2)))
SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
SHAPES = [(1, 2), (1, 3), (2, 2), (4, 2), (2, 3)]
"""Tensor-parallel ranks and members whose product divides the experts."""


def waved(architecture: ModelArchitecture, tensor: int, data: int, pipeline: int = 1, **more: object) -> TraceGenerator:
    options = {"expert": tensor * data, **more}
    return make_generator(architecture, tensor, pipeline, data=data, **options)  # type: ignore[arg-type]


def ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)


def runs(trace: Trace, rank: int) -> np.ndarray:
    """Return the rows that `rank` runs."""
    has = np.array([rank in ranks for ranks in trace.rank_sets])
    return np.flatnonzero(has[trace.rank_set])


def named(trace: Trace, rows: Sequence[int] | np.ndarray, name: str) -> list[int]:
    return [int(row) for row in rows if trace.name(int(row)) == name]


def facts_of(trace: Trace, rows: np.ndarray) -> list[tuple[object, ...]]:
    """Return what rows hold, all but their ranks."""
    columns = [trace.latency_ns[0], trace.flops[0], trace.mem_bytes[0], trace.layer, trace.request, trace.kind]
    columns += [trace.input_bytes, trace.weight_bytes, trace.output_bytes, trace.comm_type, trace.comm_bytes]
    return [(trace.name(int(row)), *(int(column[row]) for column in columns)) for row in rows]


waves = (
    st.integers(2, 4)
    .flatmap(
        lambda members: st.lists(
            st.one_of(batches, batches, st.just(dummy_batch()), st.just(empty_batch())),
            min_size=members,
            max_size=members,
        )
    )
    .filter(lambda wave: any(len(shape.request_ids) for shape in wave))
)


def apart(wave: Sequence[BatchShape], filled: bool = False) -> list[BatchShape]:
    """Give the members' requests ids of their own; with `filled` empty members have a dummy batch."""
    members = [dummy_batch() if filled and not len(shape.request_ids) else shape for shape in wave]
    return [
        replace(
            shape, request_ids=np.where(shape.request_ids < 0, shape.request_ids, shape.request_ids + 1000 * number)
        )
        for number, shape in enumerate(members)
    ]


@SETTINGS
@given(wave=waves, tensor=st.sampled_from([1, 2]), placement=st.sampled_from(["heads", "requests"]))
def test_members_that_share_nothing_have_the_traces_they_have_alone(
    wave: list[BatchShape], tensor: int, placement: str
) -> None:
    wave = apart(wave)
    trace = waved(MIXED, tensor, len(wave), expert=1, attention_placement=placement).generate(wave)
    alone = make_generator(MIXED, tensor, attention_placement=placement)
    compared = 0
    for member, shape in enumerate(wave):
        for rank in range(tensor):
            own = runs(trace, member * tensor + rank)
            if not len(shape.request_ids):
                assert own.size == 0
                continue
            single = alone.generate([shape])
            assert facts_of(trace, own) == facts_of(single, runs(single, rank))
            compared += 1
    assert compared >= 1
    assert len(trace.batch_requests) == sum(int((shape.request_ids >= 0).sum()) for shape in wave)


@SETTINGS
@given(wave=waves, tensor=st.sampled_from([1, 2, 4]), exchange=st.sampled_from(["alltoall", "allgather"]))
def test_what_a_member_does_alone_is_what_it_does_without_the_others(
    wave: list[BatchShape], tensor: int, exchange: str
) -> None:
    """All but the experts: attention, norms, router, shared experts and the head, with their collectives' bytes."""
    wave = apart(wave, filled=tensor > 1)
    trace = waved(TINY, tensor, len(wave), expert_exchange=exchange).generate(wave)
    alone = make_generator(TINY, tensor)
    for member, shape in enumerate(wave):
        if not len(shape.request_ids):
            continue
        single = alone.generate([shape])

        def of_its_own(of: Trace, rank: int) -> list[tuple[object, ...]]:
            told = [fact for fact in facts_of(of, runs(of, rank)) if not str(fact[0]).startswith("expert_")]
            return [fact[:10] for fact in told if fact[0] != "shared_down_proj"]

        assert of_its_own(trace, member * tensor) == of_its_own(single, 0)


@SETTINGS
@given(wave=waves, tensor=st.sampled_from([1, 2, 4]), exchange=st.sampled_from(["alltoall", "allgather"]))
def test_what_members_do_together(wave: list[BatchShape], tensor: int, exchange: str) -> None:
    members = len(wave)
    ranks = tensor * members
    wave = apart(wave, filled=tensor > 1)
    trace = waved(TINY, tensor, members, expert_exchange=exchange).generate(wave)
    tokens = [shape.total_tokens for shape in wave]
    width, most = 2 * HIDDEN, max(tokens)
    copies, exchanged = ceil(sum(tokens) * CHOSEN, ranks), ceil(most * CHOSEN, tensor)
    everyone = tuple(range(ranks))
    together = {"expert_gate_up_proj", "expert_act_fn", "expert_down_proj", "expert_dispatch", "expert_combine"}
    together |= {"expert_sum"} if exchange == "allgather" else set()
    for row in range(trace.rows):
        name = trace.name(row)
        assert (trace.rank_sets[trace.rank_set[row]] == everyone) == (name in together), name
        if name in ("expert_dispatch", "expert_combine"):
            assert trace.groups[trace.comm_group[row]] == everyone
            first = name == "expert_dispatch"
            kind, size = CommType.ALLTOALL, exchanged
            if exchange == "allgather":
                kind = CommType.ALLGATHER if first else CommType.REDUCESCATTER
                share = ceil(ceil(sum(tokens), members), tensor)  # as many tokens as there are, not the largest's
                size = share if first else ranks * share
            assert (trace.comm_type[row], trace.comm_bytes[row]) == (kind, size * width)
        if name == "expert_gate_up_proj":
            assert trace.flops[0, row] == 2 * copies * HIDDEN * 2 * WIDTH
            assert trace.weight_bytes[row] == 2 * COUNT // ranks * HIDDEN * 2 * WIDTH
            read = max(1 - (1 - CHOSEN / COUNT) ** sum(tokens), ranks / COUNT)
            moved = copies * 2 * (HIDDEN + 2 * WIDTH) + round(read * int(trace.weight_bytes[row]))
            assert abs(int(trace.mem_bytes[0, row]) - moved) <= 1
        if name == "expert_gather":
            member = trace.rank_sets[trace.rank_set[row]][0] // tensor
            assert trace.comm_bytes[row] == ceil(tokens[member], tensor) * width
            assert trace.output_bytes[row] == tokens[member] * width
            assert trace.groups[trace.comm_group[row]] == trace.rank_sets[trace.rank_set[row]]


@pytest.mark.parametrize(("tensor", "data"), SHAPES)
@pytest.mark.parametrize("exchange", ["alltoall", "allgather"])
def test_all_ranks_together_do_the_work_of_one(tensor: int, data: int, exchange: str) -> None:
    """Matrices of a wave whose members are alike: FLOPs and weights summed over ranks, where everything divides."""
    tokens = 24
    trace = waved(TINY, tensor, data, expert_exchange=exchange).generate([batch([tokens])] * data)
    one = make_generator(TINY).generate([batch([tokens * data], samples=[data])])
    shared = {"qkv_proj", "o_proj", "shared_gate_up_proj", "shared_down_proj", "lm_head"}
    routed = {"expert_gate_up_proj", "expert_down_proj"}
    for name in shared | routed:
        flops, weights = (
            sum(
                int(column[row]) * len(trace.rank_sets[trace.rank_set[row]])
                for row in named(trace, range(trace.rows), name)
            )
            for column in (trace.flops[0], trace.weight_bytes)
        )
        rows = named(one, range(one.rows), name)
        assert flops == int(one.flops[0, rows].sum()), name
        copies = 1 if name in routed else data
        assert weights == copies * int(one.weight_bytes[rows].sum()), name


@SETTINGS
@given(
    wave=waves,
    tensor=st.sampled_from([1, 2, 4]),
    pipeline=st.sampled_from([1, 2, 3]),
    exchange=st.sampled_from(["alltoall", "allgather"]),
    spread=st.booleans(),
    placement=st.sampled_from(["heads", "requests"]),
)
def test_the_rules_of_traces_hold(
    wave: list[BatchShape], tensor: int, pipeline: int, exchange: str, spread: bool, placement: str
) -> None:
    wave = apart(wave, filled=tensor > 1 or not spread)
    options: dict[str, object] = {} if spread else {"expert": 1}
    generator = waved(
        MIXED, tensor, len(wave), pipeline, expert_exchange=exchange, attention_placement=placement, **options
    )
    facts = ModelFacts(MIXED, generator.mesh, Precision(), tuple(wave))
    outcome = run_rules(of_trace("wave", generator.generate(wave), facts))
    idle = [shape for shape in wave if not len(shape.request_ids)]
    if idle and pipeline > 1:
        outcome.violations.pop("ranks-present", None)  # a stage of dense layers leaves members without tokens idle
    assert outcome.violations == {}


def simulate(graph: ExecutionGraph, dims: Sequence[int]) -> IterationResult:
    count = len(dims)
    network = (
        f"topology: {['Ring'] * count}\nnpus_count: {list(dims)}\nbandwidth: {[50.0] * count}\n"
        f"latency: {[500.0] * count}\n"
    )
    rows = ", ".join('"ring"' for _ in dims)
    names = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    algorithms = ", ".join(f'"{name}-implementation": [{rows}]' for name in names)
    system = (
        '{"scheduling-policy": "LIFO", "endpoint-delay": 10, "active-chunks-per-dimension": 1, '
        '"preferred-dataset-splits": 4, "collective-optimization": "localBWAware", "local-mem-bw": 1000, '
        f'"roofline-enabled": 1, "peak-perf": 1, {algorithms}}}'
    )
    memory = '{"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-latency": 0, "remote-mem-bw": 64}'
    backend = create(network=network.replace("'", ""), system=system, memory=memory, options={})
    return backend.simulate(graph)


def network_dimensions(mesh: Mesh) -> tuple[int, ...]:
    """A network that fits `mesh`: a dimension an axis, without those of 1."""
    return tuple(size for size in mesh.sizes if size > 1) or (1,)


def finishes(result: IterationResult) -> dict[int, int]:
    return {rank: int(result.finish_ns[0, column]) for column, ranks in enumerate(result.rank_sets) for rank in ranks}


@pytest.mark.parametrize(("tensor", "data"), SHAPES)
@pytest.mark.parametrize("pipeline", [1, 2])
@pytest.mark.parametrize("exchange", ["alltoall", "allgather"])
def test_waves_run_in_lock_step(tensor: int, data: int, pipeline: int, exchange: str) -> None:
    """A member with one token waits for one with many; alone it would be done long before."""
    generator = waved(TINY, tensor, data, pipeline, expert_exchange=exchange)
    dims = network_dimensions(generator.mesh)
    large, small = batch([4000]), batch([1], [10], first_id=7)
    wave = finishes(simulate(lower(generator.generate([large, *[small] * (data - 1)]), network_dims=dims), dims))
    assert sorted(wave) == list(range(generator.mesh.ranks))
    alone = make_generator(TINY, tensor, pipeline)
    dims_alone = network_dimensions(alone.mesh)
    times = [
        finishes(simulate(lower(alone.generate([shape]), network_dims=dims_alone), dims_alone))
        for shape in (large, small)
    ]
    last = generator.mesh.pipeline - 1
    for member in range(1, data):
        rank = generator.mesh.stage_ranks(last, member)[0]
        assert wave[rank] > 2 * max(times[1].values())
        assert wave[rank] > wave[generator.mesh.stage_ranks(last, 0)[0]] // 2
    nothing = empty_batch() if tensor == 1 else dummy_batch()
    idle = finishes(simulate(lower(generator.generate([large, *[nothing] * (data - 1)]), network_dims=dims), dims))
    assert sorted(idle) == sorted(wave)
    assert max(idle.values()) <= max(wave.values())


def test_each_member_sends_its_own_activations_to_the_next_stage() -> None:
    generator = waved(TINY, 2, 2, pipeline=3)
    graph = lower(generator.generate([batch([100]), batch([7])]))
    sent = {}
    for rank, own in graph.by_rank():
        sizes = own.comm_size[own.node_type == NodeType.COMM_SEND].tolist()
        if sizes:
            sent[rank] = sizes
    assert sent == {rank: [2 * HIDDEN * (100 if rank % 4 < 2 else 7)] for rank in range(8)}


def test_each_member_moves_its_own_blocks() -> None:
    loads = (KVTransfer(1, 2, 32, 64_000),)
    evictions = (KVTransfer(2, 1, 16, 32_000),)
    generator = waved(TINY, 2, 2, pipeline=1)
    wave = [batch([1], [40], first_id=1, loads=loads), batch([1], [40], first_id=5, evictions=evictions)]
    trace = generator.generate(wave)
    assert [trace.name(row) for row in range(3)] == ["kv_load", "kv_evict", "embedding"]
    assert [trace.rank_sets[trace.rank_set[row]] for row in range(3)] == [(0, 1), (2, 3), (0, 1)]
    assert trace.input_bytes[0] == 32_000 and trace.output_bytes[1] == 16_000
    assert trace.request[:2].tolist() == [1, 2]
    assert (trace.operator_class[:2] == OperatorClass.MEMORY).all()


def test_k_steps_are_k_waves() -> None:
    generator = waved(MIXED, 2, 3)
    shapes = [batch([1, 1], [5, 70], steps=4), dummy_batch(4), batch([1], [49], steps=4, first_id=9)]
    together = generator.generate(shapes)
    assert together.steps == 4
    for step in range(4):
        now = [
            replace(shape, context_tokens=shape.context_tokens + step * (shape.request_ids >= 0), steps=1)
            for shape in shapes
        ]
        single = generator.generate(now)
        for column in ("latency_ns", "flops", "mem_bytes"):
            np.testing.assert_array_equal(getattr(together, column)[step], getattr(single, column)[0])
        assert single.input_bytes is together.input_bytes
    assert (generator.structures.misses, generator.sizes.misses, generator.request_columns.misses) == (1, 1, 1)
    assert NO_REQUEST not in together.batch_requests.tolist()


def test_a_dummy_is_one_token_that_is_not_sampled() -> None:
    trace = waved(TINY, 1, 2).generate([batch([3], [4]), dummy_batch()])
    own = runs(trace, 1)
    names = [trace.name(int(row)) for row in own]
    assert "lm_head" not in names and names[-1] == "final_layernorm"
    assert trace.input_bytes[own[0]] == 4
    attention = named(trace, own, "attention")
    assert len(attention) == LAYERS and trace.flops[0, attention[0]] == 4 * 8 * 16


def test_waves_that_cannot_be() -> None:
    generator = waved(TINY, 1, 2)
    one = batch([3])
    for wrong, message in (
        ([one], "1 batches for 2 data-parallel members"),
        ([empty_batch(), empty_batch()], "at least one request"),
        ([one, batch([1], [1], steps=2)], "the same number of steps"),
        ([one, batch([0])], "at least one token"),
    ):
        with pytest.raises(InternalError, match=message):
            generator.generate(wrong)
    with pytest.raises(InternalError, match="runs a dummy batch, not an empty one"):
        waved(TINY, 2, 2).generate([one, empty_batch()])
    with pytest.raises(UserError, match="48 experts for 50 ranks, so that some would have none; spread them over"):
        waved(TINY, 5, 10)
    with pytest.raises(UserError, match="has no experts to spread"):
        waved(model(), 1, 2)


@pytest.mark.parametrize(("tensor", "data", "expert"), [(2, 1, 2), (2, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("exchange", ["alltoall", "allgather"])
def test_a_trace_says_how_its_experts_exchange(tensor: int, data: int, expert: int, exchange: str) -> None:
    """Where it is not as usual and anything is exchanged."""
    attributes = (
        waved(TINY, tensor, data, expert=expert, expert_exchange=exchange).generate([batch([2])] * data).attributes
    )
    assert attributes["expert_parallel"] == str(expert)
    assert attributes.get("expert_exchange") == (exchange if exchange == "allgather" and expert > 1 else None)
    assert attributes.get("data_parallel") == (str(data) if data > 1 else None)
