"""Run a case: vLLM's engine loop in simulated microseconds, every step recorded.

The engine decides while fewer batches than its queue holds are in flight, else waits for the oldest. With
asynchronous scheduling the queue holds two, so a step is decided when the one before it starts. A request is seen
by a decision if it arrived by then.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from orchestrator.batch import Batch, BatchOutcome
from orchestrator.replay.case import Case
from orchestrator.request import Request
from orchestrator.schedulers.vllm import VllmScheduler, vllm_scheduler

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


@dataclass(slots=True)
class Flight:
    """A batch in the engine's queue; times in microseconds."""

    batch: Batch
    decided: int
    start: int
    duration: int
    free_after_schedule: int

    @property
    def end(self) -> int:
        """When its tokens arrive."""
        return self.start + self.duration


@dataclass(slots=True)
class RequestRow:
    """What became of one request."""

    first_token: int | None = None
    finish: int | None = None
    preemptions: int = 0
    first_hit: int | None = None
    output: int = 0


@dataclass(slots=True)
class Recorder:
    """The rows of steps and requests so far."""

    case: Case
    steps: list[list[Any]] = field(default_factory=list)
    rows: dict[int, RequestRow] = field(default_factory=dict)
    max_running: int = 0
    fruitless: Counter[object] = field(default_factory=Counter)
    """Steps that preempted somebody since the last token, by what they did."""

    def decided(self, batch: Batch) -> None:
        """Count what the decision did to requests."""
        for request, hit in batch.admitted:
            row = self.rows[request.id]
            if row.first_hit is None:
                row.first_hit = hit
        for request in batch.preempted:
            self.rows[request.id].preemptions += 1

    def goes_in_circles(self, batch: Batch) -> bool:
        """Whether the same step with the same preemptions has come again and again without a token in between.

        Requests that need more KV blocks than there are can make vLLM compute and preempt for ever.
        """
        if not batch.preempted:
            return False
        computed = tuple(
            (request.id, count) for request, count in zip(batch.requests, batch.context_tokens, strict=True)
        )
        key = (computed, tuple(request.id for request in batch.preempted))
        self.fruitless[key] += 1
        return self.fruitless[key] > CIRCLES

    def updated(self, flight: Flight, outcome: BatchOutcome, scheduler: VllmScheduler) -> None:
        """Record a finished step."""
        if outcome.emitted:
            self.fruitless.clear()
        for request in outcome.emitted:
            row = self.rows[request.id]
            row.output += 1
            if row.first_token is None:
                row.first_token = flight.end
        for request in outcome.finished:
            self.rows[request.id].finish = flight.end
        batch, usage = flight.batch, scheduler.usage()
        step: list[Any] = [
            flight.start,
            flight.duration,
            {request.name: tokens for request, tokens in zip(batch.requests, batch.new_tokens, strict=True)},
            {request.name: hit for request, hit in batch.admitted},
            [request.name for request in batch.preempted],
            flight.free_after_schedule,
            usage.free_blocks,
            usage.running,
            usage.waiting,
            [request.name for request in outcome.finished],
        ]
        if scheduler.decides_ahead:
            step.append(flight.decided)
        self.steps.append(step)


def replay(case: Case) -> dict[str, Any]:
    """Return the steps and requests of `case` as a JSON document."""
    scheduler = vllm_scheduler(case.config)
    recorder = Recorder(case, rows={request.id: RequestRow() for request in case.requests})
    arrivals = deque(sorted(case.requests, key=lambda request: request.arrival_ns))
    queue: deque[Flight] = deque()
    now = 0
    while True:
        while arrivals and arrivals[0].arrival_ns <= now * 1000:
            scheduler.add(arrivals.popleft(), now * 1000)
        flight = _decide(scheduler, case, now, queue[-1].end if queue else now)
        if flight is not None:
            queue.append(flight)
            recorder.decided(flight.batch)
            recorder.max_running = max(recorder.max_running, scheduler.usage().running)
            if recorder.goes_in_circles(flight.batch) and not arrivals:
                break
            if flight.batch.requests and len(queue) < scheduler.max_in_flight:
                continue
        if queue:
            done = queue.popleft()
            now = done.end
            recorder.updated(done, scheduler.update(done.batch, now * 1000), scheduler)
        elif arrivals:
            now = arrivals[0].arrival_ns // 1000
        else:
            break
    return _document(recorder, scheduler)


def _decide(scheduler: VllmScheduler, case: Case, now: int, free_at: int) -> Flight | None:
    batch = scheduler.decide()
    if batch is None:
        return None
    tokens = sum(batch.new_tokens)
    duration = case.latency.step_us(tokens, sum(batch.context_tokens) + tokens)
    return Flight(batch, now, max(now, free_at), duration, scheduler.usage().free_blocks)


def _document(recorder: Recorder, scheduler: VllmScheduler) -> dict[str, Any]:
    steps, config = recorder.steps, recorder.case.config
    requests = [_request_row(request, recorder.rows[request.id]) for request in recorder.case.requests]
    return {
        "vllm_version": f"{config.version}.0",
        "stalled": scheduler.has_unfinished(),
        "num_steps": len(steps),
        "end_us": steps[-1][0] + steps[-1][1] if steps else 0,
        "total_scheduled_tokens": sum(sum(step[2].values()) for step in steps),
        "total_preemptions": sum(row.preemptions for row in recorder.rows.values()),
        "total_finished": sum(row.finish is not None for row in recorder.rows.values()),
        "max_running": recorder.max_running,
        "min_free_blocks": min((step[5] for step in steps), default=config.usable_blocks),
        "request_columns": REQUEST_COLUMNS,
        "requests": requests,
        "step_columns": [*STEP_COLUMNS, DECIDED_COLUMN] if scheduler.decides_ahead else STEP_COLUMNS,
        "steps": steps,
    }


def _request_row(request: Request, row: RequestRow) -> list[Any]:
    status = "unfinished" if row.finish is None else "length"
    return [request.name, row.first_token, row.finish, row.preemptions, row.first_hit or 0, row.output, status]
