"""What must hold after every decision and every update, whatever the settings and the requests."""

from collections import Counter

from hypothesis import given, settings

from orchestrator.engine.batch import Batch, Outcome
from orchestrator.kv_memory.prefix import PrefixKV
from orchestrator.requests.request import Request
from orchestrator.schedulers.vllm import VllmScheduler
from tests.vllm_scheduler.vllm_workloads import Workload, drive, stored_tokens, workloads


def check_blocks(scheduler: VllmScheduler) -> None:
    """Every usable block is free or held, references count the holders, and the counters agree."""
    scheduler.decoding.dissolve()
    kv = scheduler.kv
    for entry in scheduler.running:
        assert 0 < entry.computed <= entry.room
    if not isinstance(kv, PrefixKV):
        assert kv.free + sum(kv.held(entry) for entry in scheduler.running) == kv.total
        return
    held = Counter(block for entry in scheduler.running for block in entry.tables[0])
    free = kv.pool.order()
    assert len(free) == len(set(free)) == kv.free
    assert set(free) | set(held) == set(range(1, scheduler.config.num_gpu_blocks))
    assert not set(free) & set(held)
    references = [*kv.pool.references, *[0] * (scheduler.config.num_gpu_blocks - len(kv.pool.references))]
    assert references == [held[block] for block in range(scheduler.config.num_gpu_blocks)]
    for entry in scheduler.running:
        (table,) = entry.tables
        assert len(set(table)) == len(table)
        assert entry.room == len(table) * kv.block_size


@settings(max_examples=150, deadline=None, derandomize=True)
@given(workloads(stages=(1, 1, 2, 3)))
def test_no_block_is_lost_or_wrongly_shared(workload: Workload) -> None:
    most = workload.config.max_num_batched_tokens

    def decided(scheduler: VllmScheduler, batch: Batch) -> None:
        check_blocks(scheduler)
        assert sum(batch.new_tokens) <= most
        assert len(scheduler.running) <= workload.config.max_num_seqs
        assert all(tokens > 0 for tokens in batch.new_tokens)
        assert batch.requests or batch.preempted

    def updated(scheduler: VllmScheduler, outcome: Outcome) -> None:
        check_blocks(scheduler)

    if workload.config.policy == "priority":
        # Two requests can drive each other out for ever under priority; only what happens until then is looked at.
        try:
            drive(workload, decided=decided, updated=updated, most_steps=400)
        except AssertionError as error:
            assert "does not end" in str(error)
    else:
        scheduler, _ = drive(workload, decided=decided, updated=updated)
        assert scheduler.usage().free_blocks == workload.config.num_gpu_blocks - 1, "all but the null block"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(workloads(policies=["fcfs"]))
def test_every_request_gets_its_tokens_in_order_of_arrival(workload: Workload) -> None:
    place = {request.id: index for index, request in enumerate(sorted(workload.requests, key=lambda r: r.arrival_ns))}
    tokens: Counter[int] = Counter()

    def decided(scheduler: VllmScheduler, batch: Batch) -> None:
        running = [place[entry.request.id] for entry in scheduler.running]
        assert running == sorted(running)
        if len(scheduler.waiting) and running:
            assert place[scheduler.waiting.head().request.id] > running[-1]

    def updated(scheduler: VllmScheduler, outcome: Outcome) -> None:
        tokens.update(request.id for request in outcome.emitted)

    _, batches = drive(workload, decided=decided, updated=updated)
    finished = [request.id for batch in batches for request in batch.outcome.finished]
    assert sorted(finished) == sorted(place)
    for request in workload.requests:
        assert tokens[request.id] == stored_tokens(request, workload.config) + 1 - request.prompt_tokens


@settings(max_examples=150, deadline=None, derandomize=True)
@given(workloads(policies=["fcfs"]))
def test_prefix_hits_are_on_equal_tokens_only(workload: Workload) -> None:
    size = workload.config.block_size
    contents: dict[int, list[object]] = {}

    def decided(scheduler: VllmScheduler, batch: Batch) -> None:
        hits = {request.id: hit for request, hit in batch.admitted}
        if not workload.config.enable_prefix_caching:
            assert not any(hits.values())
            return
        scheduler.decoding.dissolve()
        for entry in scheduler.running:
            hit = hits.get(entry.request.id, 0) // size
            for index, block in enumerate(entry.tables[0]):
                tokens = prefix(entry.request, (index + 1) * size)
                if index < hit:
                    assert contents[block] == tokens
                elif entry.computed >= (index + 1) * size:
                    contents[block] = tokens

    drive(workload, decided=decided)


def prefix(request: Request, count: int) -> list[object]:
    """The first `count` tokens; one whose id nobody knows is equal to itself only."""
    known: list[object] = []
    if request.prompt_token_ids is not None:
        known = [*request.prompt_token_ids, *(request.output_token_ids or ())]
    return [*known[:count], *((request.id, position) for position in range(len(known), count))]
