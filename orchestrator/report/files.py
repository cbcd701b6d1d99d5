"""Writes the page and the timeline of a run, from what the run was and what it measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundation.files import atomic_write
from orchestrator.deployment import Deployment
from orchestrator.intervals import Interval
from orchestrator.metrics import Metrics
from orchestrator.report.chrome_trace import write_chrome_trace
from orchestrator.report.history import History
from orchestrator.report.page import Facts, render
from orchestrator.request_source import RequestSource
from orchestrator.settings.record import shown


def write_report(
    page: Path,
    timeline: Path,
    deployment: Deployment,
    source: RequestSource,
    summary: dict[str, Any],
    metrics: Metrics,
    intervals: Sequence[Interval],
    history: History,
) -> None:
    """Write the HTML page and the trace-event timeline, each whole or not at all."""
    facts = _facts(deployment, source)
    with atomic_write(page) as stream:
        stream.write(render(facts, summary, metrics, intervals, history))
    with atomic_write(timeline) as stream:
        write_chrome_trace(stream, f"{facts.model} on {facts.system}", summary, metrics, history)


def _facts(deployment: Deployment, source: RequestSource) -> Facts:
    engine, space = deployment.engine, deployment.space
    memory = deployment.generator.memory
    system = f"{engine.parallelism.npus} x {deployment.hardware.name} ({engine.parallelism.layout})"
    kv_bytes = space.total_blocks * space.block_bytes
    rows = [
        ("model", deployment.model.name),
        ("NPUs", system),
        ("precision", f"{engine.model.bits} bits"),
        ("memory of an NPU", f"{deployment.memory_bytes / 1e9:.2f} GB"),
        ("weights on an NPU, at most", f"{memory.max_rank_weight_bytes / 1e9:.2f} GB"),
        (
            "KV cache over all NPUs",
            f"{space.total_blocks} blocks of {space.block_size} tokens, {kv_bytes / 1e9:.2f} GB",
        ),
        ("scheduling", engine.names["scheduling"]),
        ("performance model", engine.names["perf_model"]),
        ("backend", engine.names["backend"]),
        ("workload", source.described),
    ]
    return Facts(
        model=deployment.model.name,
        system=system,
        workload=source.described,
        deployment=rows,
        notes=(*deployment.generator.warnings, *deployment.configurations.notes),
        settings=shown(deployment.decided, deployment.spec),
        interval_ns=deployment.spec.output.log_interval_ns,
    )
