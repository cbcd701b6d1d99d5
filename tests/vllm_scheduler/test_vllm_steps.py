"""Steps taken many at once leave the same rows, the same blocks and the same order as steps taken one by one."""

from hypothesis import given, settings
from hypothesis import strategies as st
from vllm_workloads import Workload, drive, workloads

from orchestrator.batch import Batch, BatchOutcome
from orchestrator.request import Request
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig, vllm_scheduler
from orchestrator.schedulers.vllm.kv_cache import PlainKVCache, PrefixKVCache

Row = tuple[int, list[tuple[int, int, int]], list[int], list[int], list[int]]


def rows(history: list[tuple[int, Batch, BatchOutcome]]) -> list[Row]:
    """One row a step: when it starts, who computes how much after how much, who comes, goes and is done."""
    result: list[Row] = []
    for start, batch, outcome in history:
        for step in range(batch.steps):
            work = [
                (request.id, context + step, new)
                for request, context, new in zip(batch.requests, batch.context_tokens, batch.new_tokens, strict=True)
            ]
            done = [request.id for request in outcome.finished] if step == batch.steps - 1 else []
            admitted = [request.id for request, _ in batch.admitted]
            result.append((start + step, work, admitted, [request.id for request in batch.preempted], done))
    return result


def snapshot(scheduler: VllmScheduler) -> object:
    """Everything that a later decision depends on."""
    kv = scheduler.kv
    assert isinstance(kv, PlainKVCache)
    known = None
    if isinstance(kv, PrefixKVCache):
        contents = [kv.pool.content_of(block) for block in range(kv.pool.num_blocks)]
        known = [(content, kv.pool.find(content)) for content in contents if content is not None]
    running = [(item.request.id, item.computed, list(item.blocks), item.next_full) for item in scheduler.running]
    return (kv.pool.order(), known, running, len(scheduler.waiting))


def run(workload: Workload, data: st.DataObject | None) -> tuple[list[Row], dict[int, object], int]:
    """Return the rows, a snapshot after each decision by the number of steps decided before it, and the batches."""
    states: dict[int, object] = {}
    batches: list[Batch] = []

    def decided(scheduler: VllmScheduler, batch: Batch) -> None:
        states[sum(earlier.steps for earlier in batches)] = snapshot(scheduler)
        batches.append(batch)

    def jump(most: int) -> int:
        if data is None or most == 0:
            return 0
        return data.draw(st.one_of(st.just(most), st.integers(0, most)))

    _, history = drive(workload, jump=jump, decided=decided)
    return rows(history), states, len(batches)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(workloads(policies=["fcfs"], long_outputs=True), st.data())
def test_many_steps_at_once_are_the_same_as_single_steps(workload: Workload, data: st.DataObject) -> None:
    single_rows, single_states, _ = run(workload, None)
    jumped_rows, jumped_states, _ = run(workload, data)
    assert jumped_rows == single_rows
    assert jumped_states == {count: single_states[count] for count in jumped_states}


def test_a_lone_request_decodes_to_its_end_in_one_batch() -> None:
    config = VllmSchedulerConfig(num_gpu_blocks=100, max_model_len=500, async_scheduling=False)
    workload = Workload(config, (Request(0, 0, 10, 200),))
    scheduler, history = drive(workload, jump=lambda most: most)
    assert [batch.steps for _, batch, _ in history] == [1, 199]
    assert scheduler.usage().free_blocks == 99


def test_steps_stop_where_the_blocks_do() -> None:
    """Two requests of 16 tokens and six usable blocks of 16: each can take two more blocks, the third is missing."""
    config = VllmSchedulerConfig(
        num_gpu_blocks=7, max_model_len=96, max_num_seqs=2, async_scheduling=False, enable_prefix_caching=False
    )
    scheduler = vllm_scheduler(config)
    for index in range(2):
        scheduler.add(Request(index, 0, 16, 70), 0)
    batch = scheduler.schedule(0)
    assert batch is not None
    assert scheduler.steady(batch) == 0, "a prompt is not like the steps after it"
    scheduler.update(batch, 1)
    batch = scheduler.schedule(1)
    assert batch is not None
    assert scheduler.steady(batch) == 31, "16 + 32 tokens fill three blocks each"
    batch.steps = 32
    scheduler.update(batch, 2)
    assert scheduler.usage().free_blocks == 0
    batch = scheduler.schedule(2)
    assert batch is not None
    assert [request.id for request in batch.preempted] == [1]


def test_a_waiting_request_that_may_find_more_of_its_prefix_ends_the_like_steps() -> None:
    """With its third block of four free, B (four blocks, one found) is refused until A fills its second block."""
    config = VllmSchedulerConfig(
        num_gpu_blocks=5, max_model_len=24, max_num_seqs=2, block_size=4, async_scheduling=False
    )
    scheduler = vllm_scheduler(config)
    scheduler.add(Request(0, 0, 4, 20, prompt_token_ids=[1] * 4, output_token_ids=[1] * 20), 0)
    for now in range(2):
        batch = scheduler.schedule(now)
        assert batch is not None
        scheduler.update(batch, now)
    scheduler.add(Request(1, 2, 13, 1, prompt_token_ids=[1] * 13), 2)
    admitted = []
    for now in range(2, 5):
        batch = scheduler.schedule(now)
        assert batch is not None
        assert scheduler.steady(batch) == 0
        admitted.append([(request.id, hit) for request, hit in batch.admitted])
        scheduler.update(batch, now)
    assert admitted == [[], [], [(1, 8)]]
