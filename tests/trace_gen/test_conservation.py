"""Work and weights summed over ranks do not depend on the parallelism, but for what is replicated by design.

`COPIED_WORK` and `COPIED_WEIGHTS` name all that is (docs/parallelism.md has the same list); what stands in neither is
divided, exactly where the ranks divide dimensions and tokens, and rounded up where they do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import FAMILIES, batch, make_generator, model

from trace_gen.architecture import Layer, LayerRun, ModelArchitecture, NormKind
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.batch_shape import BatchShape
from trace_gen.mesh import Mesh
from trace_gen.mlp.dense import DenseMlp
from trace_gen.mlp.experts import Experts
from trace_gen.trace import CommType, RowKind, Trace

SETTINGS = settings(max_examples=120, deadline=None, derandomize=True)
HIDDEN, HEADS, KV_HEADS, HEAD, INNER, VOCABULARY, LAYERS = 64, 8, 2, 16, 128, 512, 4
COUNT, CHOSEN, WIDTH, SHARED = 16, 2, 32, 64
PLAIN = Layer(GroupedAttention(HEADS, KV_HEADS, HEAD), DenseMlp(INNER))
BIASED = Layer(GroupedAttention(HEADS, HEADS, HEAD, False, True, True), DenseMlp(INNER, False, True))
SPARSE = Layer(GroupedAttention(HEADS, KV_HEADS, HEAD, qk_norm=True), Experts(COUNT, CHOSEN, WIDTH, SHARED, True))


def architecture(name: str, layer: Layer, norm: NormKind = NormKind.RMS, positions: int = 0) -> ModelArchitecture:
    runs = (LayerRun(layer, LAYERS),)
    return ModelArchitecture(name, "tiny", HIDDEN, runs, VOCABULARY, 4096, norm, False, position_rows=positions)


MODELS = {
    "plain": architecture("plain", PLAIN),
    "biased": architecture("biased", BIASED, NormKind.LAYER, 100),
    "sparse": architecture("sparse", SPARSE),
}


@dataclass(frozen=True)
class Case:
    """A model on a mesh, and how its work is exchanged."""

    model: str
    mesh: Mesh
    mode: str
    exchange: str
    scattered: bool

    @property
    def spread(self) -> bool:
        return self.mesh.expert > 1

    @property
    def kv_copies(self) -> int:
        """Tensor-parallel ranks that hold the same KV head."""
        heads = MODELS[self.model].layers[0].attention.kv_heads  # type: ignore[attr-defined]
        return max(1, self.mesh.tensor // heads)

    def trace(self, wave: list[BatchShape]) -> Trace:
        mesh = self.mesh
        generator = make_generator(
            MODELS[self.model],
            mesh.tensor,
            mesh.pipeline,
            expert=mesh.expert,
            data=mesh.data,
            context=mesh.context,
            layers=mesh.layers,
            context_mode=self.mode,
            expert_exchange=self.exchange,
            sequence_parallel=self.scattered,
        )
        return generator.generate(wave)


KV_WIDTH = KV_HEADS * HEAD
Copies = Callable[[Case], int]
Part = Callable[[Case], Fraction]


def everywhere(case: Case) -> int:
    return case.mesh.tensor


def part(numerator: int, denominator: int) -> Part:
    return lambda case: Fraction(numerator, denominator)


def of_kv(query: int, key: int, values: int) -> Part:
    """Keys and values among queries, keys and values; where every head is a KV head nothing is copied."""
    return lambda case: Fraction(key + values, query + key + values) if case.kv_copies > 1 else Fraction(0)


WHOLE, QUERIES = part(1, 1), HEADS * HEAD
BIAS = {"o_proj": 2 * QUERIES + 1, "fc2": 2 * INNER + 1}
COPIED_WORK: dict[str, tuple[Part, Copies]] = {
    # Norms over the hidden state: every tensor-parallel rank, unless they are shared out by token.
    **dict.fromkeys(("layernorm", "final_layernorm"), (WHOLE, lambda case: 1 if case.scattered else case.mesh.tensor)),
    # KV heads beyond their number are held by several ranks, with their projections, norms and rotations.
    "qkv_proj": (of_kv(QUERIES, KV_WIDTH, KV_WIDTH), lambda case: case.kv_copies),
    "qk_norm": (of_kv(QUERIES, KV_WIDTH, 0), lambda case: case.kv_copies),
    "rotary_emb": (of_kv(QUERIES, KV_WIDTH, 0), lambda case: case.kv_copies),
    # Biases of row-parallel projections are added on every rank; here, and in fc2 of the biased model alone.
    **{
        name: ((lambda case, flops=flops: Fraction(case.model == "biased", flops)), everywhere)
        for name, flops in BIAS.items()
    },
    # Scores of experts, learned positions and sampling are small, and done by all tensor-parallel ranks.
    **dict.fromkeys(("router", "embedding", "sampler"), (WHOLE, everywhere)),
    # Partial sums of divided experts are of all tokens on every rank.
    "expert_sum": (WHOLE, lambda case: 1 if case.spread else case.mesh.tensor),
}
"""Operator -> the share of its work that several tensor-parallel ranks do, and how many of them."""
CONTEXT_ONLY = {"attention_merge"}
"""Work that there is for the sake of context parallelism alone."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(sorted(MODELS)))
    tensor, context = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([1, 2, 4]))
    data = draw(st.sampled_from([1, 2])) if name == "sparse" else 1
    stage = tensor * context * data
    expert = stage if name == "sparse" and COUNT % stage == 0 and draw(st.booleans()) else 1
    pipeline = draw(st.integers(1, LAYERS))
    edges = sorted(draw(st.sets(st.integers(1, LAYERS - 1), min_size=pipeline - 1, max_size=pipeline - 1)))
    layers = tuple(last - first for first, last in pairwise((0, *edges, LAYERS))) if draw(st.booleans()) else ()
    mode = draw(st.sampled_from(["ring", "allgather"]))
    exchange = draw(st.sampled_from(["alltoall", "allgather"]))
    mesh = Mesh(tensor, pipeline, expert, data, context, layers)
    return Case(name, mesh, mode, exchange, tensor > 1 and draw(st.booleans()))


def wave_of(case: Case) -> list[BatchShape]:
    """Tokens, logits and decodes that every degree divides: 128 of each prompt, 32 decodes."""
    new, context = [128] * 2 + [1] * 32, [0, 256, *range(63, 63 + 32 * 32, 32)]
    samples = [0, 0] + [1] * 32
    return [batch(new, context, samples, first_id=100 * member) for member in range(case.mesh.data)]


def summed(trace: Trace, column: np.ndarray) -> dict[str, int]:
    """Return the column of rows summed over all ranks that run them, by operator."""
    ranks = np.array([len(ranks) for ranks in trace.rank_sets])[trace.rank_set]
    totals = np.bincount(trace.op, weights=(column * ranks).astype(np.float64), minlength=len(trace.op_names))
    return {name: int(total) for name, total in zip(trace.op_names, totals.tolist(), strict=True) if total}


def whole(case: Case) -> Trace:
    return make_generator(MODELS[case.model]).generate(wave_of(case)[:1])


@SETTINGS
@given(case=cases())
def test_work_over_all_ranks(case: Case) -> None:
    divided, undivided = case.trace(wave_of(case)), whole(case)
    found, expected = summed(divided, divided.flops[0]), summed(undivided, undivided.flops[0])
    assert found.keys() - CONTEXT_ONLY == expected.keys()
    for name, flops in expected.items():
        share, copies = COPIED_WORK.get(name, (part(0, 1), everywhere))
        needed = case.mesh.data * flops * (1 + share(case) * (copies(case) - 1))
        if name == "attention" and case.mesh.context > 1:  # its pairs are rounded up for each request and block
            most = LAYERS * case.mesh.ranks * 34 * case.mesh.context * 4 * QUERIES
            assert needed <= found[name] <= needed + most
        else:
            assert found[name] == needed, (name, float(found[name] / flops))


COPIED_WEIGHTS: dict[str, Part] = {
    **dict.fromkeys(("layernorm", "final_layernorm", "qk_norm", "router"), WHOLE),
    "embedding": lambda case: Fraction(100, 100 + VOCABULARY) if case.model == "biased" else Fraction(0),
    "o_proj": lambda case: Fraction(case.model == "biased", QUERIES + 1),
    "fc2": lambda case: Fraction(1, INNER + 1),
}
"""Operator -> the share of its weights that every tensor-parallel rank has: norms, routers, position tables, and the
biases of row-parallel projections. KV heads are copied as their work is; context-parallel ranks and members hold the
weights of a whole model each, but for experts that are spread over them."""


@SETTINGS
@given(case=cases())
def test_weights_over_all_ranks(case: Case) -> None:
    divided, undivided = case.trace(wave_of(case)), whole(case)
    found, expected = summed(divided, divided.weight_bytes), summed(undivided, undivided.weight_bytes)
    assert found.keys() == expected.keys()
    for name, size in expected.items():
        share, copies = COPIED_WEIGHTS.get(name, part(0, 1))(case), case.mesh.tensor
        if name == "qkv_proj":
            share, copies = COPIED_WORK[name][0](case), case.kv_copies
        everyone = case.mesh.data * case.mesh.context
        if case.spread and name in ("expert_gate_up_proj", "expert_down_proj"):
            everyone = 1
        assert found[name] == everyone * size * (1 + share * (copies - 1)), name


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("tensor", "context"), [(3, 1), (5, 2), (1, 3), (7, 3)])
def test_rounding_never_loses_work(name: str, tensor: int, context: int) -> None:
    """Where ranks do not divide anything, every rank counts as the fullest: a little more, never less."""
    small = replace(model(name), runs=(LayerRun(model(name).layers[0], 2),))
    shape = batch([257, 1, 1, 1, 1, 1], [0, 99, 501, 1, 7, 8])
    one = make_generator(small).generate([shape])
    many = make_generator(small, tensor, context=context).generate([shape])
    for column in ("flops", "weight_bytes"):
        single, several = (
            summed(trace, trace.flops[0] if column == "flops" else trace.weight_bytes) for trace in (one, many)
        )
        assert all(several[operator] >= amount for operator, amount in single.items())
        heavy = {operator: amount for operator, amount in single.items() if "proj" in operator or operator == "lm_head"}
        copies = context if column == "weight_bytes" else 1
        for operator, amount in heavy.items():
            most = 2.1 if operator == "qkv_proj" else 1.1  # more ranks than KV heads, or heads split evenly
            assert several[operator] <= copies * most * amount + 64 * tensor * context * 4096, operator


def wire(trace: Trace, row: int) -> Fraction:
    """Return the bytes that each rank sends: of rings, and of an all-to-all that goes straight there."""
    size, carried = trace.group_size(int(trace.comm_group[row])), int(trace.comm_bytes[row])
    factors = {
        CommType.ALLREDUCE: Fraction(2 * (size - 1), size),
        CommType.REDUCESCATTER: Fraction(size - 1, size),
        CommType.ALLTOALL: Fraction(size - 1, size),
        CommType.ALLGATHER: Fraction(size - 1),
        CommType.PERMUTE: Fraction(1),
    }
    return factors[CommType(int(trace.comm_type[row]))] * carried


def sent(trace: Trace, layer: int, names: set[str] | None = None) -> Fraction:
    rows = np.flatnonzero((trace.layer == layer) & (trace.comm_type != CommType.NONE)).tolist()
    of_rank = [row for row in rows if 0 in trace.rank_sets[trace.rank_set[row]]]
    return sum((wire(trace, row) for row in of_rank if names is None or trace.name(row) in names), Fraction(0))


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("tensor", [2, 4, 8])
def test_two_all_reduces_a_layer(tensor: int, scattered: bool) -> None:
    """Shoeybi et al. 2019: 2 all-reduces of T h; Korthikanti et al. 2022: as many bytes in halves."""
    case = Case("plain", Mesh(tensor), "ring", "alltoall", scattered)
    tokens = 2 * 128 + 32
    assert sent(case.trace(wave_of(case)), 0) == 2 * Fraction(2 * (tensor - 1), tensor) * tokens * HIDDEN * 2


@pytest.mark.parametrize("mode", ["ring", "allgather"])
@pytest.mark.parametrize("context", [2, 4])
def test_keys_and_values_travel_once(context: int, mode: str) -> None:
    """Liu et al. 2023: cp - 1 hops of a shard's keys and values; an all-gather's ring sends as many bytes."""
    case = Case("plain", Mesh(context=context), mode, "alltoall", False)
    shard = (128 + 128 + 256) // context * 2 * KV_WIDTH * 2
    assert sent(case.trace(wave_of(case)), 0, {"kv_pass", "kv_gather"}) == (context - 1) * shard


@pytest.mark.parametrize("context", [2, 4])
def test_queries_and_outputs_of_decodes_travel(context: int) -> None:
    """Queries of D / cp decodes to all others, D log-sum-exps of every head, and a reduce-scatter of D outputs."""
    case = Case("plain", Mesh(context=context), "ring", "alltoall", False)
    queries, sums = 32 * QUERIES * 2, 32 * HEADS * 4
    expected = Fraction(context - 1, context) * queries * 2 + (context - 1) * sums
    assert sent(case.trace(wave_of(case)), 0, {"query_gather", "lse_gather", "output_scatter"}) == expected


@pytest.mark.parametrize(("tensor", "data", "context"), [(1, 2, 1), (2, 2, 1), (2, 1, 2), (1, 2, 4)])
@pytest.mark.parametrize("exchange", ["alltoall", "allgather"])
def test_tokens_travel_to_experts_and_back(tensor: int, data: int, context: int, exchange: str) -> None:
    """All-to-all: T k / t copies there and back; all-gather: T / t tokens to all others, their sums scattered."""
    ranks = tensor * data * context
    case = Case("sparse", Mesh(tensor, expert=ranks, data=data, context=context), "ring", exchange, False)
    own = (2 * 128 + 32) // context // tensor * HIDDEN * 2
    expected = 2 * own * CHOSEN * Fraction(ranks - 1, ranks) if exchange == "alltoall" else 2 * own * (ranks - 1)
    assert sent(case.trace(wave_of(case)), 0, {"expert_dispatch", "expert_combine"}) == expected


@pytest.mark.parametrize("scattered", [False, True])
def test_stages_hand_on_the_hidden_state(scattered: bool) -> None:
    """T h bytes on each rank, or its part of them where norms are shared out by token."""
    case = Case("plain", Mesh(4, 2, context=2), "ring", "alltoall", scattered)
    trace = case.trace(wave_of(case))
    last = int(np.flatnonzero(trace.stage == 0)[-1])
    tokens = (2 * 128 + 32) // 2
    assert int(trace.output_bytes[last]) == tokens // (4 if scattered else 1) * HIDDEN * 2


@pytest.mark.parametrize("name", FAMILIES)
def test_one_rank_is_the_unsharded_trace_however_it_is_asked_for(name: str) -> None:
    shape = batch([33, 1], [5, 77])
    plain = make_generator(model(name)).generate([shape])
    asked = make_generator(
        model(name), 1, context=1, layers=(model(name).num_layers,), context_mode="allgather", sequence_parallel=True
    ).generate([shape])
    assert {"pipeline_layers"} == asked.attributes.keys() - plain.attributes.keys()
    for column in ("op", "kind", "layer", "rank_set", "input_bytes", "weight_bytes", "output_bytes", "comm_type"):
        assert np.array_equal(getattr(plain, column), getattr(asked, column)), column
    assert np.array_equal(plain.latency_ns, asked.latency_ns) and np.array_equal(plain.flops, asked.flops)
    assert not asked.comm_type.any() and (asked.kind == RowKind.COMPUTE).all() and not asked.groups
