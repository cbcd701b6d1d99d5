"""Rules on latent attention: both forms keep them, and each kind of mistake is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from trace_gen.attention.absorption import Absorption
from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.precision import Precision
from trace_gen.trace import CommType, Trace
from trace_test.rule import ModelFacts, Subject, run_rules
from trace_test.subjects import Reading, _model, of_trace

MODELS = ("deepseek-ai/DeepSeek-V2-Lite", "deepseek-ai/DeepSeek-V3")
MIXED, PROMPTS, DECODES = ([101, 1, 3], [1, 1, 3]), ([101, 7, 5], [1, 1, 1]), ([1, 1, 4], [1, 1, 4])
"""New tokens, and how many of them are sampled: of drafts, all are."""


def batch(kind: tuple[list[int], list[int]]) -> BatchShape:
    return BatchShape(
        request_ids=np.array([4, 9, 2]),
        new_tokens=np.array(kind[0]),
        context_tokens=np.array([20, 64, 5]),
        samples=np.array(kind[1]),
    )


def subject(
    name: str = MODELS[0], kind: tuple[list[int], list[int]] = MIXED, mla: Absorption = "auto", tensor: int = 4
) -> Subject:
    model, mesh, shape = load_model(name, mla=mla), Mesh(tensor, 2), batch(kind)
    perf = make_perf_model("roofline", PerfModelOptions(model, load_hardware("H100"), tensor))
    trace = TraceGenerator(model, mesh, perf).generate([shape])
    return of_trace("test", trace, ModelFacts(model, mesh, Precision(), (shape,)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", [MIXED, PROMPTS, DECODES], ids=["mixed", "prompts", "decodes"])
@pytest.mark.parametrize("mla", ["auto", "absorb", "expand"])
def test_all_rules_hold(name: str, kind: tuple[list[int], list[int]], mla: Absorption) -> None:
    outcome = run_rules(subject(name, kind, mla))
    assert outcome.violations == {} and outcome.skipped == []


def scaled(trace: Trace, name: str, column: str, by: float) -> Trace:
    """Return `trace` with what every row of the operator `name` has in `column` multiplied."""
    copy = getattr(trace, column).copy()
    rows = [row for row in range(trace.rows) if trace.name(row) == name]
    assert rows
    copy[rows] = (copy[rows] * by).astype(np.int64)
    return replace(trace, **{column: copy})


def without_reduce(trace: Trace) -> Trace:
    rows = np.array([trace.name(row) == "o_proj" for row in range(trace.rows)])
    silent = np.where(rows, CommType.NONE, trace.comm_type).astype(np.int8)
    return replace(trace, comm_type=silent, comm_bytes=np.where(rows, 0, trace.comm_bytes))


@pytest.mark.parametrize(
    ("breaks", "rule", "what"),
    [
        (lambda t: scaled(t, "qkv_a_proj", "weight_bytes", 0.25), "model-shape", "its weights are"),
        (lambda t: scaled(t, "q_b_proj", "output_bytes", 4), "model-shape", "its output is"),
        (lambda t: scaled(t, "kv_a_norm", "input_bytes", 0.5), "model-shape", "its input is"),
        (lambda t: scaled(t, "kv_b_proj", "input_bytes", 4 / 101), "model-shape", "but 101 rows of 1024 bytes"),
        (lambda t: scaled(t, "q_absorb", "weight_bytes", 4), "model-shape", "its weights are"),
        (lambda t: scaled(t, "latent_attention", "input_bytes", 2), "model-shape", "but 4 rows of"),
        (lambda t: scaled(t, "v_up_proj", "output_bytes", 2), "input-matches-output", "its input is"),
        (lambda t: scaled(t, "attention", "output_bytes", 0), "input-matches-output", "its input is"),
        (lambda t: scaled(t, "qkv_a_proj", "input_bytes", 0.5), "input-matches-output", "its input is"),
        (lambda t: scaled(t, "kv_b_proj", "weight_bytes", 0), "weights-add-up", "but a rank holds"),
        (lambda t: scaled(t, "v_up_proj", "weight_bytes", 2), "weights-add-up", "but a rank holds"),
        (without_reduce, "collectives-placed", "its output is a partial sum on every rank, but no collective follows"),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_mistakes_are_found(name: str, breaks: Callable[[Trace], Trace], rule: str, what: str) -> None:
    sound = subject(name)
    assert sound.trace is not None
    outcome = run_rules(of_trace("test", breaks(sound.trace), sound.model))
    assert any(what in violation.what for violation in outcome.violations.get(rule, [])), outcome.violations


def test_the_other_form_is_found() -> None:
    """A trace that absorbs prompts, said to be of `auto`."""
    absorbed, sound = subject(mla="absorb"), subject()
    assert absorbed.trace is not None
    found = run_rules(of_trace("test", absorbed.trace, sound.model)).violations["model-shape"]
    assert {one.where.partition("L0.")[2] for one in found if "L0" in one.where} == {
        "q_absorb)",
        "latent_attention)",
        "v_up_proj)",
    }


def test_a_trace_names_its_form() -> None:
    """Read back from a text, the model is the one that it was made for; of an unknown form nothing is said."""
    trace = subject(mla="absorb").trace
    assert trace is not None
    for mla in ("absorb", "auto"):
        model = _named(replace(trace, attributes=trace.attributes | {"mla": mla}))
        assert model is not None and model.architecture.absorption == mla
    assert _named(replace(trace, attributes=trace.attributes | {"mla": "both"})) is None


def _named(trace: Trace) -> ModelFacts | None:
    return _model(trace, Reading())


def test_a_request_has_one_row_of_either_form() -> None:
    sound = subject(tensor=1)
    trace = sound.trace
    assert trace is not None
    names = ("attention", "latent_attention")
    rows = [row for row in range(trace.rows) if trace.name(row) in names]
    for requests, what in (((4, 4), "request 4 has 2 rows of attention in a block"), ((4, 9), "differ in request 2")):
        own = trace.request.copy()
        own[rows] = [requests[names.index(trace.name(row))] for row in rows]
        found = run_rules(of_trace("test", replace(trace, request=own), None)).violations["attention-separated"]
        assert what in found[0].what
