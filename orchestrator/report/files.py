"""Writes the page and the timeline of a run, from what the run was and what it measured."""

from __future__ import annotations

from pathlib import Path

from foundation.files import atomic_write
from foundation.printable import printable
from orchestrator.deployment import Deployment
from orchestrator.observers.history import History
from orchestrator.observers.interface import Run
from orchestrator.report.chrome_trace import write_chrome_trace
from orchestrator.report.page import Facts, render
from orchestrator.result import RunResult
from orchestrator.settings.record import shown


def write_page(path: Path, run: Run, result: RunResult, history: History) -> Path:
    """Write the HTML page, whole or not at all; return its path."""
    with atomic_write(path) as stream:
        stream.write(render(_facts(run, result), result, history))
    return path


def write_timeline(path: Path, run: Run, result: RunResult, history: History) -> Path:
    """Write the trace-event timeline, whole or not at all; return its path."""
    facts = _facts(run, result)
    with atomic_write(path) as stream:
        write_chrome_trace(stream, f"{facts.model} on {facts.system}", result, history)
    return path


def _facts(run: Run, result: RunResult) -> Facts:
    first = run.deployments[0]
    workload = printable(run.source.described)
    return Facts(
        model=printable(first.model.name),
        system=first.system,
        workload=workload,
        deployment=[*_deployed(first), ("engines", str(len(run.deployments))), ("workload", workload)],
        notes=result.notes,
        settings=shown(run.spec, run.asked),
        interval_ns=run.spec.output.log_interval_ns,
    )


def _deployed(deployment: Deployment) -> list[tuple[str, str]]:
    engine, space = deployment.engine, deployment.space
    memory = deployment.generator.memory
    kv_bytes = space.total_blocks * space.block_bytes
    return [
        ("model", printable(deployment.model.name)),
        ("NPUs", deployment.system),
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
    ]
