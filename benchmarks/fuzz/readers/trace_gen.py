"""What describes models and devices: read, and used for a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.fuzz.target import Target, targets
from trace_gen.architecture import ModelArchitecture
from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.mlp.routings.file import FileSettings
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.perf_models.table_v0.table import load_table_v0


def _batch() -> BatchShape:
    """Return a prompt of three tokens and a decode."""
    return BatchShape(
        request_ids=np.array([0, 1], dtype=np.int64),
        new_tokens=np.array([3, 1], dtype=np.int64),
        context_tokens=np.array([0, 7], dtype=np.int64),
        samples=np.array([1, 1], dtype=np.int64),
    )


def use(architecture: ModelArchitecture) -> None:
    """Make a model into operators, and time a batch of it."""
    parameter_count(architecture)
    memory = ModelMemory(architecture, Mesh())
    assert memory.max_rank_weight_bytes > 0 and memory.kv_groups
    if architecture.num_layers > 500:
        return  # as many rows as layers: time, not an error
    perf = make_perf_model("roofline", PerfModelOptions(architecture, load_hardware("A100")))
    trace = TraceGenerator(architecture, Mesh(), perf).generate([_batch()])
    assert (trace.latency_ns >= 1).all()


def _model(path: Path) -> None:
    use(load_model(str(path)))


def _hardware(path: Path) -> None:
    architecture = load_model("gpt2")
    perf = make_perf_model("roofline", PerfModelOptions(architecture, load_hardware(str(path))))
    trace = TraceGenerator(architecture, Mesh(), perf).generate([_batch()])
    assert (trace.latency_ns >= 1).all()


def _table(path: Path) -> None:
    options = PerfModelOptions(load_model("gpt3-7b"), load_hardware("RTX3090"))
    perf = load_table_v0(options, path)
    trace = TraceGenerator(options.architecture, Mesh(), perf).generate([_batch()])
    assert (trace.latency_ns >= 1).all()


def _routed_tokens(path: Path) -> None:
    """A recording of Mixtral's routers: a prompt and a decode, at two steps."""
    architecture = load_model("Mixtral-8x7B-v0.1")
    routing = FileSettings(path).routing(architecture, 0)
    perf = make_perf_model("roofline", PerfModelOptions(architecture, load_hardware("H100"), 4))
    generator = TraceGenerator(architecture, Mesh(4, 1, 4, redundant_experts=4), perf, routing=routing)
    for step in (0, 7):
        trace = generator.generate([_batch()], step)
        copies = trace.input_bytes[[trace.name(row) == "expert_down_proj" for row in range(trace.rows)]] // (2 * 14336)
        assert ((copies >= 2) & (copies <= 8)).all()


targets.register("model")(Target("a model's config.json", _model, "config.json"))
targets.register("hardware")(Target("a device's file", _hardware, "device.json"))
targets.register("routed_tokens")(Target("a recording of routed tokens (CSV)", _routed_tokens, "routed.csv"))
targets.register("device_template")(Target("a device in LLMCompass's template", _hardware, "device.json"))
targets.register("latency_table")(Target("a latency table (v0.2.1's CSV)", _table, "table.csv"))
