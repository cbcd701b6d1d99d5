"""Mixtures of experts: rows and sizes by hand, weights read, what ranks hold, and what cannot be spread."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import (
    LLAMA,
    MIXTRAL,
    MIXTURES,
    QWEN,
    batch,
    batches,
    experts_of,
    generator,
    model,
    only_layer,
    rows_named,
)

from converters.lowering import lower
from foundation.errors import UserError
from trace_gen.batch_shape import BatchShape
from trace_gen.hardware import load_hardware
from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.mlp.routing import ExpertRouting
from trace_gen.models import load_model, shipped_models
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.trace import CommType, RowKind, Trace

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
DIVIDED = ["router", "expert_gate_up_proj", "expert_act_fn", "expert_down_proj", "expert_sum"]
SPREAD = ["router", "expert_dispatch", *DIVIDED[1:4], "expert_combine", "expert_sum", "expert_gather"]
SHARED = ["shared_gate_up_proj", "shared_act_fn", "shared_down_proj"]


def mixture_rows(trace: Trace) -> range:
    """Return the rows of the first block behind its second norm."""
    first = rows_named(trace, "layernorm")[1] + 1
    return range(first, int(np.flatnonzero(trace.layer == 0)[-1]) + 1)


def first(trace: Trace, name: str, column: str) -> int:
    values = getattr(trace, column)
    return int(values.reshape(-1, trace.rows)[0, rows_named(trace, name)[0]])


def test_rows_of_every_way_to_hold_experts() -> None:
    for name, before in ((MIXTRAL, []), ("Qwen/Qwen1.5-MoE-A2.7B", SHARED)):
        for expert, expected in ((1, DIVIDED), (4, SPREAD)):
            trace = generator(name, tensor=4, expert=expert).generate([batch([7])])
            assert [trace.name(row) for row in mixture_rows(trace)] == [*before, *expected]


def test_sizes_of_mixtral_with_divided_experts() -> None:
    """7 tokens, 2 of 8 experts of width 14336 on 4 ranks, 16 bits: 14 copies of tokens."""
    trace = generator(MIXTRAL, tensor=4).generate([batch([7])])
    hidden, inner = 4096 * 2, 14336 // 4 * 2
    sides = [(int(trace.input_bytes[row]), int(trace.output_bytes[row])) for row in mixture_rows(trace)]
    assert sides == [
        (7 * hidden, 7 * 8 * 2),
        (7 * hidden, 14 * 2 * inner),
        (14 * 2 * inner, 14 * inner),
        (14 * inner, 14 * hidden),
        (14 * hidden, 7 * hidden),
    ]
    weights = [int(trace.weight_bytes[row]) for row in mixture_rows(trace)]
    assert weights == [4096 * 8 * 2, 8 * 4096 * 2 * inner, 0, 8 * inner * 4096, 0]
    carried = [(int(trace.comm_type[row]), int(trace.comm_bytes[row])) for row in mixture_rows(trace)]
    assert carried == [(CommType.NONE, 0)] * 4 + [(CommType.ALLREDUCE, 7 * hidden)]


def test_sizes_of_mixtral_with_whole_experts_on_ranks() -> None:
    """Each of 4 ranks has 2 experts, takes at most 4 of 14 copies and 2 of 7 tokens."""
    trace = generator(MIXTRAL, tensor=4, expert=4).generate([batch([7])])
    hidden, inner = 4096 * 2, 14336 * 2
    sides = [(int(trace.input_bytes[row]), int(trace.output_bytes[row])) for row in mixture_rows(trace)]
    assert sides == [
        (7 * hidden, 7 * 8 * 2),
        (7 * hidden, 4 * hidden),
        (4 * hidden, 4 * 2 * inner),
        (4 * 2 * inner, 4 * inner),
        (4 * inner, 4 * hidden),
        (4 * hidden, 4 * hidden),
        (4 * hidden, 2 * hidden),
        (2 * hidden, 7 * hidden),
    ]
    exchanged = {
        trace.name(row): (CommType(int(trace.comm_type[row])), int(trace.comm_bytes[row]))
        for row in mixture_rows(trace)
        if trace.kind[row] == RowKind.COMM
    }
    assert exchanged == {
        "expert_dispatch": (CommType.ALLTOALL, 4 * hidden),
        "expert_combine": (CommType.ALLTOALL, 4 * hidden),
        "expert_gather": (CommType.ALLGATHER, 2 * hidden),
    }
    assert first(trace, "expert_sum", "comm_type") == CommType.NONE
    assert first(trace, "expert_gate_up_proj", "weight_bytes") == 2 * 4096 * 2 * inner


def test_shared_experts_are_reduced_with_the_others_or_alone() -> None:
    name = "Qwen/Qwen1.5-MoE-A2.7B"
    divided, spread = (generator(name, tensor=4, expert=expert).generate([batch([7])]) for expert in (1, 4))
    assert first(divided, "shared_down_proj", "comm_type") == CommType.NONE
    assert first(spread, "shared_down_proj", "comm_type") == CommType.ALLREDUCE
    assert first(spread, "shared_down_proj", "comm_bytes") == 7 * 2048 * 2
    assert first(spread, "router", "output_bytes") == 7 * 61 * 2, "60 experts and the gate of the shared ones"


def test_ranks_are_alike_whatever_holds_the_experts() -> None:
    for expert in (1, 4):
        trace = generator(MIXTRAL, tensor=4, pipeline=2, expert=expert).generate([batch([7, 1], [0, 90])])
        assert trace.rank_sets == ((0, 1, 2, 3), (4, 5, 6, 7))
        graph = lower(trace)
        assert sorted(own.ranks for own in graph.rank_graphs) == [(0, 1, 2, 3), (4, 5, 6, 7)]
        sent = [own.comm_size[own.comm_tag >= 0] for own in graph.rank_graphs]
        assert all((sizes == 8 * 4096 * 2).all() and len(sizes) == 1 for sizes in sent), "all hidden states go on"


@SETTINGS
@given(shape=batches, name=st.sampled_from(MIXTURES), tensor=st.sampled_from([2, 4]))
def test_ranks_share_the_experts_work(shape: BatchShape, name: str, tensor: int) -> None:
    one = generator(name).generate([shape])
    for expert in (1, tensor):
        shared = generator(name, tensor, expert=expert).generate([shape])
        for operator in ("expert_gate_up_proj", "expert_act_fn", "expert_down_proj"):
            whole, part = (first(trace, operator, "flops") for trace in (one, shared))
            copy = whole // (shape.total_tokens * experts_of(model(name)).per_token)
            assert whole <= tensor * part < whole + tensor * copy
            assert first(shared, operator, "weight_bytes") * tensor == first(one, operator, "weight_bytes")


def weight_reads(name: str, tokens: int, **spread: int) -> float:
    """Return the share of a rank's expert weights that ``expert_down_proj`` reads."""
    trace = generator(name, **spread).generate([batch([tokens])])  # type: ignore[arg-type]
    moved = first(trace, "expert_down_proj", "mem_bytes")
    sides = first(trace, "expert_down_proj", "input_bytes") + first(trace, "expert_down_proj", "output_bytes")
    return (moved - sides) / first(trace, "expert_down_proj", "weight_bytes")


def test_only_weights_of_activated_experts_are_read() -> None:
    assert weight_reads(MIXTRAL, 1) == pytest.approx(2 / 8)
    assert weight_reads(MIXTRAL, 2) == pytest.approx(1 - (6 / 8) ** 2)
    assert weight_reads(QWEN, 1) == pytest.approx(8 / 128)
    assert weight_reads(QWEN, 16) * 128 == pytest.approx(82.4, abs=0.05)
    assert weight_reads(QWEN, 2048) == pytest.approx(1)
    assert weight_reads(QWEN, 16, tensor=4, expert=4) == pytest.approx(weight_reads(QWEN, 16))
    assert weight_reads(MIXTRAL, 1, tensor=4, expert=4) == pytest.approx(1 / 2), "one of a rank's two at the least"


@pytest.mark.parametrize("tokens", [1, 3, 16, 60])
def test_activated_experts_are_those_of_random_choices(tokens: int) -> None:
    """Against the mean of 400 draws of k distinct experts for each token."""
    random = np.random.default_rng(1)
    experts = experts_of(model(QWEN))
    hit = []
    for _ in range(400):
        chosen = random.random((tokens, experts.count)).argsort(axis=1)[:, : experts.per_token]
        hit.append(len(np.unique(chosen)))
    share = ExpertRouting(experts, 1).activated_share(tokens)
    assert share * experts.count == pytest.approx(np.mean(hit), rel=0.02)


@SETTINGS
@given(
    name=st.sampled_from(MIXTURES), tensor=st.sampled_from([1, 2, 4]), pipeline=st.integers(1, 5), bits=st.booleans()
)
def test_ranks_together_hold_the_model(name: str, tensor: int, pipeline: int, bits: bool) -> None:
    """What exceeds the model is what every rank has whole: norms, and the router."""
    shape = model(name)
    experts = experts_of(shape)
    layout = ModelMemory(shape, Mesh(tensor, pipeline, tensor if bits else 1))
    total = tensor * sum(layout.weight_bytes(stage) for stage in range(pipeline)) // 2
    block = 2 * shape.norm_parameters + shape.hidden_size * experts.router_outputs
    block += 2 * only_layer(shape)[0].head_dim * only_layer(shape)[0].qk_norm
    whole = shape.norm_parameters + shape.num_layers * block
    assert total == parameter_count(shape) + (tensor - 1) * whole


@pytest.mark.parametrize(
    ("name", "tensor", "expert", "message"),
    [
        (MIXTRAL, 4, 2, "--ep_size: experts over 2 ranks, but a stage has 4; give 1 or 4"),
        (MIXTRAL, 1, 8, "--ep_size: experts over 8 ranks, but a stage has 1; give 1"),
        (MIXTRAL, 16, 16, "has 8 experts for 16 ranks, so that some would have none; spread them over at most 8"),
        (LLAMA, 2, 2, "Llama-3.1-8B has no experts to spread; leave it out"),
    ],
)
def test_experts_that_cannot_be_spread(name: str, tensor: int, expert: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        generator(name, tensor, expert=expert)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts_per_tok": 200}, "num_experts_per_tok 200 is more than num_experts 128"),
        ({"num_experts": 4096}, "line 1, num_experts: 4096 is not a whole number from 1 to 2048$"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step: 0 is not a whole number from 1"),
        ({"mlp_only_layers": [-1]}, r"mlp_only_layers\[0\]: -1 is not a whole number of at least 0"),
        ({"use_sliding_window": True}, "use_sliding_window: true is not supported"),
        ({"moe_intermediate_size": None}, "moe_intermediate_size is missing"),
    ],
)
def test_mixtures_that_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    config = json.loads(shipped_models()[QWEN].read_text()) | changes
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        load_model(str(path))


def test_tables_of_the_old_form_cannot_time_experts(tmp_path: Path) -> None:
    options = PerfModelOptions(model(MIXTRAL), load_hardware("H100"))
    with pytest.raises(UserError, match=r"Mixtral-8x7B-v0\.1 has a mixture of experts.*use --perf_model roofline"):
        make_perf_model("table_v0", options, perf_table=tmp_path / "any.csv")
