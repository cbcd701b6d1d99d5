"""Rules on mixtures of experts: whatever holds the experts, they hold, and each kind of mistake is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.text import write_text_trace
from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.mesh import Mesh
from trace_gen.mlp.routings import routings
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.precision import Precision
from trace_gen.trace import CommType, Trace
from trace_test.rule import ModelFacts, Subject, run_rules
from trace_test.subjects import Reading, of_trace, read_subject

MODEL = load_model("Qwen/Qwen1.5-MoE-A2.7B")
BATCH = BatchShape(
    request_ids=np.array([4, 9]),
    new_tokens=np.array([101, 1]),
    context_tokens=np.array([0, 64]),
    samples=np.array([1, 1]),
)


def subject(expert: int, routing: str = "balanced", redundant: int = 0) -> Subject:
    mesh = Mesh(4, 2, expert, redundant_experts=redundant)
    perf = make_perf_model("roofline", PerfModelOptions(MODEL, load_hardware("H100"), 4))
    chosen = routings.get(routing)().routing(MODEL, 1)
    trace = TraceGenerator(MODEL, mesh, perf, routing=chosen).generate([BATCH], 5)
    return of_trace("test", trace, ModelFacts(MODEL, mesh, Precision(), (BATCH,)))


def changed(trace: Trace, name: str, column: str, value: int) -> Trace:
    """Return `trace` with another value in every row of the operator `name`."""
    copy = getattr(trace, column).copy()
    copy[..., [row for row in range(trace.rows) if trace.name(row) == name]] = value
    return replace(trace, **{column: copy})


def no_reduce(trace: Trace) -> Trace:
    return replace(
        changed(trace, "expert_sum", "comm_type", CommType.NONE),
        comm_bytes=changed(trace, "expert_sum", "comm_bytes", 0).comm_bytes,
    )


def renamed(trace: Trace) -> Trace:
    return replace(trace, op_names=tuple("passed" if name == "expert_combine" else name for name in trace.op_names))


@pytest.mark.parametrize(("expert", "redundant"), [(1, 0), (4, 0), (4, 8)])
def test_all_rules_hold_of_a_text_that_names_its_routing(tmp_path: Path, expert: int, redundant: int) -> None:
    whole = subject(expert, "zipf", redundant)
    assert whole.trace is not None
    assert whole.model is not None
    write_text_trace(whole.trace, tmp_path / "trace.txt")
    read = read_subject(str(tmp_path / "trace.txt"), Reading())
    assert read.model is not None
    assert read.model.mesh == whole.model.mesh and read.model.mesh.redundant_experts == redundant
    outcome = run_rules(read)
    assert (outcome.violations, outcome.skipped) == ({}, [])


@pytest.mark.parametrize("routing", ["balanced", "random", "round_robin", "zipf"])
@pytest.mark.parametrize(("expert", "redundant"), [(1, 0), (4, 0), (4, 8)])
def test_all_rules_hold(expert: int, redundant: int, routing: str) -> None:
    outcome = run_rules(subject(expert, routing, redundant))
    assert outcome.violations == {}
    assert outcome.skipped == []


def in_layer(trace: Trace, layer: int, factor: float) -> Trace:
    """Return `trace` with so many times the copies in all that a layer's experts do."""
    rows = [row for row in range(trace.rows) if trace.layer[row] == layer]

    def scaled(column: str, names: tuple[str, ...]) -> np.ndarray:
        values = getattr(trace, column).copy()
        for row in rows:
            if trace.name(row) in names:
                width = values[row] // copies(trace, layer)
                values[row] = width * round(copies(trace, layer) * factor)
        return values

    work = ("expert_gate_up_proj", "expert_act_fn", "expert_down_proj")
    return replace(
        trace,
        input_bytes=scaled("input_bytes", (*work, "expert_combine")),
        output_bytes=scaled("output_bytes", ("expert_dispatch", *work)),
        comm_bytes=scaled("comm_bytes", ("expert_dispatch", "expert_combine")),
    )


def copies(trace: Trace, layer: int) -> int:
    (row,) = (row for row in range(trace.rows) if trace.layer[row] == layer and trace.name(row) == "expert_act_fn")
    return int(trace.input_bytes[row]) // (2 * 1408 * 2)


@pytest.mark.parametrize(("most", "sound"), [(102, True), (408, True), (101, False), (409, False)])
def test_the_slowest_rank_has_the_mean_at_least_and_all_copies_at_most(most: int, sound: bool) -> None:
    """102 tokens with 4 experts each on 4 ranks: 408 copies, 102 on the average."""
    whole = subject(4, "random")
    assert whole.trace is not None
    changed = in_layer(whole.trace, 3, most / copies(whole.trace, 3))
    found = run_rules(of_trace("test", changed, whole.model)).violations
    told = [one.what for one in found.pop("model-shape", [])]
    said = f"the slowest rank's experts work on {most} copies of tokens, but it has from 102 to 408"
    assert told == ([] if sound else [said])
    assert found.keys() == ({"collective-bytes"} if most < 102 else set()), "102 come back to every rank"


def test_a_balanced_trace_has_the_mean() -> None:
    """What another routing may do, one without a name may not."""
    whole = subject(4, "random")
    assert whole.trace is not None
    plain = {name: value for name, value in whole.trace.attributes.items() if name != "expert_routing"}
    outcome = run_rules(of_trace("test", replace(whole.trace, attributes=plain), whole.model))
    assert any("102 rows" in one.what for one in outcome.violations["model-shape"])


def test_rows_of_a_layer_have_the_same_copies_whatever_routes_them() -> None:
    whole = subject(4, "zipf")
    assert whole.trace is not None
    for name, column in (("expert_down_proj", "input_bytes"), ("expert_dispatch", "output_bytes")):
        values = getattr(whole.trace, column).copy()
        row = next(row for row in range(whole.trace.rows) if whole.trace.name(row) == name)
        values[row] += values[row] // copies(whole.trace, 0)
        outcome = run_rules(of_trace("test", replace(whole.trace, **{column: values}), whole.model))
        assert any(f"({'L0.'}{name})" in one.where for one in outcome.violations["model-shape"])


def test_a_layer_without_its_activation_is_told_by_other_rules() -> None:
    whole = subject(4, "random")
    assert whole.trace is not None
    names = tuple("passed" if name == "expert_act_fn" else name for name in whole.trace.op_names)
    outcome = run_rules(of_trace("test", replace(whole.trace, op_names=names), whole.model))
    assert "model-shape" not in outcome.violations


@pytest.mark.parametrize(
    ("expert", "breaks", "rule", "what"),
    [
        (1, no_reduce, "collectives-placed", "its output is a partial sum on every rank, but no collective follows"),
        (4, lambda t: changed(t, "shared_down_proj", "comm_type", 0), "collectives-placed", "is a partial sum"),
        (4, lambda t: changed(t, "expert_dispatch", "comm_type", CommType.ALLREDUCE), "collectives-placed", "ALLTOALL"),
        (4, renamed, "collectives-placed", "but without expert_combine"),
        (1, lambda t: changed(t, "router", "comm_type", CommType.ALLTOALL), "collectives-placed", "has all it needs"),
        (4, lambda t: changed(t, "expert_gather", "comm_bytes", 102 * 4096), "collective-bytes", "but the input is"),
        (4, lambda t: changed(t, "expert_dispatch", "comm_bytes", 4096), "collective-bytes", "but the output is"),
        (4, lambda t: changed(t, "expert_down_proj", "weight_bytes", 8), "weights-add-up", "but a rank holds"),
        (1, lambda t: changed(t, "expert_act_fn", "output_bytes", 102 * 704), "model-shape", "408 rows"),
        (4, lambda t: changed(t, "expert_sum", "output_bytes", 102 * 4096), "model-shape", "26 rows"),
    ],
)
def test_mistakes_are_found(expert: int, breaks: Callable[[Trace], Trace], rule: str, what: str) -> None:
    sound = subject(expert)
    assert sound.trace is not None
    outcome = run_rules(of_trace("test", breaks(sound.trace), sound.model))
    assert any(what in violation.what for violation in outcome.violations.get(rule, [])), outcome.violations
