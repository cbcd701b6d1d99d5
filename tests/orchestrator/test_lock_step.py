"""Waves: who waits for whom, dummies, the check that ends them, and that groups are as if they were alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from foundation.errors import InternalError
from orchestrator.cluster.cluster import Cluster
from orchestrator.cluster.routers.round_robin import RoundRobin
from orchestrator.cluster.source import Listed
from orchestrator.cluster.waves import CHECKED_EVERY, Waves
from orchestrator.engine.batch import Batch
from orchestrator.engine.engine import Engine
from orchestrator.engine.member import Member
from orchestrator.engine.records import Aborted, CompletedBatch, DummyPass, Gap
from orchestrator.observers.account import DUMMIES, TimeRecorder
from orchestrator.observers.intervals import Intervals
from orchestrator.observers.requests import RequestRecorder
from orchestrator.pricing.interface import Cost, Pricing
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.serving import FormulaPricing, requests, scheduler

Pass = tuple[int, int, int, tuple[int, ...]]
"""Engine, begin, end, and the requests: none for a dummy."""


class ByRequest:
    """A member takes 1000 ns a request, a dummy 100."""

    stages, max_steps, classes = 1, 10**6, ("all",)

    def price(self, wave: Sequence[Batch]) -> Cost:
        took = np.array([1000 * len(batch.requests) or 100 for batch in wave], dtype=np.int64)
        times = took[:, None, None].repeat(wave[0].steps, axis=1)
        return Cost(times, times)


def group(count: int, pricing: Pricing, *, first: int = 0, blocks: int = 40, most: int = 512, **options: Any) -> Waves:
    waves = Waves(pricing, max_steps=most)
    numbers = range(first, first + count)
    waves.admit([Member(scheduler("vllm", blocks, **options), waves, number=n, max_steps=most) for n in numbers])
    return waves


@dataclass
class Ran:
    """What was told of a run of groups."""

    cluster: Cluster
    batches: list[CompletedBatch] = field(default_factory=list)
    dummies: list[DummyPass] = field(default_factory=list)
    aborted: list[Aborted] = field(default_factory=list)

    def passes(self, *engines: int) -> list[Pass]:
        """Return all passes in order of their beginning."""
        ids = [(one, tuple(request.id for request in one.batch.requests)) for one in self.batches]
        found = [(one.engine, one.start_ns, one.end_ns, own) for one, own in ids if own]
        found += [(one.engine, one.start_ns, one.end_ns, ()) for one in self.dummies]
        return sorted((one for one in found if not engines or one[0] in engines), key=lambda one: (one[1], one[0]))

    def real(self) -> list[Pass]:
        return [one for one in self.passes() if one[3]]


def run(groups: Sequence[Waves], arriving: Sequence[Request], router: Any = None) -> Ran:
    members = [member for one in groups for member in one.members]
    ran = Ran(Cluster(members, router or RoundRobin(), Listed(map(Admission, arriving)), waves=groups))
    kinds: dict[type, list[Any]] = {CompletedBatch: ran.batches, DummyPass: ran.dummies, Aborted: ran.aborted}
    until = 0
    for told in ran.cluster.run():
        kinds[type(told)].append(told)
        if isinstance(told, CompletedBatch | DummyPass):
            assert told.start_ns >= until, "what was told before was said to be all"
        assert ran.cluster.told_until() >= until
        until = ran.cluster.told_until()
    return ran


# -- by hand


@pytest.mark.parametrize("ahead", [False, True])
def test_the_next_wave_begins_when_the_latest_member_is_ready(ahead: bool) -> None:
    """Member 0 has two requests and takes 2000 ns a pass, member 1 one and takes 1000: it waits."""
    ran = run([group(2, ByRequest(), async_scheduling=ahead)], requests([(4, 3, 0), (4, 2, 0), (4, 3, 0)]))
    assert ran.real() == [
        (0, 0, 2000, (0, 2)),
        (1, 0, 1000, (1,)),
        (0, 2000, 4000, (0, 2)),
        (1, 2000, 3000, (1,)),
        (0, 4000, 6000, (0, 2)),
    ]
    gaps = {one.start_ns: one.gap for one in ran.batches if one.engine == 1}
    assert gaps == {0: Gap(0, 0), 2000: Gap(1000, 0)}
    assert ran.passes(1)[2] == (1, 4000, 4100, ())


def test_an_idle_member_has_decided_for_a_dummy_and_sees_a_request_in_the_wave_after() -> None:
    """Its dummy of the second wave was decided as the first began; so the request waits for two waves to end."""
    ran = run([group(2, ByRequest(), async_scheduling=False)], requests([(4, 4, 0), (4, 1, 500)]))
    assert ran.passes()[:6] == [
        (0, 0, 1000, (0,)),
        (1, 0, 100, ()),
        (0, 1000, 2000, (0,)),
        (1, 1000, 1100, ()),
        (0, 2000, 3000, (0,)),
        (1, 2000, 3000, (1,)),
    ]


def test_decisions_run_ahead_of_the_tokens_and_of_the_waves() -> None:
    """With asynchronous scheduling the second pass is decided as the first begins."""
    ran = run([group(2, ByRequest())], requests([(4, 3, 0), (4, 3, 0)]))
    assert [(one.engine, one.decided_ns, one.start_ns) for one in ran.batches] == [
        (0, 0, 0), (1, 0, 0), (0, 0, 1000), (1, 0, 1000), (0, 1000, 2000), (1, 1000, 2000),
    ]  # fmt: skip


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("waker", [0, 1])
def test_dummies_go_on_until_the_check_and_a_request_wakes_all(waker: int, ahead: bool) -> None:
    class Sent:
        def route(self, request: Request, now: int, engines: Sequence[Engine]) -> int:
            return waker if request.id else 0

    ran = run([group(2, ByRequest(), async_scheduling=ahead)], requests([(4, 2, 0), (4, 1, 50_000)]), Sent())
    per_member = [[one for one in ran.passes(number) if one[1] < 50_000] for number in (0, 1)]
    assert [len(passes) for passes in per_member] == [CHECKED_EVERY] * 2
    assert [one[3] for one in per_member[0]] == [(0,)] * 2 + [()] * 30
    assert per_member[0][-1][2] == 2000 + 30 * 100
    second = [one for one in ran.passes() if one[1] >= 50_000]
    assert second[0][1] == second[1][1] == 50_000 and len(second) == 2 * CHECKED_EVERY
    assert [one for one in second if one[3]] == [(waker, 50_000, 51_000, (1,))]
    (first,) = [one for one in ran.dummies if one.start_ns == 50_000]
    assert first.engine == 1 - waker and first.gap == Gap(0, 45_000)


def test_a_group_whose_check_finds_a_request_goes_on() -> None:
    """40 tokens: the check after 32 passes finds it, the one after 64 finds nobody."""
    ran = run([group(2, ByRequest())], requests([(4, 40, 0)]))
    assert len(ran.passes(0)) == len(ran.passes(1)) == 2 * CHECKED_EVERY


def test_an_idle_group_costs_nothing() -> None:
    """No event, no pass and no price while nobody has requests, however long that is."""
    pricing = FormulaPricing()
    ran = run([group(3, pricing)], requests([(4, 2, 10**15)]))
    assert len(ran.passes()) == 3 * CHECKED_EVERY and len(pricing.priced) < CHECKED_EVERY
    assert ran.passes()[0][1] == 10**15


def test_time_goes_to_batches_dummies_waiting_and_idling_and_dummies_after_the_end_are_nobodys() -> None:
    waves = group(2, ByRequest(), async_scheduling=False)
    members = waves.members
    recorder = TimeRecorder([("all",)] * 2)
    served = requests([(4, 3, 500), (4, 2, 500), (4, 3, 500)])
    for told in Cluster(members, RoundRobin(), Listed(map(Admission, served)), waves=[waves]).run():
        (recorder.dummy if isinstance(told, DummyPass) else recorder.batch)(told)  # type: ignore[operator]
    account = recorder.account(6500)
    idle = 500 + (500 + 1000 + 1900)  # before the first request; member 1 before its dummy, and after it
    assert account.parts() == {"all": 6000 + 2000, DUMMIES: 100, "waiting": 1000, "idle": idle}
    assert account.busy_ns == 8100 and account.busy_ns + account.waiting_ns + account.idle_ns == 2 * 6500


def test_routers_see_members_as_engines() -> None:
    """As of the moment: who runs, and who has come but was not seen, for the wave has not begun."""
    seen = []

    class Watching:
        def route(self, request: Request, now: int, engines: Sequence[Engine]) -> int:
            loads = [engine.load(now) for engine in engines]
            seen.append([(load.running, load.waiting, load.free_blocks) for load in loads])
            return min(range(len(loads)), key=lambda place: loads[place].running + loads[place].waiting)

    ran = run([group(2, ByRequest())], requests([(4, 9, 0), (8, 9, 0), (4, 9, 500), (4, 9, 700)]), Watching())
    assert seen == [
        [(0, 0, 40), (0, 0, 40)],
        [(0, 1, 40), (0, 0, 40)],
        [(1, 0, 38), (1, 0, 37)],
        [(1, 1, 38), (1, 0, 37)],
    ]
    assert [one.engine for one in ran.batches if one.outcome.finished] == [0, 1, 0, 1]


def test_a_group_in_which_somebody_waits_in_vain_stops() -> None:
    """Two KV blocks never hold a prompt of 30 tokens: the run ends, and the request is still there."""
    waves = group(2, ByRequest(), blocks=2)
    ran = run([waves], requests([(30, 2, 0)]))
    assert not ran.batches and len(ran.passes(0)) == len(ran.passes(1)) == CHECKED_EVERY
    assert not waves.members[0].idle() and waves.members[1].idle()


def test_a_scheduler_that_decides_otherwise_is_no_member() -> None:
    with pytest.raises(InternalError, match="OrcaScheduler does not decide as a data-parallel engine does"):
        Member(scheduler("orca", 40), Waves(FormulaPricing()))


# -- properties

POLICIES: list[dict[str, Any]] = [
    {},
    {"async_scheduling": False},
    {"max_num_batched_tokens": 5, "max_num_seqs": 4},
    {"async_scheduling": False, "max_num_batched_tokens": 5, "max_num_seqs": 3},
    {"pipeline": 2},
    {"pipeline": 3, "enable_prefix_caching": False},
    {"pipeline": 2, "async_scheduling": False},
    {"pipeline": 2, "vllm_version": "0.33"},
]
EACH = pytest.mark.parametrize("options", POLICIES)
ROWS = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, 90_000), st.integers(0, 4), st.integers(0, 9**5)),
    min_size=1,
    max_size=14,
)
Rows = list[tuple[int, int, int, int, int]]


def served(rows: Rows) -> list[Request]:
    """Return requests in order of arrival; of some the client goes away."""
    ordered = sorted(rows, key=lambda row: row[2])
    return [
        Request(place, arrival, prompt, output, abort_ns=arrival + stays if kind == 3 else None)
        for place, (prompt, output, arrival, kind, stays) in enumerate(ordered)
    ]


def formula_group(count: int, options: dict[str, Any], *, first: int = 0, most: int = 512, blocks: int = 40) -> Waves:
    pricing = FormulaPricing(options.get("pipeline", 1))
    return group(count, pricing, first=first, blocks=blocks, most=most, **options)


def story(ran: Ran, *engines: int) -> list[object]:
    """Return all that is told of `engines`, by their places, that does not depend on how it was worked out."""
    place = {number: index for index, number in enumerate(engines)}
    batches = [
        (
            place[one.engine], one.decided_ns, one.start_ns, one.ends_ns.tolist(), one.batch.ids.tolist(),
            one.batch.new_tokens.tolist(), one.batch.context_tokens.tolist(), [r.id for r in one.outcome.emitted],
            [r.id for r in one.outcome.finished], one.busy_ns.tolist(), one.gap, one.usages.last, one.after,
            [(seen.request.id, seen.queued_ns) for seen in one.seen], one.stages_ns.tolist(), one.serials.tolist(),
        )
        for one in ran.batches
        if one.engine in place
    ]  # fmt: skip
    dummies = [(place[one.engine], one.start_ns, one.end_ns, one.gap) for one in ran.dummies if one.engine in place]
    aborted = [(place[one.engine], one.request.id, one.now) for one in ran.aborted if one.engine in place]
    return [sorted(batches), sorted(dummies), aborted]


@EACH
def test_what_holds_of_every_wave(options: dict[str, Any]) -> None:
    """Passes of a wave begin together, after all of the wave before; everybody is served; nothing is left over."""

    @reaches(0.3, examples=15, rows=ROWS, count=st.integers(2, 4), blocks=st.integers(26, 60))
    def check(reached: Reached, rows: Rows, count: int, blocks: int) -> None:
        arriving = served(rows)
        waves = formula_group(count, options, blocks=blocks)
        ran = run([waves], arriving)
        by_member = [ran.passes(number) for number in range(count)]
        assert len({len(passes) for passes in by_member}) == 1 and len(by_member[0]) % CHECKED_EVERY == 0
        before = 0
        for wave in zip(*by_member, strict=True):
            assert len({begin for _, begin, _, _ in wave}) == 1
            if waves.pricing.stages == 1:
                assert wave[0][1] >= before
            assert max(end for _, _, end, _ in wave) >= before
            before = max(end for _, _, end, _ in wave)
        gone = {one.request.id for one in ran.aborted}
        tokens = dict.fromkeys((request.id for request in arriving), 0)
        for done in ran.batches:
            for request, count_of_it in done.outcome.each():
                tokens[request.id] += count_of_it
        finished = [request.id for done in ran.batches for request in done.outcome.finished]
        assert sorted(finished) == sorted(set(tokens) - gone)
        assert all(tokens[one.id] == one.output_tokens for one in arriving if one.id not in gone)
        assert all(member.idle() for member in waves.members)
        assert all(member.usage().free_blocks == blocks for member in waves.members)
        if ran.dummies and any(sum(bool(one[3]) for one in wave) > 1 for wave in zip(*by_member, strict=True)):
            reached()

    check()


@EACH
def test_time_is_told_in_full(options: dict[str, Any]) -> None:
    """Busy, waiting and idle add up for every member, and batches and dummies of a member never overlap."""

    @reaches(0.3, examples=10, rows=ROWS, count=st.integers(2, 3))
    def check(reached: Reached, rows: Rows, count: int) -> None:
        waves = formula_group(count, options)
        recorder, metrics, cutter = TimeRecorder([FormulaPricing.classes] * count), RequestRecorder(), Intervals(10_000)
        cluster = Cluster(waves.members, RoundRobin(), Listed(map(Admission, served(rows))), waves=[waves])
        dummies = 0
        for told in cluster.run():
            if isinstance(told, DummyPass):
                recorder.dummy(told)
                dummies += 1
            elif isinstance(told, CompletedBatch):
                for observer in (recorder, metrics, cutter):
                    observer.batch(told)
        end = metrics.totals.end_ns
        account = recorder.account(end)
        assert account.busy_ns + account.waiting_ns + account.idle_ns == count * end
        assert min(account.busy_ns, account.waiting_ns, account.idle_ns) >= 0
        if waves.pricing.stages == 1:
            assert sum(account.by_class.values()) == account.busy_ns
        if account.by_class.get(DUMMIES, 0) and dummies:
            reached()

    check()


@EACH
def test_steps_priced_at_once_change_nothing(options: dict[str, Any]) -> None:
    @reaches(0.4, examples=15, rows=ROWS, count=st.integers(2, 3), blocks=st.integers(26, 60))
    def compare(reached: Reached, rows: Rows, count: int, blocks: int) -> None:
        groups = [formula_group(count, options, most=most, blocks=blocks) for most in (1, 5, 512)]
        single, few, many = (story(run([one], served(rows)), *range(count)) for one in groups)
        assert few == single and many == single
        prices = [one.pricing.priced for one in groups if isinstance(one.pricing, FormulaPricing)]
        if len(prices[2]) < len(prices[0]) / 2:
            reached()

    compare()


@EACH
def test_groups_are_as_if_they_were_alone(options: dict[str, Any]) -> None:
    """A group and an engine of another kind beside it are what they are by themselves."""

    @reaches(0.3, examples=10, rows=ROWS, count=st.integers(2, 3))
    def compare(reached: Reached, rows: Rows, count: int) -> None:
        both = run([formula_group(count, options), formula_group(count, options, first=count)], served(rows))
        for place in range(2):
            own = range(place * count, (place + 1) * count)
            mine = [one for one in served(rows) if one.id % (2 * count) in own]
            engine_of = {one.id: one.id % (2 * count) - place * count for one in mine}

            class Same:
                def route(self, request: Request, now: int, engines: Sequence[Engine]) -> int:
                    return engine_of[request.id]  # noqa: B023

            alone = run([formula_group(count, options)], mine, Same())
            assert story(both, *own) == story(alone, *range(count))
        if len({one.engine for one in both.batches}) == 2 * count:
            reached()

    compare()


@pytest.mark.parametrize("options", POLICIES[:6])
def test_a_wave_of_one_is_the_plain_engine(options: dict[str, Any]) -> None:
    """As long as nothing comes to it while it makes dummies, which an engine by itself does not.

    (Where decisions for nothing stand between those for something, as in the other pipelines, there are always some.)
    """

    @reaches(0.2, examples=30, rows=ROWS, gap=st.sampled_from([1, 10, 1000]))
    def compare(reached: Reached, rows: Rows, gap: int) -> None:
        rows = [(prompt, output, arrival // gap, kind, stays) for prompt, output, arrival, kind, stays in rows]
        one = run([formula_group(1, options)], served(rows))
        first_dummy = min((dummy.start_ns for dummy in one.dummies), default=0)
        moments = [*(done.start_ns for done in one.batches), *(gone.now for gone in one.aborted)]
        if any(moment > first_dummy for moment in moments):
            return
        pricing = FormulaPricing(options.get("pipeline", 1))
        plain = Ran(
            Cluster(
                [Engine(scheduler("vllm", 40, **options), pricing, max_steps=1)],
                RoundRobin(),
                Listed(map(Admission, served(rows))),
            )
        )
        for told in plain.cluster.run():
            if isinstance(told, CompletedBatch):
                plain.batches.append(told)
            elif isinstance(told, Aborted):
                plain.aborted.append(told)
        (batches, _, aborted), (expected, _, gone) = story(one, 0), story(plain, 0)
        assert batches == expected and aborted == gone
        if len(one.batches) > 5:
            reached()

    compare()
