"""Several engines on one clock: each is as if it were alone, and one that has nothing to do costs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st

from foundation.errors import InternalError
from orchestrator.cluster.cluster import Cluster
from orchestrator.cluster.router import RouterPlace, routers
from orchestrator.cluster.routers.round_robin import RoundRobin
from orchestrator.cluster.source import Listed
from orchestrator.engine.engine import Engine
from orchestrator.engine.records import Aborted, CompletedBatch, Rejected
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Scheduler
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.serving import FormulaPricing, scheduler

POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("orca", {}),
    ("orca", {"pipeline": 2, "max_batch": 2}),
    ("none", {"max_batch": 3, "batch_delay": 2000}),
    ("vllm", {}),
    ("vllm", {"async_scheduling": False, "max_num_batched_tokens": 256}),
    ("vllm", {"pipeline": 2}),
    ("sglang", {}),
    ("sglang", {"pipeline": 2, "chunked_prefill_size": 8}),
]


def engine(number: int, policy: str, options: dict[str, Any], pricing: FormulaPricing | None = None) -> Engine:
    made = scheduler(policy, 40, **options)
    return Engine(made, pricing or FormulaPricing(options.get("pipeline", 1)), number=number)


def story(told: Sequence[CompletedBatch | Aborted | Rejected], number: int) -> list[tuple[Any, ...]]:
    """Return what an engine told as single iterations, aborts and ends, in order of time."""
    lines: list[tuple[Any, ...]] = []
    for one in told:
        if one.engine != number:
            continue
        if isinstance(one, CompletedBatch):
            ids, ends = one.batch.ids.tolist(), one.ends_ns.tolist()
            lines += [(end, "step", int(serial), ids) for end, serial in zip(ends, one.serials, strict=True)]
            lines.append((one.end_ns, "over", sorted(request.id for request in one.outcome.finished), one.after))
        else:
            lines.append((one.now, type(one).__name__, one.request.id))
    steps = [line for line in lines if line[1] == "step"]
    ended = [line for line in lines if line[1] == "over" and line[2]]
    return [*sorted(steps), *ended, *(line for line in lines if line[1] not in ("step", "over"))]


ROWS = st.lists(
    st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(0, 60_000), st.integers(0, 4)),
    min_size=2,
    max_size=14,
)


def requests(rows: Sequence[tuple[int, int, int, int]]) -> list[Request]:
    ordered = sorted(rows, key=lambda row: row[2])
    return [
        Request(place, arrival, prompt, output, abort_ns=arrival + 5000 * kind if kind == 3 else None)
        for place, (prompt, output, arrival, kind) in enumerate(ordered)
    ]


@pytest.mark.parametrize(("policy", "options"), POLICIES)
def test_n_engines_are_n_runs_of_every_nth_request(policy: str, options: dict[str, Any]) -> None:
    @reaches(0.5, examples=30, rows=ROWS, count=st.integers(2, 3))
    def compare(reached: Reached, rows: list[tuple[int, int, int, int]], count: int) -> None:
        engines = [engine(number, policy, options) for number in range(count)]
        clock = Cluster(engines, RoundRobin(), Listed(map(Admission, requests(rows))))
        together = []
        for one in clock.run():
            together.append(one)
            assert clock.told_until() == min(clock.now, *(engine.told_until() for engine in engines))
        for number in range(count):
            alone = engine(number, policy, options)
            own = list(Cluster([alone], RoundRobin(), Listed(map(Admission, requests(rows)[number::count]))).run())
            assert story(together, number) == story(own, number)
            assert alone.idle() and engines[number].idle()
        if len({one.engine for one in together}) == count and any(
            isinstance(one, CompletedBatch) and one.batch.steps > 1 for one in together
        ):
            reached()

    compare()


class ToTheFirst:
    """Sends everything to engine 0."""

    def route(self, request: Request, now: int, engines: Sequence[Engine]) -> int:
        return 0


@dataclass
class Counted:
    """A scheduler that counts how often it is asked anything."""

    inner: Scheduler
    calls: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if callable(value):
            self.calls.append(name)
        return value


def test_engines_that_idle_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One engine busy among a hundred is asked and priced as often as alone, and nobody asks the others anything."""
    rows = requests([(1 + place % 9, 1 + place % 30, 700 * place, 0) for place in range(60)])

    def calls(count: int) -> tuple[list[Counted], list[int]]:
        pricing = [FormulaPricing() for _ in range(count)]
        counted = [Counted(scheduler("orca", 60)) for _ in range(count)]
        engines = [Engine(made, pricing[n], number=n) for n, made in enumerate(counted)]  # type: ignore[arg-type]
        set_up = [len(one.calls) for one in counted]
        for one in engines[1:]:
            monkeypatch.setattr(one, "told_until", pytest.fail)
        clock = Cluster(engines, ToTheFirst(), Listed(map(Admission, rows)))
        until = []
        for one in clock.run():
            assert one.engine == 0
            until.append(clock.told_until())
        assert until == sorted(until) and len(set(until)) > 50
        assert all(len(one.calls) == before for one, before in zip(counted[1:], set_up[1:], strict=True))
        return counted, [len(one.priced) for one in pricing]

    alone, priced_alone = calls(1)
    among, priced = calls(100)
    assert sum(priced) == priced[0] <= 1.1 * priced_alone[0]
    assert len(among[0].calls) <= 1.1 * len(alone[0].calls)
    assert len(alone[0].calls) > 100, "it has been busy"


def test_a_router_is_one_file_with_its_settings() -> None:
    turns = routers.get("round-robin")().router(RouterPlace(3))
    engines = [engine(number, "orca", {}) for number in range(3)]
    assert [turns.route(Request(n, 0, 1, 1), 0, engines) for n in range(7)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("number", [-1, 2])
def test_a_router_that_names_no_engine_is_a_defect(number: int) -> None:
    """Else -1 would be the last engine."""

    class Astray:
        def route(self, request: Request, now: int, engines: Sequence[Engine]) -> int:
            return number

    engines = [engine(place, "orca", {}) for place in range(2)]
    clock = Cluster(engines, Astray(), Listed([Admission(Request(7, 0, 5, 5))]))
    with pytest.raises(InternalError, match=f"Astray routes request 7 to engine {number} of 2"):
        list(clock.run())
