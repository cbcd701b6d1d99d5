"""Makes the source and the front's rules that the settings of a run ask for."""

from __future__ import annotations

from foundation.errors import UserError
from foundation.records import dataclass
from orchestrator.cluster.departures import Patience
from orchestrator.cluster.front import FrontRules
from orchestrator.cluster.retrieval import Retrieval
from orchestrator.cluster.source import Source, Tabled
from orchestrator.observers.interface import Run
from orchestrator.request_source import RequestSource
from orchestrator.traffic.settings import TrafficSettings
from orchestrator.traffic.stages import Arriving, Clients, Heard, Places, Stage, Turns
from orchestrator.workload import LATEST_ARRIVAL_NS


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes to a cluster, and the rules by which it is let in; `turns` knows what became of sessions."""

    source: Source
    rules: FrontRules
    turns: Turns | None = None

    @property
    def unreleased(self) -> int:
        """Requests that never came, because a turn of their session before them had no answer."""
        return 0 if self.turns is None else self.turns.unreleased


def make_traffic(run: Run) -> Traffic:
    """Return the traffic of a run."""
    wanted, table, admit = run.spec.traffic, run.source.table, run.deployments[0].admission
    rules = _rules(run)
    if table.sessions is None and not wanted.closed:
        return Traffic(Tabled(table, admit), rules)
    opening = map(admit, table.openings())
    stage: Stage
    if wanted.clients is None:
        stage = Arriving(opening)
    else:
        stage = Clients(opening, wanted.clients, wanted.think_time or 0)
    turns = None if table.sessions is None else Turns(stage, table, admit)
    stage = turns or stage
    if wanted.max_concurrency is not None:
        stage = Places(stage, wanted.max_concurrency)
    return Traffic(Heard(stage), rules, turns)


def check_times(source: RequestSource, wanted: TrafficSettings) -> None:
    """Refuse clients who think for so long, over all requests, that no clock can hold it; a `UserError`."""
    if wanted.clients is None:
        return
    turns = -(-source.count // wanted.clients)
    if turns * (wanted.think_time or 0) > LATEST_ARRIVAL_NS // 4:
        what = f"{turns} requests of a client would be spread over more than {LATEST_ARRIVAL_NS // 4 // 10**9} s"
        raise UserError(what, field="--think_time", fix="give a shorter one, or more --clients")


def _rules(run: Run) -> FrontRules:
    wanted, spec = run.spec.traffic, run.spec
    return FrontRules(
        patience=Patience(_nanoseconds(wanted.client_timeout), _nanoseconds(wanted.ttft_timeout)),
        retrieval=_retrieval(wanted),
        gate=None if spec.admission is None else spec.admission.gate(),
        scaling=spec.autoscaler,
    )


def _retrieval(wanted: TrafficSettings) -> Retrieval | None:
    if wanted.rag_service is not None:
        return Retrieval(wanted.rag_service, wanted.rag_servers or 1)
    return None if wanted.rag_latency is None else Retrieval(wanted.rag_latency)


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds * 1e9))
