"""Rules on mixtures of experts: whatever holds the experts, they hold, and each kind of mistake is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.precision import Precision
from trace_gen.trace import CommType, Trace
from trace_test.rule import ModelFacts, Subject, run_rules
from trace_test.subjects import of_trace

MODEL = load_model("Qwen/Qwen1.5-MoE-A2.7B")
BATCH = BatchShape(
    request_ids=np.array([4, 9]),
    new_tokens=np.array([101, 1]),
    context_tokens=np.array([0, 64]),
    samples=np.array([1, 1]),
)


def subject(expert: int) -> Subject:
    mesh = Mesh(4, 2, expert)
    perf = make_perf_model("roofline", PerfModelOptions(MODEL, load_hardware("H100"), 4))
    trace = TraceGenerator(MODEL, mesh, perf).generate([BATCH])
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


@pytest.mark.parametrize("expert", [1, 4])
def test_all_rules_hold(expert: int) -> None:
    outcome = run_rules(subject(expert))
    assert outcome.violations == {}
    assert outcome.skipped == []


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
