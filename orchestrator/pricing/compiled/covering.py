"""Which runs use tables, and which deployments, and which of their iterations, are sums of what tables hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.engine.batch import Batch
from trace_gen.generator import TraceGenerator
from trace_gen.perf_model import CompilesAttention, TimesAttention

if TYPE_CHECKING:
    from orchestrator.settings.run import ExecutionSettings
    from orchestrator.settings.specification import EngineSpec


def traced_because(execution: ExecutionSettings, engine: EngineSpec) -> str | None:
    """Return why each iteration of `engine` is traced whatever it is (one clause); None: tables are used."""
    if execution.asks_for_traces:
        return "that was asked for"
    if execution.pricing == "compiled":
        return None
    if engine.cross_check is not None:
        return "another backend checks it"
    if execution.makes_files:
        return "files are made of it"
    return None if engine.names["backend"] == "embedded" else "the backend is not the embedded one"


def uncovered(generator: TraceGenerator) -> str | None:
    """Return why iterations of `generator` are not sums of what counts and attention decide (one clause), or None."""
    model = generator.perf_model
    if model.latency_source == "backend":
        return "the backend decides how long operators take"
    if generator.mesh.data > 1:
        return "engines advance in lock step"
    if generator.request_rows:
        return "attention is timed request by request"
    if generator.mesh.context > 1:
        return "ranks divide sequences"
    if generator.routing.by_step:
        return "experts are chosen anew at every step"
    if generator.streamed.operators:
        return "weights are streamed from host memory"
    return None if isinstance(model, TimesAttention) else "the performance model has no times of attention alone"


def lacks(generator: TraceGenerator) -> str | None:
    """Return why a compiled loop cannot price iterations of `generator` by tables (one clause), or None."""
    reason = uncovered(generator)
    if reason is not None:
        return reason
    if generator.portioned:
        return "prompts and decodes have operators of their own"
    model = generator.perf_model
    if not isinstance(model, CompilesAttention):
        return "the performance model has no attention that compiles"
    if any(model.compiled_attention(shape) is None for shape in generator.attention_shapes()):
        return "the performance model has no such attention that compiles"
    return None


def covers(wave: Sequence[Batch]) -> bool:
    """Whether the batches are one that computes something and moves nothing."""
    first = wave[0]
    return len(wave) == 1 and len(first.ids) > 0 and not first.kv_loads and not first.kv_evictions
