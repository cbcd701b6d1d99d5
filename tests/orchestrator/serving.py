"""An instance whose batches take a closed-form time: what the tests of schedulers, clock and metrics drive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.batch import Batch
from orchestrator.executor import Executor
from orchestrator.instance import CompletedBatch, Instance
from orchestrator.intervals import Interval, Intervals
from orchestrator.kv_memory.managers import kv_managers
from orchestrator.kv_memory.paged import KVSpace
from orchestrator.metrics import Metrics
from orchestrator.request import Request
from orchestrator.run import simulate
from orchestrator.schedulers.interface import Scheduler
from orchestrator.schedulers.settings import Place, policies

BLOCK_BYTES = 1000


class FormulaExecutor:
    """Stage s takes ``base + s + per_token * new + per_context * context`` ns; notes every batch it ran."""

    def __init__(self, stages: int = 1, *, base: int = 1000, per_token: int = 7, per_context: int = 1) -> None:
        self.stages = stages
        self.max_steps = 10**6
        self.base, self.per_token, self.per_context = base, per_token, per_context
        self.runs: list[tuple[int, int]] = []

    def run(self, batch: Batch) -> NDArray[np.int64]:
        new, context, width = sum(batch.new_tokens), sum(batch.context_tokens), len(batch.requests)
        moved = sum(transfer.blocks for transfer in (*batch.kv_loads, *batch.kv_evictions))
        step = np.arange(batch.steps, dtype=np.int64)
        time = self.base + 100 * moved + self.per_token * new + self.per_context * (context + width * step)
        self.runs.append((batch.serial, batch.steps))
        return np.cumsum(time[:, None] + np.arange(self.stages), axis=1)


def scheduler(name: str, blocks: int, block_size: int = 4, **options: Any) -> Scheduler:
    space = KVSpace(blocks, block_size, BLOCK_BYTES, options.pop("max_model_len", None))
    place = Place(space, model_len=4096, pipeline=options.pop("pipeline", 1))
    if "kv_manage" in options:
        options["kv_manage"] = kv_managers.get(options["kv_manage"])()
    return policies.get(name)(**options).scheduler(place)


def requests(rows: Sequence[tuple[int, int, int]]) -> list[Request]:
    """Return requests of (prompt tokens, output tokens, arrival ns), ids in order."""
    return [Request(index, arrival, prompt, output) for index, (prompt, output, arrival) in enumerate(rows)]


class Run:
    """A whole run: completed batches, metrics and intervals."""

    def __init__(
        self,
        policy: Scheduler,
        rows: Sequence[tuple[int, int, int]],
        *,
        stages: int = 1,
        max_steps: int = 512,
        interval_ns: int = 10_000,
        executor: Executor | None = None,
    ) -> None:
        self.instance = Instance(
            policy, executor or FormulaExecutor(stages), max_steps=max_steps, checkpoint_ns=interval_ns
        )
        self.metrics = Metrics(keep_itl=True)
        self.batches: list[CompletedBatch] = []
        self.intervals: list[Interval] = []
        cutter = Intervals(interval_ns)
        for done in simulate(self.instance, iter(requests(rows))):
            self.batches.append(done)
            self.metrics.record(done)
            self.intervals += cutter.record(done)
        self.intervals += cutter.finish()

    def rows(self) -> list[dict[str, int]]:
        """Return the finished requests in completion order."""
        columns = self.metrics.columns()
        return [dict(zip(columns, values, strict=True)) for values in zip(*map(list, columns.values()), strict=True)]

    def by_id(self) -> dict[int, dict[str, int]]:
        return {int(row["id"]): row for row in self.rows()}

    def outcome(self) -> tuple[Any, ...]:
        """Return all that a user can see of the run, for comparison."""
        totals = self.metrics.totals
        shown = (totals.iterations, totals.prompt_tokens, totals.generated_tokens, totals.evicted_bytes)
        moved = (totals.reloaded_bytes, totals.peak_kv_blocks, totals.end_ns)
        lists = [gaps.tolist() for gaps in self.metrics.itl_lists()]
        return self.rows(), lists, self.intervals, shown, moved, self.metrics.itl.distribution()
