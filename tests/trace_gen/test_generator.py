"""Traces: rows and sizes that follow from the model, sharing over ranks, k steps as k traces, arrays reused."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import FAMILIES, LLAMA, QWEN, batch, batches, decodes, generator, model, only_layer, rows_named

from foundation.errors import InternalError
from trace_gen.batch_shape import BatchShape, KVTransfer
from trace_gen.generator import CACHE_ENTRIES, TraceGenerator
from trace_gen.mlp.dense import DenseMlp
from trace_gen.mlp.experts import Experts
from trace_gen.operators import Operator
from trace_gen.perf_models.roofline.model import RooflineModel
from trace_gen.trace import NO_REQUEST, CommType, Location, RowKind, Trace

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
SPREADS = st.sampled_from([(1, 1), (2, 1), (1, 3), (4, 2), (8, 1)])
CHANGING = ("latency_ns", "flops", "mem_bytes")


def all_operators(generated: TraceGenerator) -> list[Operator]:
    operators = generated.operators
    return list(operators)


def test_llama_on_one_rank_row_by_row() -> None:
    trace = generator().generate([batch([3, 1], [0, 9], [True, True])])
    block = [
        "layernorm",
        "qkv_proj",
        "rotary_emb",
        "attention",
        "o_proj",
        "layernorm",
        "gate_up_proj",
        "act_fn",
        "down_proj",
    ]
    names = [trace.name(row) for row in range(trace.rows)]
    assert names == ["embedding", *block * 32, "final_layernorm", "lm_head", "sampler"]
    hidden, token = 4096 * 2, 4
    assert [int(size) for size in trace.input_bytes[:10]] == [
        *(4 * token, 4 * hidden, 4 * hidden, 4 * 6144 * 2, 4 * 6144 * 2),
        *(4 * hidden, 4 * hidden, 4 * hidden, 4 * 28672 * 2, 4 * 14336 * 2),
    ]
    weights = [int(size) // 2 for size in trace.weight_bytes[:10]]
    assert weights == [128256 * 4096, 4096, 4096 * 6144, 0, 0, 4096**2, 4096, 4096 * 28672, 0, 14336 * 4096]
    assert int(trace.output_bytes[-2]) == 2 * 128256 * 2 and int(trace.output_bytes[-1]) == 2 * token
    assert not trace.comm_type.any() and not trace.comm_bytes.any() and not trace.groups


def test_gpt2_has_no_rotary_embedding_and_one_up_projection() -> None:
    trace = generator("gpt2").generate([batch([5])])
    names = [trace.name(row) for row in range(1, 10)]
    assert names == ["layernorm", "qkv_proj", "attention", "o_proj", "layernorm", "fc1", "act_fn", "fc2", "layernorm"]


def test_communication_only_where_ranks_must_agree() -> None:
    trace = generator(tensor=4, pipeline=2).generate([batch([7, 1], [0, 30])])
    for row in range(trace.rows):
        expected = {"embedding": CommType.ALLREDUCE, "o_proj": CommType.ALLREDUCE, "down_proj": CommType.ALLREDUCE}
        kind = {**expected, "lm_head": CommType.ALLGATHER}.get(trace.name(row), CommType.NONE)
        assert trace.comm_type[row] == kind
        assert trace.comm_group[row] == (trace.stage[row] if kind else -1)
        size = {CommType.ALLREDUCE: 8 * 4096 * 2, CommType.ALLGATHER: 2 * 128256 // 4 * 2}.get(kind, 0)
        assert trace.comm_bytes[row] == size
    assert trace.groups == ((0, 1, 2, 3), (4, 5, 6, 7))


def test_only_sampled_sequences_have_logits() -> None:
    two = generator().generate([batch([8, 8, 1], [0, 0, 4], [True, False, True])])
    (head,) = rows_named(two, "lm_head")
    assert two.input_bytes[head] == 2 * 4096 * 2
    assert two.output_bytes[head - 1] == two.input_bytes[head]
    drafts = generator().generate([batch([4, 3], [9, 9], [4, 1])])
    assert drafts.output_bytes[-1] == 5 * 4, "five of seven tokens are sampled"
    none = generator().generate([batch([8], [0], [False])])
    assert none.name(none.rows - 1) == "final_layernorm"
    assert not rows_named(none, "lm_head") and not rows_named(none, "sampler")


def test_kv_transfers_come_first_with_each_ranks_share() -> None:
    loads = (KVTransfer(40, 2, 32, 8_000_000),)
    evictions = (KVTransfer(41, 1, 16, 4_000_000), KVTransfer(42, 1, 16, 1_000_001))
    trace = generator(tensor=2, pipeline=2).generate([batch([1], [5], loads=loads, evictions=evictions)])
    assert [trace.name(row) for row in range(7)] == ["kv_load", "kv_evict", "kv_evict"] * 2 + ["embedding"]
    assert trace.request[:6].tolist() == [40, 41, 42] * 2
    assert trace.stage[:6].tolist() == [0, 0, 0, 1, 1, 1]
    assert trace.input_bytes[:6].tolist() == [2_000_000, 0, 0] * 2
    assert trace.output_bytes[:6].tolist() == [0, 1_000_000, 250_001] * 2
    assert trace.kind[:6].tolist() == [RowKind.MEM_LOAD, RowKind.MEM_STORE, RowKind.MEM_STORE] * 2
    assert (trace.input_loc[0], trace.output_loc[1]) == (Location.REMOTE, Location.REMOTE)
    assert not trace.latency_ns[:, :6].any() and (trace.latency_ns[:, 6:] >= 1).all()


def test_attention_by_request_stands_on_rank_i_modulo_n() -> None:
    shape = replace(batch([3, 1, 1, 1, 1], [0, 7, 7, 7, 7]), request_ids=np.array([10, 11, 12, 13, 14]))
    trace = generator(tensor=2, pipeline=2, attention_placement="requests").generate([shape])
    attention = rows_named(trace, "attention")
    assert len(attention) == 32 * 5
    for index, row in enumerate(attention):
        position = index % 5
        assert trace.request[row] == 10 + position
        assert trace.rank_sets[trace.rank_set[row]] == (2 * int(trace.stage[row]) + position % 2,)
        tokens = int(shape.new_tokens[position])
        assert trace.input_bytes[row] == tokens * 6144 * 2 and trace.output_bytes[row] == tokens * 4096 * 2
    exchanges = [row for row in range(trace.rows) if trace.kind[row] == RowKind.COMM]
    assert {trace.name(row) for row in exchanges} == {"attention_scatter", "attention_gather"}
    assert (trace.comm_type[exchanges] == CommType.ALLTOALL).all() and not trace.latency_ns[:, exchanges].any()
    bare = generator(tensor=2, pipeline=2, attention_placement="requests", attention_exchange=False).generate([shape])
    assert bare.rows == trace.rows - len(exchanges)


def test_exchanges_stand_between_what_they_carry() -> None:
    """Heads come from the rotary embedding; attention takes what the exchange brings, and hands on likewise."""
    for exchange in (True, False):
        made = generator(tensor=2, attention_placement="requests", attention_exchange=exchange)
        block = {operator.name: operator.sources for operator in made.operators.blocks[0]}
        assert block["attention"] == (("attention_scatter",) if exchange else ("rotary_emb",))
        if exchange:
            assert block["attention_scatter"] == ("rotary_emb",) and block["attention_gather"] == ("attention",)


def test_attention_by_request_on_one_rank_is_the_same_as_by_heads() -> None:
    shape = batch([3, 1], [0, 7])
    by_request, by_heads = generator(attention_placement="requests"), generator()
    assert_equal(by_request.generate([shape]), by_heads.generate([shape]))


@SETTINGS
@given(shape=batches, name=st.sampled_from(FAMILIES), spread=SPREADS)
def test_every_input_is_what_its_producers_put_out(shape: BatchShape, name: str, spread: tuple[int, int]) -> None:
    generated = generator(name, *spread)
    trace = generated.generate([shape])
    operators = all_operators(generated)
    width = len(generated.operators.blocks[0])
    head = len(generated.operators.head)
    for row in range(1, trace.rows):
        in_block = row < head + width * generated.architecture.num_layers
        tail = row - head - width * generated.architecture.num_layers
        operator = operators[head + (row - head) % width] if in_block else generated.operators.tail[tail]
        assert operator.name == trace.name(row)
        assert operator.sources
        expected = 0
        for source in operator.sources:
            producer = row - 1
            while source != "residual" and trace.name(producer) != source:
                producer -= 1
            gathered = spread[0] if trace.comm_type[producer] == CommType.ALLGATHER else 1
            expected += int(trace.output_bytes[producer]) * gathered
        assert trace.input_bytes[row] == expected


@SETTINGS
@given(shape=batches, name=st.sampled_from(FAMILIES), spread=SPREADS)
def test_weights_are_those_of_the_memory_layout(shape: BatchShape, name: str, spread: tuple[int, int]) -> None:
    generated = generator(name, *spread)
    trace = generated.generate([replace(shape, samples=np.ones_like(shape.samples))])
    for stage in range(spread[1]):
        held = int(trace.weight_bytes[trace.stage == stage].sum())
        if generated.architecture.tie_word_embeddings and spread[1] == 1:
            held -= int(trace.weight_bytes[rows_named(trace, "lm_head")[0]])
        assert held == generated.memory.weight_bytes(stage)


@SETTINGS
@given(shape=batches, name=st.sampled_from(FAMILIES))
def test_flops_are_two_a_weight_and_token_and_four_a_pair(shape: BatchShape, name: str) -> None:
    shape_of = model(name)
    trace = generator(name).generate([replace(shape, samples=np.ones_like(shape.samples))])
    tokens, sequences = shape.total_tokens, len(shape.request_ids)
    attention, mlp = only_layer(shape_of)
    query = attention.heads * attention.head_dim
    matrices = 2 * query + 2 * attention.kv_heads * attention.head_dim
    if isinstance(mlp, DenseMlp):
        matrices += (3 if mlp.gated else 2) * mlp.width
    else:
        assert isinstance(mlp, Experts)
        matrices += 3 * (mlp.per_token * mlp.width + mlp.shared_width)
    expected = 2 * tokens * shape_of.num_layers * matrices * shape_of.hidden_size
    expected += 2 * sequences * shape_of.vocab_size * shape_of.hidden_size
    for new, context in zip(shape.new_tokens.tolist(), shape.context_tokens.tolist(), strict=True):
        pairs = sum(context + query for query in range(1, new + 1))
        expected += 4 * query * pairs * shape_of.num_layers
    assert expected <= int(trace.flops.sum()) < 1.02 * expected


@SETTINGS
@given(shape=batches, tensor=st.sampled_from([2, 4, 8]), name=st.sampled_from([LLAMA, "huggyllama/llama-7b"]))
def test_ranks_share_the_work(shape: BatchShape, tensor: int, name: str) -> None:
    """What is divided adds up to the whole; norms, lookups and sampling every rank does itself."""
    one, all_ranks = generator(name).generate([shape]), generator(name, tensor).generate([shape])
    for row in range(one.rows):
        operator = one.name(row)
        shared = operator.endswith("proj") or operator in {"attention", "act_fn", "rotary_emb", "lm_head"}
        factor = tensor if shared else 1
        assert int(all_ranks.flops[0, row]) * factor == int(one.flops[0, row]), operator
        if shared:
            assert int(all_ranks.weight_bytes[row]) * tensor == int(one.weight_bytes[row])
            assert int(all_ranks.mem_bytes[0, row]) * tensor >= int(one.mem_bytes[0, row])


@SETTINGS
@given(shape=batches, pipeline=st.integers(2, 7), tensor=st.sampled_from([1, 2]))
def test_stages_only_divide_the_rows(shape: BatchShape, pipeline: int, tensor: int) -> None:
    flat, staged = (
        generator(tensor=tensor).generate([shape]),
        generator(tensor=tensor, pipeline=pipeline).generate([shape]),
    )
    for field in (*CHANGING, "op", "layer", "input_bytes", "weight_bytes", "output_bytes", "comm_bytes"):
        np.testing.assert_array_equal(getattr(flat, field), getattr(staged, field))
    assert (np.diff(staged.stage) >= 0).all() and staged.stages == pipeline
    assert staged.rank_sets == tuple(tuple(range(s * tensor, (s + 1) * tensor)) for s in range(pipeline))
    np.testing.assert_array_equal(staged.rank_set, staged.stage)


@SETTINGS
@given(
    contexts=decodes,
    steps=st.integers(2, 9),
    placement=st.sampled_from(["heads", "requests"]),
    name=st.sampled_from(FAMILIES),
)
def test_k_steps_are_k_traces(contexts: list[int], steps: int, placement: str, name: str) -> None:
    generated = generator(name, tensor=2, attention_placement=placement)
    shape = batch([1] * len(contexts), contexts, steps=steps)
    together = generated.generate([shape])
    assert together.steps == steps
    for step in range(steps):
        single = generated.generate([replace(shape, context_tokens=shape.context_tokens + step, steps=1)])
        for field in CHANGING:
            np.testing.assert_array_equal(getattr(together, field)[step], getattr(single, field)[0])
        assert together.input_bytes is single.input_bytes


def test_arrays_are_the_same_objects_while_only_contexts_change() -> None:
    for placement in ("heads", "requests"):
        generated = generator(tensor=2, attention_placement=placement)
        first = generated.generate([batch([1, 1], [10, 20])])
        later = generated.generate([batch([1, 1], [500, 510], steps=7)])
        for field in Trace.__dataclass_fields__:
            if field != "work":
                assert getattr(first, field) is getattr(later, field), field
        assert first.work.column is later.work.column
    generated = generator()
    others = (
        generated.generate([batch([1, 1], [10, 20], first_id=5)]),
        generated.generate([batch([1, 1, 1], [1, 2, 3])]),
    )
    assert others[0].input_bytes is others[0].input_bytes and others[0].op is others[1].op


def misses(generated: TraceGenerator) -> tuple[int, int, int]:
    return generated.structures.misses, generated.sizes.misses, generated.request_columns.misses


@pytest.mark.parametrize("placement", ["heads", "requests"])
def test_what_is_known_is_not_made_again(monkeypatch: pytest.MonkeyPatch, placement: str) -> None:
    """Steady decoding takes the fast path: rows, sizes, ids and the roofline's plain operators are worked out once."""
    plain: list[int] = []
    original = RooflineModel._plain_ns
    monkeypatch.setattr(RooflineModel, "_plain_ns", lambda model, table: plain.append(1) or original(model, table))
    generated = generator(tensor=2, attention_placement=placement)
    for context in range(20):
        generated.generate([batch([1, 1], [context, 50 + context], steps=1 + context % 3)])
    assert misses(generated) == (1, 1, 1) and len(plain) == 1
    generated.generate([batch([1, 1], [5, 5], first_id=7)])
    assert misses(generated) == (1, 1, 2) and len(plain) == 1, "other requests change their ids alone"
    generated.generate([batch([9, 1], [5, 5])])
    assert misses(generated) == (1, 2, 2) and len(plain) == 2, "other tokens change sizes"
    generated.generate([batch([9, 1, 1], [5, 5, 5])])
    by_request = placement == "requests"
    assert misses(generated) == (2 if by_request else 1, 3, 3), "a request more changes rows where it has its own"
    generated.generate([batch([9], [5], samples=[0])])
    assert misses(generated) == (3 if by_request else 2, 4, 4), "no logits, no head"


@SETTINGS
@given(shapes=st.lists(batches, min_size=2, max_size=5), placement=st.sampled_from(["heads", "requests"]))
def test_what_was_generated_before_does_not_matter(shapes: list[BatchShape], placement: str) -> None:
    """Neither lengths in another order, nor other ids, nor other transfers find the wrong cached columns."""
    used = generator("gpt2", tensor=2, attention_placement=placement)
    transfers = (KVTransfer(77, 1, 16, 1000),)
    for shape in shapes:
        turned = replace(shape, new_tokens=shape.new_tokens[::-1].copy(), samples=shape.samples[::-1].copy())
        renamed = replace(shape, request_ids=shape.request_ids + 100)
        for variant in (shape, turned, renamed, replace(shape, kv_loads=transfers)):
            fresh = generator("gpt2", tensor=2, attention_placement=placement)
            assert_equal(used.generate([variant]), fresh.generate([variant]))


def test_a_generator_forgets_the_oldest_sizes_and_still_answers_alike() -> None:
    generated = generator("gpt2")
    first = generated.generate([batch([1])])
    for tokens in range(2, CACHE_ENTRIES + 1):
        generated.generate([batch([tokens])])
    assert generated.generate([batch([1])]).input_bytes is first.input_bytes, "still known, and now the newest"
    for tokens in range(CACHE_ENTRIES + 1, 2 * CACHE_ENTRIES + 1):
        generated.generate([batch([tokens])])
    again = generated.generate([batch([1])])
    assert again.input_bytes is not first.input_bytes
    assert_equal(first, again)


@SETTINGS
@given(shape=batches, spread=SPREADS)
def test_the_backends_model_has_the_same_work_and_no_latencies(shape: BatchShape, spread: tuple[int, int]) -> None:
    timed = generator(LLAMA, *spread).generate([shape])
    untimed = generator(LLAMA, *spread, perf_model="backend").generate([shape])
    np.testing.assert_array_equal(timed.flops, untimed.flops)
    np.testing.assert_array_equal(timed.mem_bytes, untimed.mem_bytes)
    assert (untimed.latency_ns == 1).all()
    assert untimed.attributes["latency_source"] == "backend"


def test_rows_without_dependencies_and_requests() -> None:
    trace = generator().generate([batch([4], [0], first_id=3)])
    assert not trace.dep_rows.size and not trace.dep_offsets.any()
    assert (trace.request == NO_REQUEST).all() and trace.batch_requests.tolist() == [3]


def test_heads_that_ranks_do_not_divide_are_reported() -> None:
    assert "split evenly" in generator("gpt2", tensor=5).warnings[0]
    assert not generator(tensor=8).warnings


def test_batches_that_cannot_be() -> None:
    samples, decodes_only = "samples at least none and at most all of the tokens", "several steps holds decodes only"
    for wrong, message in (
        (batch([]), "at least one request"),
        (batch([0]), "computes at least one token"),
        (batch([2, 1], steps=2), decodes_only),
        (batch([1], samples=[0], steps=2), decodes_only),
        (batch([1, 1], samples=[2, 0], steps=2), samples),
        (batch([2], samples=[3]), samples),
        (batch([2], samples=[-1]), samples),
    ):
        with pytest.raises(InternalError, match=message):
            generator().generate([wrong])


def assert_equal(one: Trace, other: Trace) -> None:
    for field in (*Trace.__dataclass_fields__, *CHANGING):
        if field == "work":
            continue
        left, right = getattr(one, field), getattr(other, field)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right, field)
        else:
            assert left == right, field


@pytest.mark.parametrize(("name", "placement", "expert"), [(LLAMA, "requests", 1), (QWEN, "heads", 2)])
def test_columns_have_the_types_that_are_declared(name: str, placement: str, expert: int) -> None:
    """Whole numbers stay whole: what goes on to files and backends is never rounded on the way."""
    made = generator(name, 2, 2, expert=expert, attention_placement=placement)
    moved = (KVTransfer(1, 1, 16, 4096),)
    trace = made.generate([batch([5, 1], [0, 30], loads=moved, evictions=moved)])
    checked = 0
    for column in (*fields(trace), *fields(trace.work)):
        value = getattr(trace, column.name, None) if column.name != "column" else trace.work.column
        if isinstance(value, np.ndarray):
            declared = "int64" if column.type == "IntArray" else str(column.type).partition("np.")[2].rstrip("]")
            assert value.dtype == np.dtype(declared), column.name
            checked += 1
    assert checked == 28
