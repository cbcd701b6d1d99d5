"""Heads that guess tokens: their traces, and their weights worked out from the papers' descriptions."""

from __future__ import annotations

import pytest

from tests.trace_gen.trace_cases import LLAMA, MIXTRAL, batch, model
from trace_gen.drafters import drafter_weight_bytes, head_of
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.precision import Precision
from trace_test.rule import ModelFacts, Subject, rules
from trace_test.subjects import of_trace

HIDDEN, KV, INNER, VOCAB = 4096, 1024, 14336, 128256
"""Llama-3.1-8B: hidden size, width of keys, inner width, token ids."""
ATTENTION, MLP = 2 * HIDDEN * (HIDDEN + KV), 3 * HIDDEN * INNER


def generator(name: str, tensor: int) -> TraceGenerator:
    head = head_of(model(name), "eagle")
    options = PerfModelOptions(architecture=head, hardware=load_hardware("H100"), tensor=tensor, precision=Precision())
    return TraceGenerator(head, Mesh(tensor), make_perf_model("roofline", options))


def subject(made: TraceGenerator, **shape: list[int]) -> Subject:
    facts = ModelFacts(made.architecture, made.mesh, Precision())
    return of_trace("head", made.generate([batch(**shape)]), facts)


def test_a_head_is_one_layer_behind_a_projection() -> None:
    head = head_of(model(LLAMA), "eagle")
    norms = 3 * HIDDEN
    assert head.num_layers == 1
    assert parameter_count(head) == 2 * VOCAB * HIDDEN + 2 * HIDDEN * HIDDEN + ATTENTION + MLP + norms


@pytest.mark.parametrize("tensor", [1, 2, 8])
def test_a_head_shares_embedding_and_lm_head(tensor: int) -> None:
    """The projection and the norms are whole on every rank, the layer is divided."""
    weights = 2 * (2 * HIDDEN * HIDDEN + 3 * HIDDEN + (ATTENTION + MLP) // tensor)
    assert drafter_weight_bytes(ModelMemory(head_of(model(LLAMA), "eagle"), Mesh(tensor))) == weights


def test_a_model_of_its_own_shares_nothing() -> None:
    memory = ModelMemory(model(LLAMA), Mesh(2))
    assert drafter_weight_bytes(memory) == memory.weight_bytes(0)


@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize("name", [LLAMA, MIXTRAL])
def test_traces_of_heads_keep_all_rules(name: str, tensor: int) -> None:
    found = subject(generator(name, tensor), new=[7, 3, 1], context=[0, 40, 9])
    assert found.graph is not None
    broken = {rule: [one.what for one in rules.get(rule).check(found)] for rule in rules if rule != "readable"}
    assert {rule: what for rule, what in broken.items() if what} == {}


def test_the_projection_takes_two_hidden_states_a_token() -> None:
    trace = generator(LLAMA, 2).generate([batch([7, 3])])
    (row,) = [row for row in range(trace.rows) if trace.name(row) == "hidden_state_proj"]
    assert trace.name(row - 1) == "embedding"
    assert int(trace.input_bytes[row]) == 10 * 2 * HIDDEN * 2
    assert int(trace.output_bytes[row]) == 10 * HIDDEN * 2
    assert int(trace.weight_bytes[row]) == 2 * HIDDEN * HIDDEN * 2
    assert trace.comm_bytes[row] == 0
    assert int(trace.flops[0, row]) == 10 * 2 * 2 * HIDDEN * HIDDEN


@pytest.mark.parametrize("column", ["input_bytes", "weight_bytes"])
def test_rules_notice_a_wrong_projection(column: str) -> None:
    found = subject(generator(LLAMA, 1), new=[7, 3])
    assert found.trace is not None
    (row,) = [row for row in range(found.trace.rows) if found.trace.name(row) == "hidden_state_proj"]
    values = getattr(found.trace, column).copy()
    values[row] //= 2
    object.__setattr__(found.trace, column, values)
    said = [one.what for rule in ("model-shape", "input-matches-output") for one in rules.get(rule).check(found)]
    assert any("input" in what if column == "input_bytes" else "weights" in what for what in said)
