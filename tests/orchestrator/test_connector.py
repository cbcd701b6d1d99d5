"""KV cache from elsewhere in the vLLM scheduler: step tables worked out by hand from vLLM 0.19's rules.

Blocks hold 4 tokens and every step lasts 100 ns, so that 12 prompt tokens are 3 blocks. `tests/vllm_scheduler` compares
with what vLLM's own classes did.
"""

import pytest
from hypothesis import strategies as st

from foundation.errors import InternalError, UserError
from orchestrator.engine.records import Aborted, CompletedBatch
from orchestrator.kv_memory.groups import LayerGroup
from orchestrator.requests.request import Request
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.serving import StageTimes
from tests.vllm_scheduler.elsewhere import Elsewhere, Remote, serve
from tests.vllm_scheduler.test_vllm_steps import rows
from tests.vllm_scheduler.vllm_workloads import Workload, drive, workloads

STEP = 100
Step = tuple[int, dict[int, int], list[int], int]


def config(blocks: int, **change: object) -> VllmSchedulerConfig:
    settings = {"block_size": 4, "async_scheduling": False, "enable_prefix_caching": False, **change}
    return VllmSchedulerConfig(num_gpu_blocks=blocks + 1, max_model_len=64, **settings)  # type: ignore[arg-type]


def steps(elsewhere: Elsewhere, settings: VllmSchedulerConfig, requests: list[Request]) -> list[Step]:
    """Return (decided at, tokens computed by request, fetches begun, free blocks then) of each pass that did either."""
    told = serve(settings, elsewhere, requests, StageTimes([STEP]), max_steps=1)
    table = []
    for done in told:
        if isinstance(done, CompletedBatch) and (done.batch.requests or done.batch.fetches):
            new = dict(zip(done.batch.ids.tolist(), done.batch.new_tokens.tolist(), strict=True))
            fetches = [fetch.request_id for fetch in done.batch.fetches]
            table.append((done.decided_ns, new, fetches, done.usages.last.free_blocks))
    return table


def test_an_idle_engine_goes_on_as_soon_as_the_cache_has_come() -> None:
    """All 12 tokens are elsewhere: the last is computed anew, and the answer's 2 tokens follow."""
    elsewhere = Elsewhere({0: Remote(12, takes_ns=30)}, {})
    assert steps(elsewhere, config(8), [Request(0, 5, 12, 2)]) == [
        (5, {}, [0], 5),
        (35, {0: 1}, [], 5),
        (135, {0: 1}, [], 4),
    ]


def test_a_busy_engine_hears_of_it_when_the_pass_after_it_has_ended() -> None:
    """The cache comes at 50, within the first step; the second, launched at 100, looks, and ends at 200."""
    elsewhere = Elsewhere({1: Remote(8, takes_ns=50)}, {})
    assert steps(elsewhere, config(8), [Request(0, 0, 4, 4), Request(1, 0, 10, 1)]) == [
        (0, {0: 4}, [1], 5),
        (100, {0: 1}, [], 4),
        (200, {0: 1, 1: 2}, [], 3),
        (300, {0: 1}, [], 6),
    ]


def test_one_that_waits_for_its_cache_lets_others_pass_and_keeps_its_place_before_them() -> None:
    """With one seat: 1 is served while 0 waits; 0 is then before 2, which might have been served at any time."""
    elsewhere = Elsewhere({0: Remote(12, takes_ns=120)}, {})
    arriving = [Request(0, 0, 12, 1), Request(1, 0, 4, 3), Request(2, 0, 4, 1)]
    assert steps(elsewhere, config(8, max_num_seqs=1), arriving) == [
        (0, {1: 4}, [0], 4),
        (100, {1: 1}, [], 3),
        (200, {1: 1}, [], 3),
        (300, {0: 1}, [], 5),
        (400, {2: 4}, [], 7),
    ]


def test_blocks_are_taken_when_the_fetch_begins() -> None:
    """3 of 4 blocks wait for the cache of 0, so that 1 (2 blocks) is admitted only when 0 is done."""
    elsewhere = Elsewhere({0: Remote(12, takes_ns=500)}, {})
    assert steps(elsewhere, config(4), [Request(0, 0, 12, 1), Request(1, 0, 8, 1)]) == [
        (0, {}, [0], 1),
        (500, {0: 1}, [], 1),
        (600, {1: 8}, [], 2),
    ]


def test_a_prompt_that_does_not_fit_is_not_fetched() -> None:
    elsewhere = Elsewhere({1: Remote(12, takes_ns=10)}, {})
    assert steps(elsewhere, config(4), [Request(0, 0, 8, 2), Request(1, 0, 12, 1)]) == [
        (0, {0: 8}, [], 2),
        (100, {0: 1}, [], 1),
        (200, {}, [1], 1),
        (210, {1: 1}, [], 1),
    ]


def test_what_is_there_at_once_is_not_waited_for() -> None:
    elsewhere = Elsewhere({0: Remote(8, asynchronous=False)}, {})
    assert steps(elsewhere, config(8), [Request(0, 0, 12, 1)]) == [(0, {0: 4}, [], 5)]


def test_blocks_of_one_that_is_done_stay_while_they_are_read() -> None:
    """0 is done at 100 and read until 250; the passes at 100 and 200 leave 1 waiting, that of 250 looks."""
    elsewhere = Elsewhere({}, {0: 150})
    assert steps(elsewhere, config(3), [Request(0, 0, 12, 1), Request(1, 0, 8, 1)]) == [
        (0, {0: 12}, [], 0),
        (250, {1: 8}, [], 1),
    ]


def test_one_that_lost_its_place_is_asked_about_again() -> None:
    """3 blocks, of which 0 has two when 1 wants its second: 1 loses its place, and computes its 5 tokens anew later.

    Where its cache can be had again it fetches that at once, into the block that 0 wants next: 0 loses its place.
    """
    arriving = [Request(0, 0, 4, 6), Request(1, 0, 4, 3)]
    begin = [(0, {0: 4}, [1], 1), (100, {0: 1}, [], 0), (200, {0: 1, 1: 1}, [], 0), (300, {0: 1}, [], 1)]
    settings = config(3, scheduler_reserve_full_isl=False)
    elsewhere = Elsewhere({1: Remote(4, takes_ns=0, once=True)}, {})
    alone = [(400, {0: 1}, [], 1), (500, {0: 1}, [], 0), (600, {1: 5}, [], 1), (700, {1: 1}, [], 1)]
    assert steps(elsewhere, settings, arriving) == begin + alone
    elsewhere = Elsewhere({1: Remote(4, takes_ns=0, once=False)}, {})
    again = [(400, {0: 1}, [1], 0), (500, {1: 1}, [], 1), (600, {1: 1}, [], 1), (700, {0: 9}, [], 0)]
    assert steps(elsewhere, settings, arriving) == begin + again


@pytest.mark.parametrize("at", [1, 49])
def test_given_up_while_it_fetches_its_blocks_go_when_the_cache_has_come(at: int) -> None:
    """What writes into blocks cannot be stopped: 1 needs all of them, and gets them at 50."""
    elsewhere = Elsewhere({0: Remote(12, takes_ns=50)}, {})
    arriving = [Request(0, 0, 12, 1, abort_ns=at), Request(1, 0, 12, 1)]
    assert steps(elsewhere, config(3), arriving) == [(0, {}, [0], 0), (50, {1: 12}, [], 0)]
    assert elsewhere.scheduler.usage().free_blocks == 3


def test_given_up_after_it_has_come_its_blocks_go_at_once() -> None:
    """The pass of 60 hears of the cache, which came while 1 computed; 0 goes before it has a seat."""
    elsewhere = Elsewhere({0: Remote(8, takes_ns=50)}, {})
    arriving = [Request(0, 0, 8, 1, abort_ns=250), Request(1, 0, 4, 4)]
    told = serve(config(8, max_num_seqs=1), elsewhere, arriving, StageTimes([STEP]), max_steps=1)
    assert [record.now for record in told if isinstance(record, Aborted)] == [300]
    assert elsewhere.scheduler.usage().free_blocks == 8
    assert elsewhere.scheduler.remote is not None and not elsewhere.scheduler.remote.fetching


def test_landing_cuts_a_stretch_of_decodes() -> None:
    """Nothing of the steps differs from those counted one by one, and many are counted at once."""
    arriving = [Request(0, 0, 4, 40), Request(1, 0, 12, 1)]
    tables = []
    for most in (1, 512):
        elsewhere = Elsewhere({1: Remote(12, takes_ns=1234)}, {})
        told = serve(config(32), elsewhere, arriving, StageTimes([STEP]), max_steps=most)
        tables.append([done for done in told if isinstance(done, CompletedBatch)])
    assert rows(tables[0]) == rows(tables[1])
    assert len(tables[1]) < 12 < 40 <= len(tables[0])


def test_cache_that_nobody_waits_for_is_an_error() -> None:
    scheduler = VllmScheduler(config(4), connector=Elsewhere({}, {}))
    with pytest.raises(InternalError, match="nobody waits"):
        scheduler.landed(Request(0, 0, 4, 1))


def test_what_is_not_modelled_is_refused() -> None:
    with pytest.raises(UserError, match=r"not modelled for 0\.33"):
        VllmScheduler(config(4, version="0.33"), connector=Elsewhere({}, {}))
    with pytest.raises(InternalError, match="windows"):
        VllmScheduler(config(4), (LayerGroup(8),), connector=Elsewhere({}, {}))


@reaches(0.3, examples=100, workload=workloads(), most=st.sampled_from([1, 64]))
def test_a_connector_that_has_nothing_changes_nothing(reached: Reached, workload: Workload, most: int) -> None:
    if workload.config.version != "0.19":
        return
    _, plain = drive(workload, max_steps=most)
    told = serve(workload.config, Elsewhere({}, {}), workload.requests, StageTimes([1]), max_steps=most)
    batches = [done for done in told if isinstance(done, CompletedBatch)]
    assert rows(batches) == rows(plain)
    assert [done.usages.last for done in batches] == [done.usages.last for done in plain]
    reached()
