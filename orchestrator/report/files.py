"""Writes the page and the timeline of a run, from what the run was and what it measured."""

from __future__ import annotations

from collections.abc import Sequence
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

_MOST_NAMED = 4
"""Systems in a title, and engines of a kind, that are named; of more it says that there are."""


def write_page(path: Path, run: Run, result: RunResult, history: History) -> Path:
    """Write the HTML page, whole or not at all; return its path."""
    with atomic_write(path) as stream:
        stream.write(render(_facts(run, result), result, history))
    return path


def write_timeline(path: Path, run: Run, result: RunResult, history: History) -> Path:
    """Write the trace-event timeline, whole or not at all; return its path."""
    facts = _facts(run, result)
    with atomic_write(path) as stream:
        write_chrome_trace(stream, facts.title, result, history)
    return path


def _facts(run: Run, result: RunResult) -> Facts:
    workload = printable(run.source.described)
    systems = list(result.summary.deployed)
    listed = ", ".join([*systems[:_MOST_NAMED], *(["..."] if len(systems) > _MOST_NAMED else [])])
    return Facts(
        title=printable(f"{result.summary.model} on {listed}"),
        workload=workload,
        deployment=_tables(run, workload),
        notes=result.notes,
        settings=shown(run.spec, run.asked),
        interval_ns=run.spec.output.log_interval_ns,
    )


def _tables(run: Run, workload: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return a table for each kind of engine, and what is common to all; of one kind, all in one table."""
    whole = [("engines", str(len(run.deployments))), ("workload", workload)]
    kinds = run.places()
    if len(kinds) == 1:
        return [("deployed", [*_deployed(run.deployments[0]), *whole])]
    return [*((_named(places), _deployed(kind)) for kind, places in kinds.items()), ("altogether", whole)]


def _named(places: Sequence[int]) -> str:
    """Return the engines of a kind by their numbers."""
    first, last = places[0], places[-1]
    if first == last:
        return f"engine {first}"
    if last - first == len(places) - 1:
        return f"engines {first} to {last}"
    return f"engines {', '.join(map(str, places[:_MOST_NAMED]))}{', ...' if len(places) > _MOST_NAMED else ''}"


def _deployed(deployment: Deployment) -> list[tuple[str, str]]:
    engine, space = deployment.engine, deployment.space
    memory = deployment.generator.memory
    kv_bytes = space.total_blocks * space.block_bytes
    return [
        ("model", printable(deployment.model.name)),
        ("NPUs", deployment.system()),
        ("precision", f"{engine.model.bits} bits"),
        ("memory of an NPU", f"{deployment.memory_bytes / 1e9:.2f} GB"),
        ("weights on an NPU, at most", f"{memory.max_rank_weight_bytes / 1e9:.2f} GB"),
        (
            "KV cache over all NPUs" + (" of an engine" if engine.parallelism.data > 1 else ""),
            f"{space.total_blocks} blocks of {space.block_size} tokens, {kv_bytes / 1e9:.2f} GB",
        ),
        ("scheduling", engine.names["scheduling"]),
        ("performance model", engine.names["perf_model"]),
        ("backend", engine.names["backend"]),
    ]
