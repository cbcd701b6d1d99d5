"""Run a case through the engine that the main job runs, in simulated microseconds, every step recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import field
from typing import Any

import numpy as np

from foundation.records import dataclass
from orchestrator.cluster.cluster import Cluster
from orchestrator.cluster.routers.round_robin import RoundRobin
from orchestrator.cluster.source import Listed
from orchestrator.engine.batch import Batch
from orchestrator.engine.engine import Engine
from orchestrator.engine.records import Aborted, CompletedBatch, Rejected
from orchestrator.pricing.interface import Cost
from orchestrator.replay.case import Case, LatencyModel
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.vllm import VllmScheduler

REQUEST_COLUMNS = [
    "id",
    "first_token_us",
    "finish_us",
    "num_preemptions",
    "cached_tokens_first_admission",
    "output_tokens",
    "status",
]
STEP_COLUMNS = [
    "start_us",
    "dur_us",
    "scheduled{id:tokens}",
    "admitted{id:cached_tokens}",
    "preempted[ids, in order]",
    "free_blocks_after_schedule",
    "free_blocks_after_update",
    "running_after_update",
    "waiting_after_update",
    "finished[ids]",
]
DECIDED_COLUMN = "decided_us"
"""The 11th column of asynchronous cases: when the step was decided."""
CIRCLES = 20
"""How often a step may be repeated, with no token between, before a replay ends as stalled."""


class FormulaPricing:
    """Prices batches by a case's latency formula. All of a batch's time lies on the first of `stages`."""

    max_steps = 2**20
    classes: tuple[str, ...] = ()

    def __init__(self, latency: LatencyModel, stages: int) -> None:
        self.stages = stages
        self._latency = latency

    def price(self, wave: Sequence[Batch]) -> Cost:
        """See `orchestrator.pricing.interface.Pricing.price`."""
        (batch,) = wave
        tokens, context = int(batch.new_tokens.sum()), int(batch.context_tokens.sum())
        grown = [context + tokens + len(batch.ids) * step for step in range(batch.steps)]
        steps = [1000 * self._latency.step_us(tokens, after) for after in grown]
        finishes = np.repeat(np.array(steps, dtype=np.int64)[None, :, None], self.stages, axis=2)
        return Cost(finishes, np.zeros((1, batch.steps, 0), dtype=np.int64))


@dataclass(slots=True)
class RequestRow:
    """What became of one request."""

    first_token: int | None = None
    finish: int | None = None
    preemptions: int = 0
    first_hit: int | None = None
    output: int = 0
    status: str = "unfinished"


@dataclass(slots=True)
class StepTable:
    """The rows of steps and requests so far."""

    case: Case
    steps: list[list[Any]] = field(default_factory=list)
    rows: dict[int, RequestRow] = field(default_factory=dict)
    max_running: int = 0
    aborts: list[list[Any]] = field(default_factory=list)
    """When (us) whose request was given up."""

    fruitless: Counter[object] = field(default_factory=Counter)
    """Steps that preempted somebody since the last token, by what they did."""

    def ended(self, done: CompletedBatch) -> None:
        """Record a step that has ended."""
        batch, outcome, now = done.batch, done.outcome, done.end_ns // 1000
        for request, hit in batch.admitted:
            row = self.rows[request.id]
            row.first_hit = hit if row.first_hit is None else row.first_hit
        for request in batch.preempted:
            self.rows[request.id].preemptions += 1
        if outcome.emitted:
            self.fruitless.clear()
        for request, tokens in outcome.each():
            row = self.rows[request.id]
            row.output += tokens
            row.first_token = now if row.first_token is None else row.first_token
        for request in outcome.finished:
            self.rows[request.id].finish = now
            self.rows[request.id].status = "length"
        self.max_running = max(self.max_running, done.usages.last.running)
        self.steps.append(self._row(done))

    def aborted(self, gone: Aborted) -> None:
        """Record a request that was given up."""
        now, row = gone.now // 1000, self.rows[gone.request.id]
        row.finish, row.status = now, "aborted"
        self.aborts.append([now, gone.request.name])

    def goes_in_circles(self, batch: Batch) -> bool:
        """Whether the same step with the same preemptions has come again and again without a token in between.

        Requests that need more KV blocks than there are can make vLLM compute and preempt for ever.
        """
        if not batch.preempted:
            return False
        computed = (batch.ids.tobytes(), batch.context_tokens.tobytes())
        key = (computed, tuple(request.id for request in batch.preempted))
        self.fruitless[key] += 1
        return self.fruitless[key] > CIRCLES

    def _row(self, done: CompletedBatch) -> list[Any]:
        batch, start = done.batch, done.start_ns // 1000
        names = [request.name for request in batch.requests]
        row: list[Any] = [
            start,
            done.end_ns // 1000 - start,
            dict(zip(names, batch.new_tokens.tolist(), strict=True)),
            {request.name: hit for request, hit in batch.admitted},
            [request.name for request in batch.preempted],
            done.usages.last.free_blocks,
            done.after.free_blocks,
            done.after.running,
            done.after.waiting,
            [request.name for request in done.outcome.finished],
        ]
        return [*row, done.decided_ns // 1000] if self.case.config.decides_ahead else row


def replay(case: Case) -> dict[str, Any]:
    """Return the steps and requests of `case` as a JSON document."""
    scheduler = VllmScheduler(case.config, case.groups, case.acceptance)
    pricing = FormulaPricing(case.latency, case.config.pipeline_stages)
    engine = Engine(scheduler, pricing, max_steps=1)
    table = StepTable(case, rows={request.id: RequestRow() for request in case.requests})
    ordered = sorted(case.requests, key=lambda request: request.arrival_ns)
    last_arrival = max((request.arrival_ns for request in ordered), default=0)
    for told in Cluster([engine], RoundRobin(), Listed(map(Admission, ordered))).run():
        if isinstance(told, Rejected):
            table.rows[told.request.id].status = "rejected"
        elif isinstance(told, Aborted):
            table.aborted(told)
        elif isinstance(told, CompletedBatch):
            table.ended(told)
            if table.goes_in_circles(told.batch) and told.end_ns >= last_arrival:
                break
    return _document(table, scheduler)


def _document(table: StepTable, scheduler: VllmScheduler) -> dict[str, Any]:
    steps, config = table.steps, table.case.config
    requests = [_request_row(request, table.rows[request.id]) for request in table.case.requests]
    document = {
        "vllm_version": f"{config.version}.0",
        "stalled": scheduler.has_unfinished(),
        "num_steps": len(steps),
        "end_us": steps[-1][0] + steps[-1][1] if steps else 0,
        "total_scheduled_tokens": sum(sum(step[2].values()) for step in steps),
        "total_preemptions": sum(row.preemptions for row in table.rows.values()),
        "total_finished": sum(row.status == "length" for row in table.rows.values()),
        "max_running": table.max_running,
        "min_free_blocks": min((step[5] for step in steps), default=None),
        "request_columns": REQUEST_COLUMNS,
        "requests": requests,
        "step_columns": [*STEP_COLUMNS, DECIDED_COLUMN] if config.decides_ahead else STEP_COLUMNS,
        "steps": steps,
    }
    return document | ({"aborts": table.aborts} if table.aborts else {})


def _request_row(request: Request, row: RequestRow) -> list[Any]:
    return [
        request.name,
        row.first_token,
        row.finish,
        row.preemptions,
        row.first_hit or 0,
        row.output,
        row.status,
    ]
