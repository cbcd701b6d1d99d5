"""Routers: what each does with a few engines by hand, and what all of them keep, whatever comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import strategies as st

from foundation.errors import UserError
from orchestrator.cluster.affinity import SessionAffinity
from orchestrator.cluster.cluster import Cluster
from orchestrator.cluster.router import Router, RouterPlace, WatchingRouter, routers
from orchestrator.cluster.routers.vllm import VllmBalancer
from orchestrator.cluster.source import Listed
from orchestrator.engine.engine import Engine
from orchestrator.engine.records import CompletedBatch
from orchestrator.kv_memory.groups import FULL, LayerGroup
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import KVUsage
from orchestrator.settings.specification import RunSpec
from orchestrator.simulation import Simulation
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.serving import FormulaPricing, StageTimes, scheduler

MS = 1_000_000
SETTINGS: dict[str, dict[str, Any]] = {
    "weighted": {"router_weights": "3,1,0.5"},
    "prefix-hash": {"prefix_hash_tokens": 6},
    "prefix-aware": {"balance_abs_threshold": 3},
    "vllm": {"router_publish_interval": 0.005},
}
"""What routers are given in tests of three engines, where it is not the default."""


class Standing(Engine):
    """An engine that says what it is told to say."""

    def __init__(self, number: int, waiting: int = 0, running: int = 0, free: int = 100, total: int = 100) -> None:
        super().__init__(scheduler("orca", 4), StageTimes([10]), number=number)
        self.state = KVUsage(total, free, running, waiting)
        self.cached = 0

    def load(self, now: int) -> KVUsage:
        return self.state

    def reported(self, now: int) -> KVUsage:
        return self.state

    def cached_tokens(self, request: Request, now: int) -> int:
        return self.cached


def standing(*states: tuple[int, int]) -> list[Standing]:
    return [Standing(number, waiting, running) for number, (waiting, running) in enumerate(states)]


def new(name: str, engines: int = 3, seed: int = 0, **settings: Any) -> Router:
    return routers.get(name)(**settings).router(RouterPlace(engines, seed))


def request(number: int = 0, tokens: Sequence[int] | None = None, **values: Any) -> Request:
    length = 4 if tokens is None else len(tokens)
    return Request(number, values.pop("arrival", 0), length, 4, prompt_token_ids=tokens, **values)


def choices(router: Router, engines: Sequence[Engine], count: int) -> list[int]:
    return [router.route(request(number), 0, engines) for number in range(count)]


# -- each by hand


def test_round_robin_goes_on_after_the_engine_chosen_last_whoever_is_there() -> None:
    router, (first, second, third) = new("round-robin"), standing((0, 0), (9, 9), (0, 0))
    assert choices(router, [first, second, third], 5) == [0, 1, 2, 0, 1]
    assert choices(router, [first, third], 3) == [1, 0, 1]
    assert choices(router, [second], 2) == [0, 0]
    assert choices(router, [first, second, third], 2) == [2, 0]


def test_random_depends_on_seed_and_request_alone() -> None:
    engines = standing((0, 0), (5, 5), (0, 0))
    drawn = choices(new("random", seed=1), engines, 300)
    again = new("random", seed=1)
    assert [again.route(request(number), 77, engines) for number in reversed(range(300))] == drawn[::-1]
    assert drawn != choices(new("random", seed=2), engines, 300)
    assert all(80 < drawn.count(place) < 120 for place in range(3))
    assert set(choices(new("random"), engines[1:2], 9)) == {0}


def test_power_of_two_takes_the_less_loaded_of_two_different_ones() -> None:
    engines = standing((0, 1), (0, 2), (3, 0))
    chosen = Counter(choices(new("power-of-two"), engines, 600))
    assert set(chosen) == {0, 1}, "engine 2 loses every pair that it is in"
    assert 350 < chosen[0] < 450, "engine 0 wins two of three pairs"
    equal = Counter(choices(new("power-of-two"), standing((0, 0), (0, 0), (0, 0)), 600))
    assert all(150 < equal[place] < 250 for place in range(3))
    assert choices(new("power-of-two"), engines[:1], 3) == [0, 0, 0]


def test_least_outstanding_counts_waiting_and_running_and_takes_equals_in_turn() -> None:
    engines = standing((1, 3), (4, 0), (0, 3))
    assert choices(new("least-outstanding"), engines, 3) == [2, 2, 2]
    engines[2].state = KVUsage(100, 100, 4, 0)
    assert choices(new("least-outstanding"), engines, 4) == [0, 1, 2, 0]


def test_least_kv_goes_by_the_share_of_blocks_in_use() -> None:
    engines = [Standing(0, 0, 9, free=60), Standing(1, 0, 1, free=50), Standing(2, 9, 9, free=130, total=200)]
    assert choices(new("least-kv"), engines, 2) == [2, 2], "35 % beside 40 % and 50 %"
    engines[0].state = KVUsage(100, 65, 0, 0)
    assert choices(new("least-kv"), engines, 4) == [0, 2, 0, 2]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("5,1,1", [0, 0, 1, 0, 2, 0, 0] * 2),  # as the comment on nginx's smooth weighted round robin has it
        ("1,0,1", [0, 2] * 3),
        ("0.1, 0.2,0.1", [1, 0, 2, 1] * 5),
        ("1,1,1", [0, 1, 2] * 3),
    ],
)
def test_weighted_spreads_shares(weights: str, expected: list[int]) -> None:
    engines = standing((0, 0), (0, 0), (0, 0))
    assert choices(new("weighted", router_weights=weights), engines, len(expected)) == expected


def test_weights_stay_with_their_engines() -> None:
    router, engines = new("weighted", router_weights="1,0,3"), standing((0, 0), (0, 0), (0, 0))
    assert Counter(choices(router, [engines[0], engines[2]], 40)) == {0: 10, 1: 30}
    assert choices(router, engines[1:2], 2) == [0, 0], "whoever is there alone gets everything"


def test_vllm_scores_waiting_four_times_and_takes_the_first_of_equals() -> None:
    router, engines = new("vllm"), standing((1, 0), (0, 3), (0, 4))
    assert isinstance(router, WatchingRouter)
    router.look(100 * MS, engines)
    # 4 3 4; then 4 7 4, 8 7 4, 8 7 8, 8 11 8: a request that was sent counts as one that waits
    assert choices(router, engines, 5) == [1, 0, 2, 1, 0]


def test_vllm_knows_what_was_published_last_and_what_it_sent_since() -> None:
    router, engines = new("vllm"), standing((0, 0), (0, 0), (0, 9))
    assert isinstance(router, WatchingRouter)
    assert choices(router, engines, 4) == [0, 1, 2, 0], "nothing has been published"
    router.look(100 * MS, engines)
    assert choices(router, engines, 4) == [0, 1, 0, 1], "what was sent is forgotten, 9 run on engine 2"
    engines[2].state = KVUsage(100, 100, 9, 0)
    router.look(200 * MS, engines)
    assert choices(router, engines, 2) == [0, 1], "unchanged counts are not published: 8 8 9 before"
    assert choices(router, engines, 1) == [2], "12 12 9"
    router.look(5100 * MS, engines)
    assert choices(router, engines, 1) == [0], "but for every 5 s"


def test_when_vllm_looks() -> None:
    router = new("vllm")
    assert isinstance(router, WatchingRouter)
    assert router.looks(0, 99 * MS) is None
    assert router.looks(0, 100 * MS) == 100 * MS
    assert router.looks(100 * MS, 199 * MS) is None
    assert router.looks(30 * MS, 7_777 * MS) == 7_700 * MS
    assert [router.looks(now * MS, None) for now in (0, 99, 100)] == [100 * MS, 100 * MS, 200 * MS]
    assert isinstance(SessionAffinity(router), WatchingRouter)


def test_vllm_sees_what_engines_have_reported_at_the_publication_and_no_later() -> None:
    """Steps take 30 ms. What is published at 100 ms is what was reported at 90 ms, whatever has arrived since."""
    seen: list[tuple[int, list[tuple[int, int]]]] = []

    class Watched(VllmBalancer):
        def look(self, now: int, engines: Sequence[Engine]) -> None:
            reports = [engine.reported(now) for engine in engines]
            seen.append((now, [(one.waiting, one.running) for one in reports]))
            super().look(now, engines)

    for most in (1, 512):
        seen.clear()
        engines = [
            Engine(scheduler("vllm", 40, async_scheduling=False), StageTimes([30 * MS]), number=n, max_steps=most)
            for n in range(2)
        ]
        arriving = [Request(n, at * MS, 4, 6) for n, at in enumerate((0, 1, 95, 130, 130, 250))]
        told = list(Cluster(engines, Watched(100 * MS), Listed(map(Admission, arriving))).run())
        where = {
            one.id: done.engine for done in told if isinstance(done, CompletedBatch) for one in done.batch.requests
        }
        # 0 and 1 go to 0 and 1, 2 to 0 (both have one sent); at 100 ms each reports one running: 2 has not been seen
        # and is forgotten, so 3 goes to 0 as well; at 200 ms 0 reports two (3 more seen at 150), 1 one.
        assert seen[0] == (100 * MS, [(0, 1), (0, 1)])
        assert [where[n] for n in range(5)] == [0, 1, 0, 0, 1]
        assert seen[1] == (200 * MS, [(0, 2), (0, 1)])
        assert len(seen) == 2 and where[5] == 1


@pytest.mark.parametrize("reacts", [False, True])
@pytest.mark.parametrize("abort_ms", [99, 100, 101])
def test_a_client_that_goes_at_the_moment_of_a_publication_hides_it_from_nobody(abort_ms: int, reacts: bool) -> None:
    """Clients go before a publication of the same moment: that takes place all the same, once."""
    looked: list[int] = []

    class Watched(VllmBalancer):
        def look(self, now: int, engines: Sequence[Engine]) -> None:
            looked.append(now)
            super().look(now, engines)

    arriving = [Request(0, 0, 4, 9, abort_ns=abort_ms * MS), Request(1, 1 * MS, 4, 9), Request(2, 150 * MS, 4, 9)]
    source = Listed(map(Admission, arriving))
    source.reacts = reacts
    engines = [
        Engine(scheduler("vllm", 40, async_scheduling=False), StageTimes([30 * MS]), number=number)
        for number in range(2)
    ]
    list(Cluster(engines, Watched(100 * MS), source).run())
    assert looked.count(100 * MS) == 1
    assert looked == sorted(set(looked)) and (len(looked) > 1) is reacts


def test_prefix_aware_prefers_what_is_cached_while_loads_are_alike() -> None:
    engines, tokens = standing((0, 5), (0, 1), (0, 9)), list(range(100))

    def chosen(*cached: int, **settings: Any) -> int:
        for engine, found in zip(engines, cached, strict=True):
            engine.cached = found
        return new("prefix-aware", **settings).route(request(0, tokens), 0, engines)

    assert chosen(0, 0, 31) == 2, "more than 0.3 of the prompt"
    assert chosen(0, 0, 30) == 1, "not more: the fewest requests"
    assert chosen(64, 0, 64) == 0, "of equal ones that with fewer requests"
    assert chosen(0, 0, 99, balance_abs_threshold=7) == 1, "9 is 8 more than 1, and more than 1.5 times"
    assert chosen(0, 0, 99, balance_abs_threshold=8) == 2
    assert chosen(0, 0, 99, balance_abs_threshold=7, balance_rel_threshold=9) == 2
    assert chosen(0, 0, 1, cache_threshold=0) == 2
    assert new("prefix-aware").route(request(0), 0, engines) == 1, "whose tokens nobody knows"


def test_prefix_hash_keeps_beginnings_together_and_moves_no_others() -> None:
    router, engines = new("prefix-hash", 4, prefix_hash_tokens=8), standing(*[(0, 0)] * 4)
    prompts = [[group] * 8 + [number] for group in range(200) for number in range(2)]
    home = [router.route(request(0, prompt), 0, engines) for prompt in prompts]
    assert home[::2] == home[1::2], "the ninth token does not count"
    assert all(30 < home[::2].count(place) < 70 for place in range(4))
    fewer = [router.route(request(0, prompt), 0, engines[:3]) for prompt in prompts]
    assert all(now == was for was, now in zip(home, fewer, strict=True) if was != 3), "only those of engine 3 move"
    adapted = [router.route(request(0, prompt, adapter="one"), 0, engines) for prompt in prompts]
    assert adapted != home


def test_prefix_hash_passes_over_who_has_too_much() -> None:
    router, engines = new("prefix-hash"), standing((0, 4), (0, 4), (0, 4))
    tokens = [7] * 9
    home = router.route(request(0, tokens), 0, engines)
    for requests_there, stays in ((5, True), (6, True), (7, False)):  # below 5.83, 6.25; 6.67
        engines[home].state = KVUsage(100, 100, requests_there, 0)
        assert (router.route(request(0, tokens), 0, engines) == home) == stays


def test_prompts_of_unknown_tokens_go_where_the_fewest_are() -> None:
    assert choices(new("prefix-hash"), standing((0, 2), (0, 1), (0, 3)), 2) == [1, 1]


def test_sessions_stay_where_they_began_while_that_engine_takes_requests() -> None:
    router, engines = SessionAffinity(new("round-robin")), standing((0, 0), (0, 0), (0, 0))

    def chosen(session: int | None, there: Sequence[Engine]) -> int:
        return there[router.route(request(session=session), 0, there)].number

    assert [chosen(session, engines) for session in (7, None, 8, 7, 8, None)] == [0, 1, 2, 0, 2, 0]
    assert chosen(8, engines[1:]) == 2, "by its number, not by its place"
    assert chosen(7, engines[1:]) == 1, "its engine is gone"
    assert chosen(7, engines) == 1, "and it stays where it is now"


# -- what all keep


ROW = st.tuples(st.integers(0, 9), st.integers(1, 24), st.integers(1, 30), st.integers(0, 60_000), st.integers(0, 3))
"""Group (whose prompts begin alike), prompt, answer, arrival, session (0: none)."""


def arriving(rows: Sequence[tuple[int, int, int, int, int]]) -> list[Request]:
    """Return requests whose prompts and answers are the first tokens of their group's text, so that they share both."""
    made = []
    for place, (group, prompt, output, arrival, session) in enumerate(sorted(rows, key=lambda row: row[3])):
        text = [1000 * (group % 3) + token for token in range(prompt + output)]
        ids = (None, None) if group == 9 else (text[:prompt], text[prompt:] if group % 2 else None)
        made.append(Request(place, arrival, prompt, output, "", 0, session or None, *ids))
    return made


class Noting:
    """Notes where requests went, what each engine holds of them, and what it has reported."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.went: list[tuple[int, int]] = []
        self.cached: list[list[int]] = []
        self.reported: list[list[tuple[int, int]]] = []

    def route(self, request: Request, now: int, engines: Sequence[Engine]) -> int:
        self.cached.append([engine.cached_tokens(request, now) for engine in engines])
        reports = [engine.reported(now) for engine in engines]
        self.reported.append([(report.waiting, report.running) for report in reports])
        self.went.append((request.id, self._router.route(request, now, engines)))
        return self.went[-1][1]


class NotingLooks(Noting):
    """The same of a router that looks at the engines."""

    def looks(self, now: int, arrival_ns: int) -> int | None:
        assert isinstance(self._router, WatchingRouter)
        return self._router.looks(now, arrival_ns)

    def look(self, now: int, engines: Sequence[Engine]) -> None:
        assert isinstance(self._router, WatchingRouter)
        self._router.look(now, engines)


def serve(
    router: Router,
    requests: Sequence[Request],
    most: int,
    *,
    policy: str = "vllm",
    blocks: int = 40,
    groups: tuple[LayerGroup, ...] = (FULL,),
    **options: Any,
) -> tuple[Noting, list[CompletedBatch]]:
    stages = options.get("pipeline", 1)
    engines = [
        Engine(
            scheduler(policy, blocks, groups=groups, **options), FormulaPricing(stages), number=number, max_steps=most
        )
        for number in range(3)
    ]
    noting = (NotingLooks if isinstance(router, WatchingRouter) else Noting)(router)
    told = list(Cluster(engines, noting, Listed(map(Admission, requests))).run())
    assert all(engine.idle() for engine in engines)
    batches = [one for one in told if isinstance(one, CompletedBatch)]
    assert len(batches) == len(told)
    return noting, batches


def finished(batches: Sequence[CompletedBatch]) -> list[tuple[int, int, int]]:
    return sorted((one.id, done.engine, done.end_ns) for done in batches for one in done.outcome.finished)


@pytest.mark.parametrize("affinity", [False, True])
@pytest.mark.parametrize("name", sorted(routers))
def test_every_router_serves_everybody_once_and_the_same_however_far_engines_work_ahead(
    name: str, affinity: bool
) -> None:
    @reaches(0.5, examples=25, rows=st.lists(ROW, min_size=4, max_size=16), seed=st.integers(0, 5))
    def compare(reached: Reached, rows: list[tuple[int, int, int, int, int]], seed: int) -> None:
        def run(most: int) -> tuple[Noting, list[CompletedBatch]]:
            router = new(name, seed=seed, **SETTINGS.get(name, {}))
            return serve(SessionAffinity(router) if affinity else router, arriving(rows), most)

        single, steps = run(1)
        ahead, batches = run(512)
        assert ahead.went == single.went and ahead.cached == single.cached
        assert finished(batches) == finished(steps)
        again, _ = run(512)
        assert again.went == ahead.went
        assert [number for number, _ in ahead.went] == list(range(len(rows)))
        assert [(number, engine) for number, engine, _ in finished(batches)] == ahead.went
        tokens = Counter[int]()
        for done in batches:
            for one, got in zip(done.batch.requests, done.batch.tokens().tolist(), strict=True):
                tokens[one.id] += got * done.batch.steps
        for one in arriving(rows):
            assert tokens[one.id] >= one.output_tokens
        if affinity:
            homes: dict[int, set[int]] = {}
            for one, (_, engine) in zip(arriving(rows), ahead.went, strict=True):
                if one.session is not None:
                    homes.setdefault(one.session, set()).add(engine)
            assert all(len(home) == 1 for home in homes.values())
        if len(batches) < len(steps):
            reached()

    compare()


KINDS: list[dict[str, Any]] = [
    {},
    {"async_scheduling": False},
    {"vllm_version": "0.33"},
    {"pipeline": 2},
    {"pipeline": 2, "async_scheduling": False},
    {"groups": (FULL, LayerGroup(6))},
    {"max_num_seqs": 2, "max_num_batched_tokens": 16},
    {"policy": "sglang"},
    {"policy": "sglang", "page_size": 4, "disable_overlap_schedule": True},
    {"policy": "sglang", "pipeline": 2, "schedule_policy": "lpm"},
]


@pytest.mark.parametrize("options", KINDS)
def test_what_engines_hold_of_a_prompt_and_report_is_the_same_from_inside_a_stretch(options: dict[str, Any]) -> None:
    """Memory is short, so cached blocks are lost in stretches, and answers of known tokens are found as they grow."""

    @reaches(0.2, examples=60, rows=st.lists(ROW, min_size=4, max_size=16), blocks=st.integers(20, 34))
    def compare(reached: Reached, rows: list[tuple[int, int, int, int, int]], blocks: int) -> None:
        single, steps = serve(new("round-robin"), arriving(rows), 1, blocks=blocks, **options)
        ahead, batches = serve(new("round-robin"), arriving(rows), 512, blocks=blocks, **options)
        assert ahead.cached == single.cached
        assert ahead.reported == single.reported
        if any(map(any, ahead.cached)) and len(batches) < len(steps):
            reached()

    compare()


@pytest.mark.parametrize("most", [1, 512])
def test_an_engine_has_reported_what_was_so_when_a_batch_ended_last(most: int) -> None:
    """Steps of 10, one seat: who is seen by the decision at 10 is told of at 20, and so on."""
    policy = scheduler("vllm", 40, async_scheduling=False, max_num_seqs=1)
    noting = Noting(new("round-robin"))
    come = [Request(number, at, 4, 20) for number, at in enumerate((0, 1, 15, 35, 36, 45, 55))]
    engine = Engine(policy, StageTimes([10]), max_steps=most)
    list(Cluster([engine], noting, Listed(map(Admission, come))).run())
    assert noting.reported == [[(0, 0)], [(0, 0)], [(0, 1)], [(2, 1)], [(2, 1)], [(2, 1)], [(4, 1)]]


@pytest.mark.parametrize("version", ["0.19", "0.33"])
def test_what_an_engine_is_said_to_hold_is_what_an_admission_finds(version: str) -> None:
    """Requests come when the engine has nothing else to do, so each is admitted at the moment at which it is routed."""
    rows = [
        (group, prompt, 9, 100_000 * place, 0) for place, (group, prompt) in enumerate([(1, 9), (1, 24), (0, 13)] * 4)
    ]
    noting, batches = serve(new("random"), arriving(rows), 512, blocks=12, vllm_version=version)
    found = {one.id: hit for done in batches for one, hit in done.batch.admitted}
    went = dict(noting.went)
    assert [noting.cached[number][went[number]] for number in range(len(rows))] == [found[n] for n in range(len(rows))]
    assert len(set(found.values())) > 2


def whole_run(**values: Any) -> list[tuple[int, ...]]:
    columns = Simulation(RunSpec.of(model_name="gpt2", req_num=16, instances=3, **values)).run().columns
    return list(zip(*(column.tolist() for column in columns.values()), strict=True))


@pytest.mark.parametrize("name", sorted(routers))
def test_whole_runs_with_every_router_depend_on_no_stretch(name: str) -> None:
    given = SETTINGS.get(name, {}) | {"router": name, "scheduling": "vllm"}
    rows = whole_run(**given)
    assert len(rows) == 15, "one prompt is too long for GPT-2"
    assert rows == whole_run(**given, macro_steps=1) == whole_run(**given, session_affinity=True)


def test_weights_that_are_not_one_for_each_engine_are_refused_before_the_run() -> None:
    simulation = Simulation(RunSpec.of(model_name="gpt2", instances=3, router="weighted", router_weights="1,2"))
    with pytest.raises(UserError, match="2 weights for 3 engines; give one for each"):
        simulation.run()


@pytest.mark.parametrize("page_size", [1, 4])
def test_what_sglang_loses_in_a_stretch_is_known_from_inside(page_size: int) -> None:
    """Of 40 slots 0 leaves 12 behind; 1 takes all others as it decodes, then those. Engine 0 is asked all along."""

    class Apart(Noting):
        def route(self, request: Request, now: int, engines: Sequence[Engine]) -> int:
            super().route(request, now, engines)
            return 0 if request.id < 2 else 1

    first = Request(0, 0, 12, 1, prompt_token_ids=list(range(12)))
    long = Request(1, 50_000, 4, 34, prompt_token_ids=list(range(100, 104)))
    probes = [Request(n, 52_000 + 1000 * n, 13, 1, prompt_token_ids=list(range(13))) for n in range(2, 40)]
    seen = []
    for most in (1, 512):
        engines = [
            Engine(
                scheduler("sglang", 40 // page_size, page_size, schedule_conservativeness=0.01),
                FormulaPricing(),
                number=number,
                max_steps=most,
            )
            for number in range(2)
        ]
        noting = Apart(new("round-robin"))
        told = list(Cluster(engines, noting, Listed(map(Admission, [first, long, *probes]))).run())
        seen.append([cached for cached, _ in noting.cached[2:]])
        runs = [one.batch.steps for one in told if isinstance(one, CompletedBatch) and one.engine == 0]
        assert (max(runs) > 20) is (most > 1)
    assert seen[0] == seen[1]
    assert seen[0][0] == 12 and seen[0][-1] == 0
