"""Sequences divided over ranks: rows, bytes, FLOPs and KV cache of one rank, worked out by hand.

Llama-3.1-8B on TP 2: a token's queries are 16 heads x 128 x 2 bytes = 4,096, its keys and values 2 x 4 x 128 x 2 =
2,048; a query-key pair takes 4 x 16 x 128 = 8,192 FLOPs. A prompt of 1,000 tokens on 24 in the cache has
1000 x 24 + 1000 x 1001 / 2 = 524,500 pairs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import (
    LLAMA,
    MIXTRAL,
    batch,
    batches,
    decodes,
    experts_of,
    make_generator,
    model,
    only_layer,
    rows_named,
    with_layers,
)

from analytical.embedded import create
from converters.lowering import lower
from foundation.errors import UserError
from trace_gen.architecture import Layer
from trace_gen.attention.divided import ContextDivision
from trace_gen.batch_shape import BatchShape, KVTransfer
from trace_gen.memory import ModelMemory
from trace_gen.mesh import Mesh
from trace_gen.operator_table import LayerFacts
from trace_gen.operators import Portion
from trace_gen.precision import Precision
from trace_gen.trace import CommType, OperatorClass, Trace
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace

QUERY, KV, PAIR = 4096, 2048, 8192
MIXED = batch([1000, 1, 1, 1], [24, 99, 100, 7])
SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)


def short(name: str = LLAMA, layers: int = 2) -> Any:
    return with_layers(model(name), *model(name).layers[:layers])


def traced(shape: BatchShape, tensor: int = 2, context: int = 4, **options: Any) -> Trace:
    return make_generator(short(), tensor, context=context, **options).generate([shape])


def block(trace: Trace) -> list[tuple[str, int, int, str, int, list[int]]]:
    """Return the first layer's rows: name, bytes in and out, collective and its bytes, and which rows are awaited."""
    return [
        (
            trace.name(row),
            int(trace.input_bytes[row]),
            int(trace.output_bytes[row]),
            CommType(trace.comm_type[row]).name,
            int(trace.comm_bytes[row]),
            [row - parent for parent in trace.dependencies(row).tolist()],
        )
        for row in np.flatnonzero(trace.layer == 0).tolist()
    ]


def test_a_ring_by_hand() -> None:
    """1,003 tokens on 4 ranks are 251 each; 1,024 keys and values are passed on in 4 blocks of 256."""
    rows = block(traced(MIXED))
    hidden, passed = 251 * 8192, 256 * KV
    assert rows[:4] == [
        ("layernorm", hidden, hidden, "NONE", 0, []),
        ("qkv_proj", hidden, 251 * (QUERY + KV), "NONE", 0, []),
        ("rotary_emb", 251 * (QUERY + KV), 251 * (QUERY + KV), "NONE", 0, []),
        ("query_gather", QUERY, 3 * QUERY, "ALLGATHER", QUERY, []),
    ]
    assert rows[4:8] == [
        ("attention", 3 * QUERY, 3 * QUERY, "NONE", 0, []),
        ("lse_gather", 3 * 16 * 4, 4 * 3 * 16 * 4, "ALLGATHER", 3 * 16 * 4, []),
        ("attention_merge", 3 * QUERY, 3 * QUERY, "NONE", 0, []),
        ("output_scatter", 3 * QUERY, QUERY, "REDUCESCATTER", 3 * QUERY, []),
    ]
    own = ("attention", 250 * QUERY, 250 * QUERY, "NONE", 0)
    move = ("kv_pass", passed, passed, "PERMUTE", passed, [2])
    assert rows[8:15] == [(*own, []), *[move, (*own, [2, 1])] * 3]
    assert rows[15] == ("o_proj", 251 * QUERY, hidden, "ALLREDUCE", hidden, [])


def test_an_all_gather_by_hand() -> None:
    rows = block(traced(MIXED, context_mode="allgather"))
    part = 256 * KV
    assert rows[8:10] == [
        ("kv_gather", part, 4 * part, "ALLGATHER", part, []),
        ("attention", 250 * QUERY, 250 * QUERY, "NONE", 0, []),
    ]
    assert rows[10][0] == "o_proj"


@pytest.mark.parametrize(
    ("mode", "prompts"),
    # a block of the ring: pairs / 16; 256 of the cache read, 1000 / 16 written; all: pairs / 4, 1,024 and 250
    [("ring", [(32782, 256 + 63)] * 4), ("allgather", [(131125, 1024 + 250)])],
)
def test_work_of_attention_by_hand(mode: str, prompts: list[tuple[int, int]]) -> None:
    """Decodes attend to 100, 101 and 8 tokens, of which the fullest rank has 25, 26 and 2; each writes its own."""
    trace = traced(MIXED, context_mode=mode)
    rows = [row for row in rows_named(trace, "attention") if trace.layer[row] == 0]
    found = [(int(trace.flops[0, row]), int(trace.mem_bytes[0, row])) for row in rows]
    decoding = (53 * PAIR, (53 + 3) * KV + 3 * 2 * QUERY)
    assert found == [decoding, *((pairs * PAIR, kept * KV + 250 * 2 * QUERY) for pairs, kept in prompts)]
    (merge, *_) = rows_named(trace, "attention_merge")
    assert trace.flops[0, merge] == 2 * 3 * 2048
    assert trace.mem_bytes[0, merge] == 2 * 3 * QUERY + 3 * 4 * 64


def test_only_what_the_batch_needs() -> None:
    around = {"query_gather", "lse_gather", "attention_merge", "output_scatter"}
    only_prompts = {name for name, *_ in block(traced(batch([8, 9])))}
    assert "kv_pass" in only_prompts and not only_prompts & around
    only_decodes = {name for name, *_ in block(traced(batch([1, 1], [5, 6])))}
    assert around <= only_decodes and not only_decodes & {"kv_pass", "kv_gather"}


def test_decodes_of_several_steps_grow_by_a_token_a_step() -> None:
    trace = traced(batch([1, 1], [6, 9], steps=4))
    (row, _) = rows_named(trace, "attention")
    # 7, 8, 9, 10 and 10, 11, 12, 13 tokens on 4 ranks
    assert trace.flops[:, row].tolist() == [PAIR * pairs for pairs in (2 + 3, 2 + 3, 3 + 3, 3 + 4)]


def test_drafts_are_verified_where_the_cache_is() -> None:
    """A request that verifies 3 drafts beside its token, on 100 tokens: 4 queries are gathered, 410 pairs divided."""
    shape = batch([4, 1, 4], [100, 7, 100], [4, 1, 1])
    trace = traced(shape)
    gather, attention = rows_named(trace, "query_gather")[0], rows_named(trace, "attention")[0]
    assert (trace.input_bytes[gather], trace.output_bytes[gather]) == (2 * QUERY, 5 * QUERY)
    assert trace.flops[0, attention] == (103 + 2) * PAIR
    assert trace.mem_bytes[0, attention] == (26 + 1 + 2 + 1) * KV + 5 * 2 * QUERY
    moved = rows_named(trace, "kv_pass")[0]
    assert trace.comm_bytes[moved] == 26 * KV  # a chunk of 4 tokens, of which only the last is sampled


def test_windows_bound_what_is_passed_on() -> None:
    attention, mlp = only_layer(model(LLAMA))
    layers = [Layer(replace(attention, window=window), mlp) for window in (100, None)]
    generator = make_generator(with_layers(model(LLAMA), *layers), 2, context=4)
    trace = generator.generate([batch([40, 1], [500, 500])])
    moved = [int(trace.comm_bytes[row]) for row in rows_named(trace, "kv_pass")]
    assert moved == [35 * KV] * 3 + [135 * KV] * 3  # of 100 + 40 - 1 tokens, and of 540
    first, *_ = rows_named(trace, "attention")
    assert trace.flops[0, first] == 25 * PAIR


def test_groups_side_by_side() -> None:
    """Two stages of TP 2 x CP 2: ranks 0-3 and 4-7; neighbours are tensor-parallel."""
    trace = make_generator(short(), 2, 2, context=2).generate([MIXED])
    group_of = {trace.name(row): int(trace.comm_group[row]) for row in range(trace.rows) if trace.comm_group[row] >= 0}
    assert trace.rank_sets == ((0, 1, 2, 3), (4, 5, 6, 7))
    divided = {
        name: (trace.groups[group], trace.group_parts[group], trace.group_size(group))
        for name, group in group_of.items()
    }
    assert divided["embedding"] == ((0, 1, 2, 3), 2, 2)
    assert divided["o_proj"] == ((4, 5, 6, 7), 2, 2)
    assert divided["kv_pass"] == divided["query_gather"] == ((4, 6, 5, 7), 2, 2)


def test_whole_experts_are_spread_over_context_ranks_too() -> None:
    architecture = short(MIXTRAL)
    trace = make_generator(architecture, 2, expert=4, context=2).generate([batch([101])])
    dispatch, combine, *_ = (rows_named(trace, name)[0] for name in ("expert_dispatch", "expert_combine"))
    # 51 tokens on each context-parallel rank, copied twice, shared by two tensor-parallel ranks
    assert trace.comm_bytes[dispatch] == trace.comm_bytes[combine] == 51 * 4096 * 2
    assert (
        trace.groups[trace.comm_group[dispatch]] == (0, 1, 2, 3) and trace.group_size(trace.comm_group[dispatch]) == 4
    )
    up = rows_named(trace, "expert_gate_up_proj")[0]
    assert trace.input_bytes[up] == 51 * 4096 * 2  # 101 x 2 copies on 4 ranks
    held = experts_of(architecture).held(4)
    assert trace.weight_bytes[up] == held * 4096 * 2 * 14336 * 2 and held == 2


def finish(trace: Trace, dims: tuple[int, ...] | None, bandwidth: float = 50.0) -> dict[int, int]:
    count = max(rank for ranks in trace.rank_sets for rank in ranks) + 1
    shape = dims or (count,)
    network = (
        f"topology: [ {', '.join(['FullyConnected'] * len(shape))} ]\nnpus_count: {list(shape)}\n"
        f"bandwidth: {[bandwidth] * len(shape)}\nlatency: {[500.0] * len(shape)}\n"
    )
    rows = ", ".join(
        f'"{kind}-implementation": {["ring"] * len(shape)}'.replace("'", '"')
        for kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    )
    system = (
        '{"scheduling-policy": "LIFO", "endpoint-delay": 10, "active-chunks-per-dimension": 1, '
        '"preferred-dataset-splits": 1, "collective-optimization": "localBWAware", "local-mem-bw": 1000, '
        f'"peak-perf": 1, "roofline-enabled": 1, {rows}}}'
    )
    memory = '{"memory-type": "NO_MEMORY_EXPANSION"}'
    graph = lower(trace, network_dims=dims)
    result = create(network=network, system=system, memory=memory, options={}).simulate(graph)
    return {rank: int(one[0]) for rank, one in result.by_rank().items()}


@pytest.mark.parametrize("bandwidth", [5.0, 5000.0])
def test_a_ring_hides_what_attention_takes_longer_than(bandwidth: float) -> None:
    """Each of the 3 passes runs beside a block's attention, and whichever takes longer counts."""
    one = with_layers(model(LLAMA), *model(LLAMA).layers[:1])
    shape = batch([4000])
    trace = make_generator(one, 1, context=4).generate([shape])
    alone = int(trace.latency_ns[0].sum())
    first = rows_named(trace, "attention")[0]
    block_ns = int(trace.latency_ns[0, first])
    size = int(trace.comm_bytes[rows_named(trace, "kv_pass")[0]])
    hop = 500 + size / (bandwidth * 2**30) * 1e9  # one link of a fully connected network
    (found,) = set(finish(trace, None, bandwidth).values())
    exposed = 3 * max(0.0, hop - block_ns)
    assert found - alone == pytest.approx(exposed, rel=0.01, abs=100)
    assert (exposed > 0) == (bandwidth == 5.0)


@pytest.mark.parametrize("mode", ["ring", "allgather"])
@pytest.mark.parametrize("dims", [None, (2, 2, 2)])
def test_groups_and_dimensions_finish_on_every_rank(mode: str, dims: tuple[int, ...] | None) -> None:
    trace = make_generator(short(), 2, 2, context=2, context_mode=mode, sequence_parallel=True).generate([MIXED])
    times = finish(trace, dims)
    assert sorted(times) == list(range(8))
    assert len({times[rank] for rank in range(4, 8)}) == 1
    assert min(times.values()) >= int(trace.latency_ns[0, trace.stage == 0].sum())


@SETTINGS
@given(
    shape=st.one_of(
        batches,
        decodes.map(lambda contexts: batch([1] * len(contexts), contexts)),
        decodes.map(lambda contexts: batch([3] * len(contexts), contexts, [3] * len(contexts))),
    ),
    tensor=st.sampled_from([1, 2, 8]),
    context=st.integers(2, 5),
    mode=st.sampled_from(["ring", "allgather"]),
    scattered=st.booleans(),
)
def test_every_rule_holds(shape: BatchShape, tensor: int, context: int, mode: str, scattered: bool) -> None:
    architecture = short()
    generator = make_generator(architecture, tensor, context=context, context_mode=mode, sequence_parallel=scattered)
    facts = ModelFacts(architecture, generator.mesh, generator.precision, (shape,))
    findings = run_rules(of_trace("drawn", generator.generate([shape]), facts))
    assert not findings.violations and "context-parallel" not in findings.skipped


@SETTINGS
@given(shape=batches, context=st.integers(2, 6), mode=st.sampled_from(["ring", "allgather"]))
def test_attention_over_all_ranks_is_the_undivided_attention_but_for_rounding(
    shape: BatchShape, context: int, mode: str
) -> None:
    def work(trace: Trace) -> int:
        return int(trace.flops[0, (trace.operator_class == OperatorClass.ATTENTION)].sum())

    whole, part = work(traced(shape, context=1)), work(traced(shape, context=context, context_mode=mode))
    rows = 2 * len(shape.request_ids) * (context if mode == "ring" else 1)
    assert whole <= context * part < whole + context * rows * PAIR


def test_the_same_sizes_are_the_same_arrays_and_others_are_not() -> None:
    """A decode keeps its sizes; a prompt on more context passes on more."""
    generator = make_generator(short(), 2, context=2)
    first, later = (generator.generate([batch([1, 1], [context, 7])]) for context in (10, 11))
    assert first.comm_bytes is later.comm_bytes and first.dep_rows is later.dep_rows
    prompts = [generator.generate([batch([8, 1], [context, 7])]) for context in (16, 32)]
    row = rows_named(prompts[0], "kv_pass")[0]
    assert [int(trace.comm_bytes[row]) for trace in prompts] == [12 * KV, 20 * KV]
    swapped = [generator.generate([batch(new, context)]) for new, context in (([9, 1], [0, 5]), ([8, 2], [0, 5]))]
    assert swapped[0].comm_bytes is not swapped[1].comm_bytes


def test_a_rank_keeps_its_part_of_the_cache() -> None:
    whole, part = (ModelMemory(model(LLAMA), Mesh(2, 2, context=context)) for context in (1, 4))
    assert whole.kv_bytes_per_token(0) == part.kv_bytes_per_token(0) == 16 * KV
    assert whole.kv_bytes_per_token_all_ranks == part.kv_bytes_per_token_all_ranks == 2 * 32 * KV
    moved = 64 * whole.kv_bytes_per_token_all_ranks
    assert whole.transfer_share(moved, 1) == 64 * 16 * KV
    assert part.transfer_share(moved, 1) == 16 * 16 * KV
    assert part.weight_bytes(0) == whole.weight_bytes(0)


def test_moved_blocks_come_to_what_is_moved() -> None:
    load = KVTransfer(0, 4, 64, 64 * 2 * 2 * KV)
    generator = make_generator(short(), 2, context=4)
    trace = generator.generate([batch([1], [64], loads=(load,))])
    (row,) = rows_named(trace, "kv_load")
    assert 8 * int(trace.input_bytes[row]) == load.bytes


def test_what_context_parallelism_does_not_go_with() -> None:
    with pytest.raises(UserError, match="--cp_size: 2 context-parallel ranks divide every request, but att"):
        make_generator(model(LLAMA), 2, context=2, attention_placement="requests")
    generator = make_generator(model(LLAMA), 1, context=2, attention_placement="requests")
    assert not generator.by_request  # one tensor-parallel rank has all heads


@SETTINGS
@given(
    st.lists(st.tuples(st.just(1) | st.integers(1, 9000), st.integers(0, 20_000)), min_size=1, max_size=6),
    st.sampled_from([LLAMA, "gpt-oss-20b", "Llama-4-Scout-17B-16E-Instruct", "DeepSeek-V2-Lite"]),
    st.booleans(),
)
def test_one_rank_has_the_work_of_undivided_attention(requests: list[tuple[int, int]], name: str, ring: bool) -> None:
    """Plain, windowed, chunked and latent attention."""
    whole, division = (
        batch([new for new, _ in requests], [context for _, context in requests]),
        ContextDivision(1, ring),
    )
    for kind in model(name).layer_kinds:
        facts = LayerFacts(kind.attention.shapes(1, Precision()), None)
        for portion, own, divided in (
            (Portion.DECODES, whole.only(whole.decoding), division.decodes),
            (Portion.PROMPTS, whole.only(~whole.decoding), division.prompts),
        ):
            shape = facts.shape_for(portion)
            part, found = divided(shape, whole)
            wanted = shape.work(own)
            assert np.array_equal(found.flops, wanted.flops) and np.array_equal(found.mem_bytes, wanted.mem_bytes)
            assert np.array_equal(part.new_tokens, own.new_tokens)
            assert np.array_equal(part.context_tokens, own.context_tokens)
