"""No operator is passed over: whichever's output is a row too long, `model-shape` says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_test.rule import ModelFacts, run_rules
from trace_test.subjects import of_trace

BATCH = BatchShape(np.array([1, 2]), np.array([7, 1]), np.array([0, 30]), np.array([1, 1]))
MODELS = ["Llama-3.1-8B", "gpt2", "Qwen3-8B", "gemma-2-2b", "Mixtral-8x7B-v0.1", "DeepSeek-V2-Lite", "opt-350m"]


@pytest.mark.parametrize("name", MODELS)
def test_each_is_missed_by_none(name: str) -> None:
    model, mesh = load_model(name), Mesh(2)
    generator = TraceGenerator(model, mesh, make_perf_model("roofline", PerfModelOptions(model, load_hardware("H200"))))
    trace = generator.generate([BATCH])
    facts = ModelFacts(model, mesh, generator.precision, (BATCH,))
    assert run_rules(of_trace(name, trace, facts)).violations == {}
    for operator in trace.op_names:
        rows = [row for row in range(trace.rows) if trace.name(row) == operator]
        if not rows:
            continue  # KV transfers, of which this batch has none
        longer = trace.output_bytes.copy()
        longer[rows] += longer[rows]
        found = run_rules(of_trace(name, replace(trace, output_bytes=longer), facts)).violations
        assert "model-shape" in found, operator
