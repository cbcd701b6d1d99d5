"""Norms shared out by token over tensor-parallel ranks: rows and bytes by hand, and what does not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import DENSE, LLAMA, MIXTURES, batch, batches, make_generator, model, rows_named, with_layers

from trace_gen.batch_shape import BatchShape
from trace_gen.trace import CommType, RowKind, Trace
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace

HIDDEN = 8192
"""Bytes of Llama-3.1-8B's hidden state of a token."""
SHARED = "Qwen/Qwen1.5-MoE-A2.7B"


def trace_of(name: str, tensor: int, shape: BatchShape, layers: int = 2, **options: object) -> Trace:
    architecture = with_layers(model(name), *model(name).layers[:layers])
    options = {"sequence_parallel": True, **options}
    return make_generator(architecture, tensor, **options).generate([shape])  # type: ignore[arg-type]


def rows(trace: Trace, layer: int) -> list[tuple[str, int, int, str, int]]:
    return [
        (
            trace.name(row),
            int(trace.input_bytes[row]),
            int(trace.output_bytes[row]),
            CommType(trace.comm_type[row]).name,
            int(trace.comm_bytes[row]),
        )
        for row in np.flatnonzero(trace.layer == layer).tolist()
    ]


def test_a_block_by_hand() -> None:
    """10 tokens on 4 ranks: 3 for the fullest."""
    found = rows(trace_of(LLAMA, 4, batch([9, 1], [0, 7])), 0)
    whole, part = 10 * HIDDEN, 3 * HIDDEN
    assert [name for name, *_ in found] == [
        *("layernorm", "sequence_gather", "qkv_proj", "rotary_emb", "attention", "o_proj", "sequence_scatter"),
        *("layernorm", "sequence_gather", "gate_up_proj", "act_fn", "down_proj", "sequence_scatter"),
    ]
    norm = ("layernorm", part, part, "NONE", 0)
    gather = ("sequence_gather", part, whole, "ALLGATHER", part)
    scatter = ("sequence_scatter", whole, part, "REDUCESCATTER", whole)
    assert (found[0], found[1], found[6]) == (norm, gather, scatter) == (found[7], found[8], found[12])
    assert found[5] == ("o_proj", 10 * 1024 * 2, whole, "NONE", 0)


def test_the_ends_by_hand() -> None:
    """The embedding's parts are scattered; after the last norm all tokens are gathered, of which 2 have logits."""
    trace = trace_of(LLAMA, 4, batch([9, 1], [0, 7]))
    ends = rows(trace, -1)
    assert ends[:2] == [
        ("embedding", 40, 10 * HIDDEN, "NONE", 0),
        ("sequence_scatter", 10 * HIDDEN, 3 * HIDDEN, "REDUCESCATTER", 10 * HIDDEN),
    ]
    assert ends[2:4] == [
        ("final_layernorm", 3 * HIDDEN, 3 * HIDDEN, "NONE", 0),
        ("sequence_gather", 3 * HIDDEN, 10 * HIDDEN, "ALLGATHER", 3 * HIDDEN),
    ]
    assert ends[4][:2] == ("lm_head", 2 * HIDDEN)
    assert (trace.kind[rows_named(trace, "sequence_gather")] == RowKind.COMM).all()
    assert trace.attributes["sequence_parallel"] == "norms"


@pytest.mark.parametrize("exchange", ["alltoall", "allgather"])
def test_experts_end_with_parts_by_themselves(exchange: str) -> None:
    plain, shared = (
        rows(
            trace_of(SHARED, 4, batch([10]), expert=4, expert_exchange=exchange, sequence_parallel=scattered),
            0,
        )
        for scattered in (False, True)
    )
    names = [name for name, *_ in shared]
    assert "expert_gather" in [name for name, *_ in plain] and "expert_gather" not in names
    assert names.count("sequence_scatter") == 2  # after attention, and after the shared experts
    assert names[names.index("shared_down_proj") + 1] == "sequence_scatter"
    assert shared[-1][2] == 3 * 2048 * 2


def test_one_rank_shares_nothing_out() -> None:
    assert rows(trace_of(LLAMA, 1, batch([5])), 0) == rows(trace_of(LLAMA, 1, batch([5]), sequence_parallel=False), 0)
    assert "sequence_parallel" not in trace_of(LLAMA, 1, batch([5])).attributes


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=batches,
    name=st.sampled_from((*DENSE, *MIXTURES)),
    tensor=st.sampled_from([2, 4, 8]),
    placement=st.sampled_from(["heads", "requests"]),
    exchange=st.sampled_from(["alltoall", "allgather"]),
    spread=st.booleans(),
)
def test_only_norms_change(
    shape: BatchShape, name: str, tensor: int, placement: str, exchange: str, spread: bool
) -> None:
    expert = tensor if spread and name in MIXTURES else 1
    architecture = with_layers(model(name), *model(name).layers[:2])
    options = {"attention_placement": placement, "expert_exchange": exchange}
    plain, shared = (
        make_generator(architecture, tensor, expert=expert, sequence_parallel=scattered, **options)
        for scattered in (False, True)
    )
    before, after = plain.generate([shape]), shared.generate([shape])

    def work(trace: Trace) -> list[tuple[object, ...]]:
        computes = [row for row in range(trace.rows) if trace.kind[row] == RowKind.COMPUTE]
        apart = [row for row in computes if not trace.name(row).endswith("layernorm")]
        return [
            (trace.name(row), int(trace.flops[0, row]), int(trace.latency_ns[0, row]), int(trace.weight_bytes[row]))
            for row in apart
        ]

    assert work(before) == work(after)
    norms = [[int(trace.flops[0, row]) for row in rows_named(trace, "layernorm")] for trace in (before, after)]
    tokens = shape.total_tokens
    assert [one * -(-tokens // tensor) for one in norms[0]] == [one * tokens for one in norms[1]]
    facts = ModelFacts(architecture, shared.mesh, shared.precision, (shape,))
    assert not run_rules(of_trace("drawn", after, facts)).violations


def test_embeddings_that_are_narrower_than_the_hidden_state() -> None:
    """OPT-350M: 512 numbers are looked up, scattered, and projected to 1,024 by token; norms follow each half."""
    generator = make_generator(model("facebook/opt-350m"), 4, sequence_parallel=True)
    shape = batch([8])
    trace = generator.generate([shape])
    names = [trace.name(row) for row in range(5)]
    assert names == ["embedding", "sequence_scatter", "project_in", "position_embedding", "sequence_gather"]
    assert [int(trace.input_bytes[row]) for row in (1, 2)] == [8 * 512 * 2, 2 * 512 * 2]
    facts = ModelFacts(generator.architecture, generator.mesh, generator.precision, (shape,))
    assert run_rules(of_trace("narrow", trace, facts)).violations == {}
