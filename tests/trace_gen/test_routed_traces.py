"""Traces of routings that are not balanced: which rows differ by layer and step, and that the slowest rank decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_cases import COUNTED, DRAWN, routing
from test_waves import CHOSEN, COUNT, HIDDEN, MIXED, MIXTURE, SHAPES, TINY, WIDTH, apart, waved, waves
from trace_cases import QWEN, batch, generator, make_generator, model, rows_named

from foundation.errors import InternalError
from trace_gen.architecture import Layer, layer_runs
from trace_gen.batch_shape import BatchShape
from trace_gen.mesh import Mesh
from trace_gen.mlp.dense import DenseMlp
from trace_gen.mlp.routing import ExpertSpread
from trace_gen.perf_model import OperatorTable
from trace_gen.precision import Precision
from trace_gen.trace import CommType, RowKind, Trace
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace

SETTINGS = settings(max_examples=30, deadline=None, derandomize=True)
LIKE_TRACES = ("latency_ns", "flops", "mem_bytes", "input_bytes", "output_bytes", "comm_bytes")
MATRICES = ("expert_gate_up_proj", "expert_down_proj")


def copies_of(trace: Trace, width: int = WIDTH) -> list[int]:
    """Return the copies of the slowest rank in each layer, by what goes into the experts' activation."""
    return [int(trace.input_bytes[row]) // (2 * width * 2) for row in rows_named(trace, "expert_act_fn")]


def same(trace: Trace, other: Trace) -> bool:
    return all((getattr(trace, name) == getattr(other, name)).all() for name in LIKE_TRACES)


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("exchange", ["alltoall", "allgather"])
def test_sizes_are_those_of_the_slowest_rank_of_each_layer(name: str, exchange: str) -> None:
    """Worked out from the loads: T = 7 tokens, k = 2 of 48 experts on 4 ranks; 16 bits."""
    tokens, ranks, step = 7, 4, 5
    trace = waved(TINY, ranks, 1, routing=routing(name), expert_exchange=exchange).generate([batch([tokens])], step)
    spread = ExpertSpread(TINY.mixtures[0], ranks, ranks)
    layers = [0, 1, 2] if routing(name).by_layer else [-1] * 3
    most = routing(name).loads(spread, layers, step, range(tokens)).copies.max(axis=1).tolist()
    assert copies_of(trace) == most
    hidden, own = HIDDEN * 2, -(-tokens * CHOSEN // ranks)
    sides = {
        operator: [(int(trace.input_bytes[row]) // hidden, int(trace.output_bytes[row]) // hidden) for row in rows]
        for operator in ("expert_dispatch", "expert_combine", "expert_sum")
        if (rows := rows_named(trace, operator))
    }
    carried = [int(trace.comm_bytes[row]) // hidden for row in rows_named(trace, "expert_combine")]
    if exchange == "alltoall":
        assert sides["expert_dispatch"] == [(tokens, copies) for copies in most]
        assert sides["expert_combine"] == [(copies, own) for copies in most]
        assert sides["expert_sum"] == [(own, 2)] * 3
        assert carried == most, "the buffer of the rank that gets most"
        assert [int(trace.comm_bytes[row]) // hidden for row in rows_named(trace, "expert_dispatch")] == most
    else:
        assert sides["expert_dispatch"] == [(2, 8)] * 3
        assert sides["expert_sum"] == [(copies, 8) for copies in most]
        assert carried == [8] * 3


@pytest.mark.parametrize("name", DRAWN)
def test_only_what_experts_do_differs_by_layer_and_step(name: str) -> None:
    made = waved(TINY, 4, 1, routing=routing(name))
    first, second = made.generate([batch([40])], 1), made.generate([batch([40])], 2)
    assert len(set(copies_of(first))) > 1 and copies_of(first) != copies_of(second)
    balanced = waved(TINY, 4, 1).generate([batch([40])])
    for column in ("op", "layer", "kind", "rank_set", "comm_type", "weight_bytes"):
        assert (getattr(first, column) == getattr(balanced, column)).all()
    different = {first.name(row) for row in range(first.rows) if not _equal(first, balanced, row)}
    moved = {*MATRICES, "expert_act_fn", "expert_dispatch", "expert_combine"}
    assert moved - {"expert_act_fn"} <= different <= moved


def _equal(trace: Trace, other: Trace, row: int) -> bool:
    return all(getattr(trace, name)[..., row] == getattr(other, name)[..., row] for name in LIKE_TRACES)


def test_layers_share_a_column_where_they_are_alike() -> None:
    """Of TINY's 3 layers, the 5 operators that depend on the routing have 3 columns each, the others one."""
    widths = [
        waved(TINY, 4, 1, routing=routing(name)).generate([batch([9])]).work.latency_ns.shape[1]
        for name in ("balanced", "round_robin", "random")
    ]
    assert widths[0] == widths[1] == widths[2] - 2 * 5


@SETTINGS
@given(order=st.permutations(range(6)), name=st.sampled_from(DRAWN))
def test_steps_in_any_order_kept_or_not_have_the_same_traces(order: list[int], name: str) -> None:
    kept = waved(TINY, 4, 1, routing=routing(name))
    expected = [waved(TINY, 4, 1, routing=routing(name)).generate([batch([5, 1])], step) for step in range(6)]
    for step in [*order, *order]:
        assert same(kept.generate([batch([5, 1])], step), expected[step])
    assert kept.sizes.misses == 6 and kept.structures.misses == 1


def test_sizes_are_kept_where_steps_are_alike() -> None:
    kept = waved(TINY, 4, 1, routing=routing("round_robin"))
    first, second = kept.generate([batch([5])], 1), kept.generate([batch([5])], 2)
    assert second.comm_bytes is first.comm_bytes and kept.sizes.misses == 1


def test_several_steps_are_one_trace_only_where_they_are_alike() -> None:
    steps = batch([1, 1], [4, 5], steps=3)
    assert waved(TINY, 2, 1, routing=routing("round_robin")).generate([steps]).steps == 3
    for name in DRAWN:
        with pytest.raises(InternalError, match=f"{name} routing differs by step: a trace has one"):
            waved(TINY, 2, 1, routing=routing(name)).generate([steps])


class _Spy:
    """Keeps the table that a performance model is given."""

    def __init__(self, inner: object) -> None:
        self.inner = inner
        self.seen: list[OperatorTable] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def latency_ns(self, operators: OperatorTable) -> np.ndarray:
        self.seen.append(operators)
        return self.inner.latency_ns(operators)  # type: ignore[no-any-return, attr-defined]


def spied(name: str, tokens: int, ranks: int = 4) -> tuple[OperatorTable, Trace, _Spy]:
    made = generator(QWEN, ranks, expert=ranks, hardware="H100", routing=routing(name))
    spy = made.perf_model = _Spy(made.perf_model)  # type: ignore[assignment]
    trace = made.generate([batch([tokens])], 3)
    return spy.seen[0], trace, spy  # type: ignore[return-value]


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("tokens", [1, 40, 3000])
def test_models_are_told_what_every_expert_has_and_roofline_takes_the_slowest_rank(name: str, tokens: int) -> None:
    """Work by the tokens of each expert: FLOPs of all copies of a rank, weights of its experts that have any."""
    table, trace, spy = spied(name, tokens)
    (part,) = table.experts
    assert part.tokens.shape == (2 * 48, 4, 32)
    assert [table.names[column] for column in part.columns] == list(MATRICES) * 48
    copies, active = part.tokens.sum(axis=2), (part.tokens > 0).sum(axis=2)
    assert (copies.sum(axis=1) == tokens * 8).all()
    inputs, outputs = (np.array([sizes] * 48).ravel()[:, None] for sizes in ((2048, 768), (2 * 768, 2048)))
    assert (part.flops == 2 * inputs * outputs * copies).all()
    assert (part.mem_bytes == 2 * (inputs + outputs) * copies + 2 * inputs * outputs * active).all()
    assert (table.flops[0, part.columns] == part.flops.max(axis=1)).all()
    assert (table.mem_bytes[0, part.columns] == part.mem_bytes.max(axis=1)).all()
    hardware = spy.inner.hardware  # type: ignore[attr-defined]
    efficiency = hardware.efficiencies["grouped_gemm"]
    compute = part.flops / (hardware.peak_flops["bf16"] * efficiency.compute) * 1e9
    memory = part.mem_bytes / (hardware.memory_bandwidth * efficiency.memory) * 1e9
    slowest = np.hypot(compute, memory).max(axis=1) + efficiency.overhead_ns
    latencies = [trace.latency_ns[0, row] for row in range(trace.rows) if trace.name(row) in MATRICES]
    assert latencies == np.rint(slowest).astype(int).tolist()


def test_models_are_told_of_no_experts_where_only_the_mean_is_known() -> None:
    (part,) = spied("balanced", 40)[0].experts
    assert part.tokens is None


@pytest.mark.parametrize("name", COUNTED)
def test_one_rank_and_divided_experts_do_the_same_work_and_read_what_is_chosen(name: str) -> None:
    """Every rank has all copies, so routing decides only how many experts' weights are read."""
    for ranks in (1, 4):
        plain, routed = (
            make_generator(TINY, ranks, routing=routing(one)).generate([batch([6])], 8) for one in ("balanced", name)
        )
        assert (plain.flops == routed.flops).all() and (plain.comm_bytes == routed.comm_bytes).all()
        loads = routing(name).loads(ExpertSpread(TINY.mixtures[0], 1), [0, 1, 2], 8, range(6))
        inner = -(-WIDTH // ranks)
        for layer, row in enumerate(rows_named(routed, "expert_down_proj")):
            weights = int(routed.weight_bytes[row])
            assert weights == COUNT * inner * HIDDEN * 2
            active = int((loads.tokens[layer] > 0).sum())  # type: ignore[index]
            sides = int(routed.input_bytes[row] + routed.output_bytes[row])
            assert int(routed.mem_bytes[0, row]) == sides + weights * active // COUNT


@pytest.mark.parametrize(("tensor", "data"), SHAPES)
@pytest.mark.parametrize("name", DRAWN)
def test_a_wave_routes_the_tokens_of_all_members(name: str, tensor: int, data: int) -> None:
    wave = [batch([7 * member + 3], first_id=100 * member) for member in range(data)]
    total, ranks = sum(shape.total_tokens for shape in wave), tensor * data
    trace = waved(TINY, tensor, data, routing=routing(name)).generate(wave, 4)
    loads = routing(name).loads(ExpertSpread(TINY.mixtures[0], ranks, tensor), [0, 1, 2], 4, range(total))
    most = loads.copies.max(axis=1)
    assert copies_of(trace) == most.tolist()
    own = -(-max(shape.total_tokens for shape in wave) * CHOSEN // tensor)
    for operator in ("expert_dispatch", "expert_combine"):
        carried = [int(trace.comm_bytes[row]) // (2 * HIDDEN) for row in rows_named(trace, operator)]
        assert carried == np.maximum(most, own).tolist()


def test_members_with_divided_experts_route_their_own_tokens() -> None:
    """The second member's tokens come after the first's: the two choose otherwise."""
    wave = [batch([5]), batch([5], first_id=50)]
    trace = waved(TINY, 1, 2, expert=1, routing=routing("random")).generate(wave, 2)
    rows = rows_named(trace, "expert_down_proj")
    spread, counts = ExpertSpread(TINY.mixtures[0], 1), []
    for first in (0, 5):
        loads = routing("random").loads(spread, [0, 1, 2], 2, range(first, first + 5))
        counts.append([int(one) for one in (loads.tokens > 0).sum(axis=2)[:, 0]])  # type: ignore[operator]
    read = [
        (int(trace.mem_bytes[0, row]) - int(trace.input_bytes[row] + trace.output_bytes[row])) // (WIDTH * HIDDEN * 2)
        for row in rows
    ]
    assert read == [count for pair in zip(*counts, strict=True) for count in pair]


def test_kinds_of_layers_with_the_same_experts_are_told_apart_by_layer() -> None:
    """Windowed and full attention before the same experts, a dense layer between: layers 0, 2 and 3 draw their own."""
    windowed = Layer(replace(MIXTURE.attention, window=9), MIXTURE.mlp)  # type: ignore[type-var]
    dense = Layer(MIXTURE.attention, DenseMlp(64))
    mixed = replace(TINY, runs=layer_runs((MIXTURE, dense, windowed, MIXTURE)))
    trace = make_generator(mixed, 4, 2, expert=4, routing=routing("random")).generate([batch([30])], 6)
    loads = routing("random").loads(ExpertSpread(TINY.mixtures[0], 4, 4), [0, 2, 3], 6, range(30))
    assert copies_of(trace) == loads.copies.max(axis=1).tolist()
    assert [int(trace.layer[row]) for row in rows_named(trace, "expert_act_fn")] == [0, 2, 3]
    assert trace.stage[rows_named(trace, "expert_act_fn")].tolist() == [0, 1, 1]


@SETTINGS
@given(
    wave=waves,
    tensor=st.sampled_from([1, 2, 4]),
    pipeline=st.sampled_from([1, 2]),
    exchange=st.sampled_from(["alltoall", "allgather"]),
    spread=st.booleans(),
    name=st.sampled_from(COUNTED),
    redundant=st.sampled_from([0, 1, 2]),
)
def test_the_rules_of_traces_hold(
    wave: list[BatchShape], tensor: int, pipeline: int, exchange: str, spread: bool, name: str, redundant: int
) -> None:
    wave = apart(wave, filled=tensor > 1 or not spread)
    ranks = tensor * len(wave)
    mesh = Mesh(tensor, pipeline, ranks if spread else 1, len(wave), redundant_experts=ranks * redundant * spread)
    made = make_generator(MIXED, tensor, pipeline, data=len(wave), routing=routing(name), expert_exchange=exchange)
    made = type(made)(MIXED, mesh, made.perf_model, routing=routing(name), expert_exchange=exchange)  # type: ignore[arg-type]
    facts = ModelFacts(MIXED, mesh, Precision(), tuple(wave))
    outcome = run_rules(of_trace("wave", made.generate(wave, 3), facts))
    idle = [shape for shape in wave if not len(shape.request_ids)]
    if idle and pipeline > 1:
        outcome.violations.pop("ranks-present", None)  # a stage of dense layers leaves members without tokens idle
    assert outcome.violations == {}


def test_attributes_name_the_routing() -> None:
    facts = {
        name: waved(TINY, 2, 1, routing=routing(name)).generate([batch([2])]).attributes.get("expert_routing")
        for name in ("balanced", *COUNTED)
    }
    assert facts == {"balanced": None, **{name: name for name in COUNTED}}
    plain = waved(TINY, 2, 1).generate([batch([2])])
    assert plain.attributes == waved(TINY, 2, 1, routing=routing("balanced")).generate([batch([2])]).attributes


def test_a_dense_model_does_not_care() -> None:
    plain, routed = (
        generator(tensor=2, routing=routing(name)).generate([batch([5])], 3) for name in ("balanced", "random")
    )
    assert same(plain, routed) and (plain.comm_type == CommType.NONE).any() and (plain.kind == RowKind.COMPUTE).all()
    assert not model().mixtures
