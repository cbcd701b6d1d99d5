"""Engines whose batches take a closed-form time: what the tests of schedulers, clock and metrics drive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from orchestrator.cluster.cluster import Cluster
from orchestrator.cluster.routers.round_robin import RoundRobin
from orchestrator.cluster.source import Listed
from orchestrator.engine.batch import Batch
from orchestrator.engine.engine import Engine
from orchestrator.engine.records import Aborted, CompletedBatch, Rejected
from orchestrator.kv_memory.groups import FULL, LayerGroup
from orchestrator.kv_memory.managers import kv_managers
from orchestrator.kv_memory.store import KVSpace
from orchestrator.observers.account import TimeRecorder
from orchestrator.observers.intervals import Interval, Intervals
from orchestrator.observers.requests import RequestRecorder
from orchestrator.pricing.interface import Cost, Pricing
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.result import RunResult
from orchestrator.schedulers.interface import Scheduler
from orchestrator.schedulers.settings import Place, policies
from orchestrator.settings.specification import RunSpec
from orchestrator.summary import RunFacts, Summary, summarise

BLOCK_BYTES = 1000
Row = tuple[int, int, int]


class FormulaPricing:
    """Stage s takes ``base + s + per_token * new + per_context * context`` ns; notes every batch it priced."""

    classes = ("compute", "attention")

    def __init__(self, stages: int = 1, *, base: int = 1000, per_token: int = 7, per_context: int = 1) -> None:
        self.stages = stages
        self.max_steps = 10**6
        self.base, self.per_token, self.per_context = base, per_token, per_context
        self.priced: list[tuple[int, int]] = []

    def price(self, wave: Sequence[Batch]) -> Cost:
        (batch,) = wave
        new, context = int(batch.new_tokens.sum()) + batch.padding, int(batch.context_tokens.sum())
        width = len(batch.requests)
        moved = sum(transfer.blocks for transfer in (*batch.kv_loads, *batch.kv_evictions))
        attention = self.per_context * (context + width * np.arange(batch.steps, dtype=np.int64))
        time = self.base + 100 * moved + self.per_token * new + attention
        self.priced.append((batch.serial, batch.steps))
        finish = np.cumsum(time[:, None] + np.arange(self.stages), axis=1)
        busy = np.stack((finish[:, -1] - attention * self.stages, attention * self.stages), axis=1)
        return Cost(finish[None], busy[None])


class StageTimes(FormulaPricing):
    """The same stage times for every batch."""

    def __init__(self, times: list[int]) -> None:
        super().__init__(len(times))
        self._finish = np.cumsum(times)

    def price(self, wave: Sequence[Batch]) -> Cost:
        steps = wave[0].steps
        return Cost(np.tile(self._finish, (1, steps, 1)), np.zeros((1, steps, 2), dtype=np.int64))


def scheduler(
    name: str, blocks: int, block_size: int = 4, groups: tuple[LayerGroup, ...] = (FULL,), **options: Any
) -> Scheduler:
    space = KVSpace(blocks, block_size, BLOCK_BYTES, options.pop("max_model_len", None))
    place = Place(space, groups, model_len=4096, pipeline=options.pop("pipeline", 1))
    if "kv_manage" in options:
        options["kv_manage"] = kv_managers.get(options["kv_manage"])()
    return policies.get(name)(**options).scheduler(place)


def requests(rows: Sequence[Row]) -> list[Request]:
    """Return requests of (prompt tokens, output tokens, arrival ns), ids in order."""
    return [Request(index, arrival, prompt, output) for index, (prompt, output, arrival) in enumerate(rows)]


def simulate(
    engines: Sequence[Engine], arriving: Iterable[Request], *, computed: bool = False
) -> Iterator[CompletedBatch | Aborted | Rejected]:
    """Run `engines`, in turn, on requests in order of arrival; `computed`: their prompts are in the KV cache."""
    admissions = (Admission(request, request.prompt_tokens if computed else 0) for request in arriving)
    return Cluster(engines, RoundRobin(), Listed(admissions)).run()


def completed(engine: Engine, arriving: Iterable[Request]) -> list[CompletedBatch]:
    """Return the batches of a run in which nobody is turned away or given up."""
    told = list(simulate([engine], arriving))
    assert all(isinstance(record, CompletedBatch) for record in told)
    return [record for record in told if isinstance(record, CompletedBatch)]


class Run:
    """A whole run of one engine: completed batches, metrics and intervals."""

    def __init__(
        self,
        policy: Scheduler,
        rows: Sequence[Row] | Sequence[Request],
        *,
        stages: int = 1,
        max_steps: int = 512,
        interval_ns: int = 10_000,
        pricing: Pricing | None = None,
        computed: bool = False,
    ) -> None:
        self.engine = Engine(policy, pricing or FormulaPricing(stages), max_steps=max_steps)
        self.metrics = RequestRecorder(keep_itl=True)
        self.batches: list[CompletedBatch] = []
        self.aborted: list[tuple[int, int]] = []
        self.time = TimeRecorder([(pricing or FormulaPricing()).classes])
        cutter = Intervals(interval_ns)
        arriving = [row if isinstance(row, Request) else requests([row])[0] for row in rows]
        for index, request in enumerate(arriving):
            request.id = index
        for told in simulate([self.engine], arriving, computed=computed):
            if isinstance(told, Aborted):
                self.aborted.append((told.now, told.request.id))
            if isinstance(told, CompletedBatch):
                self.batches.append(told)
                self.metrics.batch(told)
                self.time.batch(told)
                cutter.batch(told)
        finished = self.metrics.hand_on(None)
        self.gaps = list(finished.itl or ()) if finished is not None else []
        self.intervals: list[Interval] = cutter.complete()

    def summary(self, **facts: Any) -> Summary:
        """Return the summary, as of one engine called some/model on 8 H9000."""
        named = {"model": "some/model", "hardware": "H9000", "npus": 8, "tensor": 4, "pipeline": 2}
        deployed = ["8 x H9000 (TP 4 x PP 2)"]
        facts = {**named, "deployed": deployed, **facts}
        return summarise(self.metrics, self.time.account(self.metrics.totals.end_ns), RunFacts(**facts))

    def result(self) -> RunResult:
        """Return what a simulation of the run would return."""
        return RunResult(
            spec=RunSpec(),
            summary=self.summary(),
            columns=self.metrics.columns(),
            unfinished=self.metrics.unfinished(),
            itl_ns=self.metrics.itl.columns(),
            intervals=self.intervals,
            time=self.time.account(self.metrics.totals.end_ns),
            turned_away=(),
        )

    def rows(self) -> list[dict[str, int]]:
        """Return the finished requests in completion order."""
        columns = self.metrics.columns()
        return [dict(zip(columns, values, strict=True)) for values in zip(*map(list, columns.values()), strict=True)]

    def by_id(self) -> dict[int, dict[str, int]]:
        return {int(row["id"]): row for row in self.rows()}

    def busy_ns(self) -> list[int]:
        """Return the simulated time by class of work."""
        return [int(total) for total in sum(done.busy_ns for done in self.batches)]

    def outcome(self) -> tuple[Any, ...]:
        """Return all that a user can see of the run, for comparison."""
        totals = self.metrics.totals
        shown = (totals.iterations, totals.prompt_tokens, totals.generated_tokens, totals.evicted_bytes)
        moved = (totals.reloaded_bytes, self.metrics.peak_kv_blocks, totals.end_ns)
        lists = [gaps.tolist() for gaps in self.gaps]
        told = (self.aborted, self.busy_ns() if self.batches else [], self.time.account(totals.end_ns))
        return self.rows(), lists, self.intervals, shown, moved, self.metrics.itl.distribution(), told
