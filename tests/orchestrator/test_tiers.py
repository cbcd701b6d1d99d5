"""KV tiers beyond device memory: tables worked out by hand, and what always holds.

Blocks hold 4 tokens and 1,000 bytes. In the tables every pass lasts 100 ns, and a byte takes 1 ns on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st

from foundation.errors import SimulationError
from orchestrator import RunSpec, Simulation
from orchestrator.cluster.clock import Told
from orchestrator.engine.batch import Batch
from orchestrator.engine.records import Aborted, CompletedBatch
from orchestrator.pricing.interface import Cost
from orchestrator.requests.request import Request
from orchestrator.result import RunResult
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig
from orchestrator.settings.tiers import TierSettings
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.serving import BLOCK_BYTES, StageTimes
from tests.orchestrator.tiered import Tiered, tier

Step = tuple[int, dict[int, int], list[int], int]


def config(blocks: int = 64, **change: Any) -> VllmSchedulerConfig:
    settings = {"block_size": 4, "async_scheduling": False, **change}
    return VllmSchedulerConfig(num_gpu_blocks=blocks + 1, max_model_len=64, **settings)


def timed(*configs: VllmSchedulerConfig, **change: Any) -> Tiered:
    """Return engines as the tables assume them."""
    return Tiered(**{"policies": configs, "tiers": tier(), "pricing": StageTimes([100]), "max_steps": 1, **change})


def asks(number: int, arrival: int, first: int, tokens: int, output: int = 1, **change: Any) -> Request:
    """Return a request whose prompt is the numbers from `first` on."""
    return Request(number, arrival, tokens, output, prompt_token_ids=[*range(first, first + tokens)], **change)


def steps(told: Sequence[Told], engine: int = 0) -> list[Step]:
    """Return (begin, tokens computed by request, fetches begun, free blocks then) of each pass that did either."""
    return [
        (
            done.start_ns,
            dict(zip(done.batch.ids.tolist(), done.batch.new_tokens.tolist(), strict=True)),
            [fetch.request_id for fetch in done.batch.fetches],
            done.usages.last.free_blocks,
        )
        for done in told
        if isinstance(done, CompletedBatch) and done.engine == engine and (done.batch.requests or done.batch.fetches)
    ]


# -- prefixes found in a tier


def test_a_prompt_that_left_the_device_is_fetched_while_its_request_waits() -> None:
    """The second prompt takes all 4 blocks; the third is like the first, whose 3 blocks are in the tier at 3,100."""
    cluster = timed(config(4))
    told = cluster.run([asks(0, 0, 0, 12), asks(1, 4000, 100, 16), asks(2, 10_000, 0, 13)])
    assert steps(told) == [
        (0, {0: 12}, [], 1),
        (4000, {1: 16}, [], 0),
        (10_000, {}, [2], 1),
        (13_000, {2: 1}, [], 0),
    ]
    assert cluster.rows()[2]["first_token"] == 13_100
    figures = cluster.made.figures()
    assert (figures.written_bytes, figures.loaded_bytes, figures.hit_tokens) == (7000, 3000, 12)
    assert (figures.evicted_blocks, figures.peak_bytes) == (0, 7000)


def test_what_is_on_the_device_is_not_fetched() -> None:
    """The first 2 blocks are still there, the third was taken by the request between."""
    cluster = timed(config(4))
    told = cluster.run([asks(0, 0, 0, 12), asks(1, 4000, 100, 8), asks(2, 9000, 0, 13)])
    assert steps(told)[2] == (9000, {}, [2], 1)
    assert cluster.made.figures().loaded_bytes == 1000


def test_blocks_of_who_is_done_stay_until_they_are_written() -> None:
    """3 blocks are written from 100 to 3,100; the second request needs 2 and finds one free before."""
    told = timed(config(4)).run([asks(0, 0, 0, 12), asks(1, 200, 100, 8)])
    assert steps(told) == [(0, {0: 12}, [], 1), (3100, {1: 8}, [], 2)]


def test_who_loses_its_place_finds_what_it_had_computed() -> None:
    """At 100 both want a third block, and one is free. The other's 2 blocks are in the tier at 104.

    There is room for all of its 9 tokens when the first is done: it has the blocks at 402, and computes one token.
    """
    requests = [Request(0, 0, 8, 4), Request(1, 0, 8, 2)]
    cluster = timed(config(5, enable_prefix_caching=False), tiers=tier(1000))
    told = cluster.run(requests)
    assert steps(told) == [
        (0, {0: 8, 1: 8}, [], 1),
        (100, {0: 1}, [], 2),
        (200, {0: 1}, [], 2),
        (300, {0: 1}, [], 2),
        (400, {}, [1], 3),
        (402, {1: 1}, [], 2),
    ]


@pytest.mark.parametrize(("group", "found"), [("node", 12), (None, 0)])
def test_engines_of_a_group_find_what_others_computed(group: str | None, found: int) -> None:
    cluster = timed(config(), config(), tiers=tier(group=group))
    told = cluster.run([asks(0, 0, 0, 12), asks(1, 10_000, 0, 13)])
    assert [new for _, new, _, _ in steps(told, 1)] == ([{}, {1: 1}] if found else [{1: 13}])
    assert cluster.made.figures().hit_tokens == found
    assert cluster.made.figures().tiers == (1 if group else 2)


def test_what_is_still_being_written_is_not_found() -> None:
    """It would be there at 3,100: the prompt is computed again, and nothing is written twice."""
    cluster = timed(config(), config(), tiers=tier(group="node"))
    told = cluster.run([asks(0, 0, 0, 12), asks(1, 3000, 0, 13)])
    assert steps(told, 1) == [(3000, {1: 13}, [], 60)]
    assert cluster.made.figures().written_bytes == 3000


def test_the_ways_to_and_from_a_tier_are_shared_in_time() -> None:
    """Both engines ask for 3 blocks at 20,000: one has them at 23,050, the other when these have passed, at 26,050."""
    cluster = timed(*[config(4)] * 4, tiers=tier(latency_ns=50, group="node"))
    told = cluster.run([asks(0, 0, 0, 12), asks(1, 0, 0, 12), asks(2, 20_000, 0, 13), asks(3, 20_000, 0, 13)])
    assert [steps(told, engine)[-1][0] for engine in (2, 3)] == [23_050, 26_050]
    assert cluster.made.figures().written_bytes == 3000, "two engines computed it at once, one writes it"


def test_a_tier_without_room_drops_what_was_used_least_recently() -> None:
    """It holds 3 blocks: those of the second prompt take the place of the first's."""
    cluster = timed(config(3), tiers=tier(blocks=3))
    cluster.run([asks(0, 0, 0, 12), asks(1, 4000, 100, 12), asks(2, 9000, 0, 12)])
    figures = cluster.made.figures()
    assert (figures.hit_tokens, figures.evicted_blocks, figures.peak_bytes) == (0, 6, 3000)


@pytest.mark.parametrize("at", [50, 100, 150, 3000, 3100, 10_000, 10_050, 12_999, 13_000, 13_050])
def test_given_up_at_any_stage_leaves_nothing_behind(at: int) -> None:
    cluster = timed(config(4))
    gone = asks(0, 0, 0, 12, 2, abort_ns=at) if at < 10_000 else asks(0, 0, 0, 12)
    back = asks(2, 10_000, 0, 13, 2, abort_ns=at if at >= 10_000 else None)
    told = cluster.run([gone, asks(1, 4000, 100, 16), back])
    assert len([one for one in told if isinstance(one, Aborted)]) == (0 if 200 <= at < 10_000 else 1)
    assert_nothing_left(cluster)


# -- whole requests that are evicted


class Unmoving(StageTimes):
    """Refuses batches that would move something themselves."""

    def price(self, wave: Sequence[Batch]) -> Cost:
        assert not any(batch.kv_loads or batch.kv_evictions for batch in wave)
        return super().price(wave)


def test_a_batch_waits_for_what_it_evicts_to_leave_and_for_what_it_loads_to_come() -> None:
    """4 blocks. At 100 the first wants a third: the 2 of the other leave until 2,100. It is done at 2,600, the others
    are back at 4,600, and 50 ns later.
    """
    cluster = Tiered([("orca", 4, {})], tier(latency_ns=50), max_steps=1, pricing=Unmoving([100]))
    told = cluster.run([Request(0, 0, 8, 6), Request(1, 0, 8, 2)])
    begins = [done.start_ns for done in told if isinstance(done, CompletedBatch)]
    assert begins == [0, 2100, 2200, 2300, 2400, 2500, 4650]
    totals, figures = cluster.recorder.totals, cluster.made.figures()
    assert (
        (totals.evicted_bytes, totals.reloaded_bytes) == (2000, 2000) == (figures.written_bytes, figures.loaded_bytes)
    )
    assert figures.peak_bytes == 2000 and not len(cluster.held()[0])


def test_two_engines_evict_one_after_the_other() -> None:
    cluster = Tiered([("orca", 4, {})] * 2, tier(group="node"), max_steps=1, pricing=Unmoving([100]))
    told = cluster.run([Request(number, 0, 8, 6 if number < 2 else 2) for number in range(4)])
    second = [
        next(
            done.start_ns
            for done in told
            if isinstance(done, CompletedBatch) and done.engine == engine and done.start_ns
        )
        for engine in (0, 1)
    ]
    assert second == [2100, 4100]


def test_a_tier_that_is_too_small_for_what_is_evicted_ends_the_run() -> None:
    cluster = Tiered([("orca", 4, {})], tier(blocks=1), max_steps=1, pricing=Unmoving([100]))
    with pytest.raises(SimulationError, match="larger --kv_tier_size"):
        cluster.run([Request(0, 0, 8, 6), Request(1, 0, 8, 2)])


# -- whole runs


def simulated(**values: Any) -> RunResult:
    return Simulation(RunSpec.of(model_name="openai-community/gpt2", req_num=30, skip_unfit=True, **values)).run()


def test_a_run_of_a_policy_that_swaps_moves_what_it_evicts_once() -> None:
    """The graphs move nothing; what was evicted is what went to the tier, and the engine waited for it."""
    small = {"npu_mem": 0.295}
    inside, tiered = simulated(**small), simulated(**small, kv_tier="ssd")
    assert inside.summary.kv_tiers is None and inside.time.by_class["moved KV blocks"] > 0
    assert tiered.time.by_class["moved KV blocks"] == 0 < tiered.summary.evictions
    figures = tiered.summary.kv_tiers
    assert figures is not None
    assert (figures.written_bytes, figures.loaded_bytes) == (
        tiered.summary.evicted_bytes,
        tiered.summary.reloaded_bytes,
    )
    assert tiered.time.waiting_ns >= figures.written_bytes / 5.6
    assert "kv_tiers" in tiered.summary.as_json() and "kv_tiers" not in inside.summary.as_json()


def test_a_run_of_vllm_engines_that_share_a_tier() -> None:
    """Requests without token ids find their own blocks when they lost their place; the decided settings repeat it."""
    values = {"scheduling": "vllm", "num_gpu_blocks_override": 80, "instances": 2}
    tiered = simulated(**values, kv_tier="host", kv_tier_group="node")
    figures, settings = tiered.summary.kv_tiers, tiered.spec.engine.tier
    assert figures is not None and figures.tiers == 1
    assert tiered.summary.preemptions and figures.hit_tokens
    assert (settings.kv_tier_bw, settings.kv_tier_latency) == (55.0, 1000)
    assert Simulation(tiered.spec).run().summary == tiered.summary


def test_figures_of_kinds_count_the_links_of_all_npus() -> None:
    host, drive = (TierSettings(kind).decided(8) for kind in ("host", "ssd"))
    assert (host.bytes_per_s, drive.bytes_per_s) == (440 * 10**9, 5_600_000_000)
    assert TierSettings("host", 7.0).decided(8).kv_tier_bw == 7.0
    assert TierSettings().decided(8) == TierSettings()


# -- what always holds


def assert_nothing_left(cluster: Tiered) -> None:
    for engine, scheduler in zip(cluster.engines, cluster.schedulers, strict=True):
        usage = engine.usage()
        assert engine.idle()
        assert usage.free_blocks == usage.total_blocks
        if isinstance(scheduler, VllmScheduler) and scheduler.remote is not None:
            remote = scheduler.remote
            assert not (remote.fetching or remote.sending or remote.heard)
            assert not remote.connector._parts  # type: ignore[attr-defined]
    for held in cluster.held():
        assert not any(held._readers.values()), "somebody reads, or something is coming"
        assert held.held_bytes == len(held) * BLOCK_BYTES
        assert held.capacity is None or held.peak_bytes <= held.capacity


def locked_up(cluster: Tiered) -> bool:
    """Whether requests that fetched a part of their prompts hold all blocks, and none can go on: as in vLLM 0.19."""
    stuck = [engine for engine in cluster.engines if not engine.idle()]
    assert all(engine.usage().running == 0 < engine.usage().waiting for engine in stuck)
    return bool(stuck)


def assert_served(cluster: Tiered, requests: Sequence[Request], told: Sequence[Told]) -> None:
    """Every request was finished with its whole answer, or given up, once; times are in order."""
    rows = cluster.rows()
    gone = Counter(one.request.id for one in told if isinstance(one, Aborted))
    assert set(gone.values()) <= {1} and not rows.keys() & gone.keys()
    assert rows.keys() | gone.keys() == {request.id for request in requests}
    for row in rows.values():
        assert row["output"] == requests[row["id"]].output_tokens
        assert row["arrival"] <= row["queued"] <= row["scheduled"] < row["first_token"] <= row["end"]


@st.composite
def traffic(draw: st.DrawFn, length: int, gaps: Sequence[int]) -> list[Request]:
    """Draw requests, many of whose prompts begin alike."""
    requests, moment = [], 0
    for number in range(draw(st.integers(3, 12))):
        moment += draw(st.sampled_from(gaps))
        prompt = draw(st.integers(1, length - 2))
        output = draw(st.integers(1, length - 1 - prompt))
        request = Request(number, moment, prompt, output, name=str(number))
        if draw(st.integers(0, 4)):
            same = min(prompt, draw(st.sampled_from([20, length])))
            request.prompt_token_ids = [1] * same + [number + 2] * (prompt - same)
        if draw(st.integers(0, 4)) == 0:
            request.abort_ns = moment + draw(st.integers(0, 20_000))
        requests.append(request)
    return requests


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Tiered, list[Request]]:
    """Draw engines of vLLM's policy and requests, each of which fits into every engine alone."""
    block, length = draw(st.sampled_from([1, 4])), draw(st.sampled_from([24, 60]))
    chunked, seats = draw(st.booleans()), draw(st.integers(1, 6))
    configs = [
        VllmSchedulerConfig(
            num_gpu_blocks=1 + -(-length // block) + draw(st.integers(0, length // block)),
            max_model_len=length,
            max_num_seqs=seats,
            max_num_batched_tokens=max(seats, draw(st.sampled_from([8, 64])), 0 if chunked else length),
            block_size=block,
            enable_prefix_caching=draw(st.booleans()),
            enable_chunked_prefill=chunked,
            async_scheduling=draw(st.booleans()),
            scheduler_reserve_full_isl=draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    blocks = draw(st.sampled_from([None, None, 2, 12, 50]))
    group = draw(st.sampled_from([None, "node"]))
    tiers = tier(draw(st.sampled_from([0.3, 1, 5, 1000])), draw(st.sampled_from([0, 700])), blocks, group)
    return Tiered(configs, tiers), draw(traffic(length, [0, 3000, 20_000, 50_000]))


def fresh(cluster: Tiered, **change: Any) -> Tiered:
    """Return the same cluster before it has run."""
    return Tiered(cluster.policies, **{"tiers": cluster.tiers, **change})


@reaches(0.4, examples=150, drawn=clusters())
def test_nothing_is_lost_and_nothing_stays_pinned(reached: Reached, drawn: tuple[Tiered, list[Request]]) -> None:
    cluster, requests = drawn
    told = cluster.run(requests)
    if locked_up(cluster):
        return
    assert_served(cluster, requests, told)
    assert_nothing_left(cluster)
    figures = cluster.made.figures()
    stored = sum(len(held) for held in cluster.held())
    assert figures.written_bytes == (stored + figures.evicted_blocks) * BLOCK_BYTES
    if figures.hit_tokens:
        reached()


@reaches(0.4, examples=100, drawn=clusters())
def test_stretches_change_nothing(reached: Reached, drawn: tuple[Tiered, list[Request]]) -> None:
    cluster, requests = drawn
    many, single = fresh(cluster), fresh(cluster, max_steps=1)
    many.run(requests)
    single.run(requests)
    assert many.rows() == single.rows()
    assert many.made.figures() == single.made.figures()
    assert many.recorder.itl.distribution() == single.recorder.itl.distribution()
    if many.made.figures().hit_tokens:
        reached()


@reaches(0.9, examples=60, drawn=clusters())
def test_a_tier_without_room_changes_nothing(reached: Reached, drawn: tuple[Tiered, list[Request]]) -> None:
    cluster, requests = drawn
    without, empty = fresh(cluster, tiers=None), fresh(cluster, tiers=tier(blocks=0))
    without.run(requests)
    empty.run(requests)
    assert empty.rows() == without.rows()
    assert empty.recorder.totals == without.recorder.totals
    assert empty.made.figures().written_bytes == 0
    reached()


@reaches(0.2, examples=80, drawn=clusters())
def test_the_same_tokens_come_out_with_a_tier_and_without(
    reached: Reached, drawn: tuple[Tiered, list[Request]]
) -> None:
    """What is found in the tier is computed here less: never more prompt tokens than without preemptions."""
    cluster, requests = drawn
    requests = [replace(request, abort_ns=None) for request in requests]
    cluster.run(requests)
    if locked_up(cluster):
        return
    totals = cluster.recorder.totals
    assert totals.generated_tokens == sum(request.output_tokens for request in requests)
    if not totals.preemptions:
        asked = sum(request.prompt_tokens for request in requests)
        assert totals.prompt_tokens <= asked
        if cluster.made.figures().hit_tokens:
            reached()


SWAPPING = [
    ("orca", {}),
    ("none", {"max_batch": 3}),
    ("continuous", {}),
    ("chunked-mixed-continuous", {"prefill_chunk": 8}),
    ("vllm-v0", {"preemption_mode": "swap", "max_model_len": 64}),
]


@st.composite
def swapping(draw: st.DrawFn) -> tuple[Tiered, list[Request]]:
    """Draw engines of policies that swap, so small that they do."""
    policies = []
    for _ in range(draw(st.integers(1, 2))):
        name, options = draw(st.sampled_from(SWAPPING))
        policies.append((name, draw(st.integers(17, 24)), dict(options)))
    group = draw(st.sampled_from([None, "node"]))
    tiers = tier(draw(st.sampled_from([0.3, 5, 1000])), draw(st.sampled_from([0, 700])), None, group)
    return Tiered(policies, tiers), draw(traffic(60, [0, 100, 3000]))


def again(cluster: Tiered, **change: Any) -> Tiered:
    policies = [(name, blocks, dict(options)) for name, blocks, options in cluster.policies]  # type: ignore[misc]
    return Tiered(policies, cluster.tiers, **change)


@reaches(0.4, examples=100, drawn=swapping())
def test_what_is_evicted_comes_back_and_leaves_no_trace(reached: Reached, drawn: tuple[Tiered, list[Request]]) -> None:
    """Stretches change nothing either. Requests that none gives up are in the tier for as long as they are away."""
    cluster, requests = drawn
    many, single = again(cluster), again(cluster, max_steps=1)
    told = many.run(requests)
    single.run(requests)
    assert_served(many, requests, told)
    assert_nothing_left(many)
    assert not any(len(held) for held in many.held())
    totals, figures = many.recorder.totals, many.made.figures()
    assert (totals.evicted_bytes, totals.reloaded_bytes) == (figures.written_bytes, figures.loaded_bytes)
    assert (many.rows(), figures) == (single.rows(), single.made.figures())
    assert many.recorder.itl.distribution() == single.recorder.itl.distribution()
    if figures.loaded_bytes:
        reached()
