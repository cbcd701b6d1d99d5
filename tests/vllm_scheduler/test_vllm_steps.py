"""Steps counted together, or taken many at once, leave the same rows and the same blocks in the same order.

A request's own counters are the slow way: the cohort is dissolved before each decision. Beside it, decodes are counted
for all at once, and stretches of them are foreseen.
"""

from collections.abc import Sequence

from hypothesis import strategies as st

from orchestrator.engine.engine import Engine
from orchestrator.engine.records import CompletedBatch
from orchestrator.kv_memory.prefix import PrefixKV
from orchestrator.requests.request import Request
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.serving import StageTimes, completed
from tests.vllm_scheduler.vllm_workloads import Workload, drive, workloads

Row = tuple[int, int, list[tuple[int, int, int]], list[int], list[int], list[int]]


def rows(batches: Sequence[CompletedBatch]) -> list[Row]:
    """One row a step: which it is, when it ends, who computes how much after how much, who comes, goes and is done."""
    result: list[Row] = []
    for done in batches:
        batch = done.batch
        for step in range(batch.steps):
            work = [
                (request.id, int(context) + step, int(new))
                for request, context, new in zip(batch.requests, batch.context_tokens, batch.new_tokens, strict=True)
            ]
            last = step == batch.steps - 1
            finished = [request.id for request in done.outcome.finished] if last else []
            admitted = [request.id for request, _ in batch.admitted] if step == 0 else []
            preempted = [request.id for request in batch.preempted] if step == 0 else []
            result.append((int(done.serials[step]), int(done.ends_ns[step]), work, admitted, preempted, finished))
    return sorted(result)


def snapshot(scheduler: VllmScheduler) -> object:
    """Everything that a later decision depends on."""
    scheduler.decoding.dissolve()
    kv = scheduler.kv
    known, order = None, None
    if isinstance(kv, PrefixKV):
        contents = [kv.pool.content_of(block) for block in range(kv.pool.num_blocks)]
        known = [(content, kv.pool.find(content)) for content in contents if content is not None]
        order = kv.pool.order()
    running = [
        (one.request.id, one.computed, one.tokens, one.placeholders, one.room, one.registered, str(one.tables))
        for one in scheduler.running
    ]
    return kv.free, order, known, running, len(scheduler.waiting)


def run(workload: Workload, *, max_steps: int, alone: bool) -> tuple[list[Row], dict[int, list[object]], int]:
    """Return the rows, snapshots before decisions by the serial of the batch that comes next, and decisions made.

    `alone`: nobody is ever counted together with others.
    """
    states: dict[int, list[object]] = {}
    decisions = 0

    def deciding(scheduler: VllmScheduler) -> None:
        nonlocal decisions
        decisions += 1
        if alone or decisions % 5 == 0:  # a look dissolves what is counted together
            states.setdefault(scheduler.ledger.serial, []).append(snapshot(scheduler))

    _, batches = drive(workload, max_steps=max_steps, deciding=deciding)
    return rows(batches), states, decisions


@reaches(
    0.5,
    examples=200,
    workload=workloads(policies=["fcfs"], stages=(1, 1, 2), long_outputs=True),
    many=st.integers(2, 64),
)
def test_many_steps_at_once_are_the_same_as_single_steps(reached: Reached, workload: Workload, many: int) -> None:
    expected, states, decisions = run(workload, max_steps=1, alone=True)
    for steps in (1, many):
        found, seen, fewer = run(workload, max_steps=steps, alone=False)
        assert found == expected
        assert all(state in states[serial] for serial, looks in seen.items() for state in looks)
    if seen and fewer < decisions:
        reached()


def test_a_lone_request_decodes_to_its_end_in_one_batch() -> None:
    config = VllmSchedulerConfig(num_gpu_blocks=100, max_model_len=500, async_scheduling=False)
    scheduler, batches = drive(Workload(config, (Request(0, 0, 10, 200),)), max_steps=512)
    assert [done.batch.steps for done in batches] == [1, 199]
    assert scheduler.usage().free_blocks == 99


def test_stretches_stop_where_the_blocks_do() -> None:
    """Two requests of 16 tokens and six usable blocks of 16: each can take two more blocks, the third is missing."""
    config = VllmSchedulerConfig(
        num_gpu_blocks=7, max_model_len=96, max_num_seqs=2, async_scheduling=False, enable_prefix_caching=False
    )
    engine = Engine(VllmScheduler(config), StageTimes([1]))
    batches = completed(engine, [Request(index, 0, 16, 70) for index in range(2)])
    assert [done.batch.steps for done in batches[:2]] == [1, 32], "16 + 32 tokens fill three blocks each"
    assert batches[1].after.free_blocks == 0
    assert [request.id for request in batches[2].batch.preempted] == [1]


def test_a_waiting_request_that_may_find_more_of_its_prefix_ends_a_stretch() -> None:
    """With its third block of four free, B (four blocks, one found) is refused until A fills its second block."""
    config = VllmSchedulerConfig(
        num_gpu_blocks=5, max_model_len=24, max_num_seqs=2, block_size=4, async_scheduling=False
    )
    arriving = [
        Request(0, 0, 4, 20, prompt_token_ids=[1] * 4, output_token_ids=[1] * 20),
        Request(1, 2, 13, 1, prompt_token_ids=[1] * 13),
    ]
    batches = completed(Engine(VllmScheduler(config), StageTimes([1])), arriving)
    assert [done.batch.steps for done in batches[:5]] == [1] * 5
    admitted = [[(request.id, hit) for request, hit in done.batch.admitted] for done in batches[:5]]
    assert admitted == [[(0, 0)], [], [], [], [(1, 8)]]
