"""Runs of clusters with rules at the front: what is told, and what became of each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchestrator.cluster.clock import Told
from orchestrator.cluster.cluster import Cluster
from orchestrator.cluster.front import FrontRules
from orchestrator.cluster.router import Router
from orchestrator.cluster.routers.round_robin import RoundRobin
from orchestrator.cluster.source import Source
from orchestrator.engine.engine import Engine
from orchestrator.engine.records import Aborted, CompletedBatch
from orchestrator.pricing.interface import Pricing
from orchestrator.request_table import RequestTable, SessionColumns
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.traffic.stages import Arriving, Clients, Heard, Places, Stage, Turns
from tests.orchestrator.serving import FormulaPricing, StageTimes, scheduler


@dataclass
class Fate:
    """One request: when it came, its first token, its end, and how it ended: answered, rejected or aborted."""

    arrival: int
    first: int | None = None
    end: int | None = None
    how: str = ""
    engine: int = -1


@dataclass
class Outcome:
    """What a run told."""

    cluster: Cluster
    fates: dict[int, Fate] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    batches: int = 0

    def ends(self) -> dict[int, int | None]:
        """Return the end of each answer."""
        return {number: fate.end for number, fate in self.fates.items() if fate.how == "answered"}

    def of(self, how: str) -> list[int]:
        """Return the ids of those that ended so, in order."""
        return sorted(number for number, fate in self.fates.items() if fate.how == how)


def tenth(number: int = 0, **options: Any) -> Engine:
    """Return an engine whose every batch takes 10 ns."""
    return Engine(scheduler("orca", 400, **options), StageTimes([10]), number=number)


def engines(
    count: int, policy: str, options: dict[str, Any], *, most: int = 512, pricing: Pricing | None = None
) -> list[Engine]:
    stages = options.get("pipeline", 1)
    return [
        Engine(scheduler(policy, 60, **options), pricing or FormulaPricing(stages), number=number, max_steps=most)
        for number in range(count)
    ]


def table(rows: Sequence[tuple[int, int, int]], sessions: Sequence[tuple[int, int]] = ()) -> RequestTable:
    """Return requests of (prompt, output, arrival), with (session, pause) of each where there are any."""
    prompts, outputs, arrivals = np.array(rows, dtype=np.int64).T
    ids = np.arange(len(rows))
    columns = None
    if sessions:
        numbers, pauses = np.array(sessions, dtype=np.int64).T
        columns = SessionColumns(numbers, pauses)
    return RequestTable(ids, prompts, outputs, arrivals, ids + 1, sessions=columns).in_arrival_order()


def source(
    requests: RequestTable, *, clients: int | None = None, think: int = 0, places: int | None = None
) -> tuple[Source, Turns | None]:
    opening = map(Admission, requests.openings())
    stage: Stage = Arriving(opening) if clients is None else Clients(opening, clients, think)
    turns = None if requests.sessions is None else Turns(stage, requests, Admission)
    stage = turns or stage
    return Heard(stage if places is None else Places(stage, places)), turns


def run(
    serving: Sequence[Engine], requests: Source, rules: FrontRules | None = None, router: Router | None = None
) -> Outcome:
    """Run to the end; nothing is left behind, and times never go back."""
    made = Cluster(serving, router or RoundRobin(), requests, rules or FrontRules())
    outcome = Outcome(made)
    for told in made.run():
        _note(outcome, told)
    for engine in serving:
        assert engine.idle()
        assert engine.usage().free_blocks == engine.usage().total_blocks
    return outcome


def _note(outcome: Outcome, told: Told) -> None:
    if isinstance(told, CompletedBatch):
        outcome.batches += 1
        for seen in told.seen:
            outcome.fates.setdefault(seen.request.id, Fate(seen.request.arrival_ns))
        for request in told.outcome.emitted:
            fate = outcome.fates[request.id]
            fate.first = int(told.ends_ns[0]) if fate.first is None else fate.first
        for request in told.outcome.finished:
            _end(outcome, request, told.end_ns, "answered", told.engine)
        return
    _end(outcome, told.request, told.now, "aborted" if isinstance(told, Aborted) else "rejected", told.engine)
    if not isinstance(told, Aborted):
        outcome.reasons[told.request.id] = told.reason


def _end(outcome: Outcome, request: Request, now: int, how: str, engine: int) -> None:
    fate = outcome.fates.setdefault(request.id, Fate(request.arrival_ns))
    assert not fate.how, f"request {request.id} ended twice"
    fate.arrival, fate.end, fate.how, fate.engine = request.arrival_ns, now, how, engine
