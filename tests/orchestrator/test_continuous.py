"""ReaLLM's kinds of continuous batching: prompts first, prompts mixed, prompts in chunks, each by a table of steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.batch import Batch
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Scheduler
from tests.orchestrator.serving import Run, StageTimes, scheduler

NAMES = ["continuous", "mixed-continuous", "chunked-mixed-continuous"]
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("continuous", {}),
    ("continuous", {"max_batch": 2, "queue_order": "sjf"}),
    ("mixed-continuous", {}),
    ("chunked-mixed-continuous", {"prefill_chunk": 3}),
    ("chunked-mixed-continuous", {"prefill_chunk": 7, "max_batch": 3}),
]
Step = list[tuple[int, int, int, int]]


def step_of(batch: Batch) -> Step:
    """Return (request, tokens computed now, tokens in the cache before, tokens sampled) of each row."""
    columns = batch.ids, batch.new_tokens, batch.context_tokens, batch.samples
    return [tuple(row) for row in zip(*(column.tolist() for column in columns), strict=True)]  # type: ignore[misc]


def steps(run: Run) -> list[Step]:
    return [step_of(done.batch) for done in run.batches]


def told(name: str, rows: list[tuple[int, int, int]], **options: Any) -> list[Step]:
    """Return every step of a run in which each takes 10 ns."""
    return steps(Run(scheduler(name, 100, **options), rows, pricing=StageTimes([10]), max_steps=1))


#                prompt, output, arrival
ROWS = [(5, 3, 0), (4, 2, 0), (6, 1, 15)]


def test_prompts_first() -> None:
    """Steps of 10 ns: the third request comes in the second, and the third step is its prompt alone."""
    assert told("continuous", ROWS) == [
        [(0, 5, 0, 1), (1, 4, 0, 1)],
        [(0, 1, 5, 1), (1, 1, 4, 1)],
        [(2, 6, 0, 1)],
        [(0, 1, 6, 1)],
    ]


def test_prompts_mixed() -> None:
    assert told("mixed-continuous", ROWS) == [
        [(0, 5, 0, 1), (1, 4, 0, 1)],
        [(0, 1, 5, 1), (1, 1, 4, 1)],
        [(0, 1, 6, 1), (2, 6, 0, 1)],
    ]


def test_prompts_in_chunks() -> None:
    """Chunks of 4: the third request comes while the first two prompts, a round, are computed; the next is its own.

    step  began  prompt tokens       decodes
    0     0      0: 0..3
    1     10     0: 4, 1: 0..2
    2     20     1: 3                0, its 2nd token: a short chunk, the third request is not of this round
    3     30     2: 0..3             0 (3rd: done), 1 (2nd: done)
    4     40     2: 4..5
    """
    assert told("chunked-mixed-continuous", ROWS, prefill_chunk=4) == [
        [(0, 4, 0, 0)],
        [(0, 1, 4, 1), (1, 3, 0, 0)],
        [(0, 1, 5, 1), (1, 1, 3, 1)],
        [(0, 1, 6, 1), (1, 1, 4, 1), (2, 4, 0, 0)],
        [(2, 2, 4, 1)],
    ]


def test_the_chunk_is_beside_all_decodes() -> None:
    """Three decode, and the chunk is whole: decodes do not reduce it."""
    found = told("chunked-mixed-continuous", [(1, 9, 0)] * 3 + [(8, 1, 5)], prefill_chunk=4)
    assert found[0] == [(0, 1, 0, 1), (1, 1, 0, 1), (2, 1, 0, 1)]
    assert found[1][3:] == [(3, 4, 0, 0)] and found[2][3:] == [(3, 4, 4, 1)]


def test_a_round_is_taken_in_the_queue_s_order() -> None:
    rows = [(9, 1, 0), (8, 1, 5), (2, 1, 6), (7, 1, 15)]
    found = told("chunked-mixed-continuous", rows, prefill_chunk=9, queue_order="shortest-prompt")
    assert [[row[:2] for row in step] for step in found] == [[(0, 9)], [(2, 2), (1, 7)], [(1, 1)], [(3, 7)]]


def test_prompts_leave_room_for_the_next_token_of_all_that_decode() -> None:
    """4 blocks of 4 tokens. 0 and 1 fill two; both need one more, so a third prompt waits until they are done."""
    found = told_in_blocks("continuous", 4, [(4, 3, 0), (4, 3, 0), (4, 1, 5)])
    assert [[row[0] for row in step] for step in found] == [[0, 1], [0, 1], [0, 1], [2]]


def told_in_blocks(name: str, blocks: int, rows: list[tuple[int, int, int]], **options: Any) -> list[Step]:
    return steps(Run(scheduler(name, blocks, **options), rows, pricing=StageTimes([10]), max_steps=1))


def test_a_prompt_takes_blocks_as_its_chunks_come_and_the_last_begun_makes_room() -> None:
    """4 blocks of 4 tokens, chunks of 4: by hand.

    step  computed   blocks  what happens
    0     0: 4       1       prompt
    1     0: 5, 1: 4 2 1     0 decodes
    2     6, 8       2 2     memory is full; 1 lacks 4 more tokens of its prompt
    3     7          2 2     the next chunk of 1 does not fit
    4     8          2 2
    5     9          3       0 needs a block: 1 is evicted, 2 blocks
    6     10         3       0 is done (its 7th token)
    7     12         3       1 is reloaded and goes on
    """
    policy = scheduler("chunked-mixed-continuous", 4, prefill_chunk=4)
    run = Run(policy, [(4, 7, 0), (12, 1, 0)], pricing=StageTimes([10]), max_steps=1)
    assert steps(run) == [
        [(0, 4, 0, 1)],
        [(0, 1, 4, 1), (1, 4, 0, 0)],
        [(0, 1, 5, 1), (1, 4, 4, 0)],
        [(0, 1, 6, 1)],
        [(0, 1, 7, 1)],
        [(0, 1, 8, 1)],
        [(0, 1, 9, 1)],
        [(1, 4, 8, 1)],
    ]
    batches = [done.batch for done in run.batches]
    assert [[(t.request_id, t.blocks) for t in batch.kv_evictions] for batch in batches] == [[]] * 5 + [
        [(1, 2)],
        [],
        [],
    ]
    assert [[(t.request_id, t.blocks) for t in batch.kv_loads] for batch in batches] == [[]] * 7 + [[(1, 2)]]
    assert policy.usage().free_blocks == 4


def drive(policy: Scheduler, times: int) -> list[Step]:
    """Decide and end so many steps in which nobody is done."""
    found = []
    for _ in range(times):
        batch = policy.schedule(0)
        assert batch is not None
        found.append(step_of(batch))
        policy.update(batch, set(), 0)
    return found


def test_prompts_computed_elsewhere_go_on_where_they_are() -> None:
    """Half of one prompt is there, all of the other: it has its first token and decodes, no chunk is counted for it."""
    policy = scheduler("chunked-mixed-continuous", 100, prefill_chunk=4)
    policy.add(Admission(Request(0, 0, 10, 5), 5), 0)
    policy.add(Admission(Request(1, 0, 8, 5), 8), 0)
    assert drive(policy, 3) == [
        [(0, 4, 5, 0), (1, 1, 8, 1)],
        [(0, 1, 9, 1), (1, 1, 9, 1)],
        [(0, 1, 10, 1), (1, 1, 10, 1)],
    ]
    policy = scheduler("continuous", 100)
    policy.add(Admission(Request(0, 0, 8, 5), 8), 0)
    policy.add(Admission(Request(1, 0, 10, 5), 5), 0)
    assert drive(policy, 3) == [[(1, 5, 5, 1)], [(1, 1, 10, 1), (0, 1, 8, 1)], [(1, 1, 11, 1), (0, 1, 9, 1)]]


def test_a_prompt_given_up_between_chunks_ends_its_round() -> None:
    policy = scheduler("chunked-mixed-continuous", 100, prefill_chunk=4)
    gone, round_too, later = Request(0, 0, 40, 5), Request(1, 0, 4, 5), Request(2, 0, 4, 5)
    policy.add(Admission(gone), 0)
    policy.add(Admission(round_too), 0)
    drive(policy, 1)
    policy.add(Admission(later), 0)
    assert policy.usage().waiting == 2
    for request in (gone, round_too):
        assert policy.abort(request, 0) is False
    assert policy.usage().free_blocks == 100
    assert drive(policy, 1) == [[(2, 4, 0, 1)]]
    assert policy.abort(later, 0) is False
    assert not policy.has_unfinished() and policy.usage().free_blocks == 100


def test_a_chunk_in_flight_of_one_who_has_gone_holds_its_blocks_and_no_round() -> None:
    policy = scheduler("chunked-mixed-continuous", 100, prefill_chunk=4, pipeline=2)
    gone, later = Request(0, 0, 40, 5), Request(1, 0, 4, 5)
    policy.add(Admission(gone), 0)
    flying = policy.schedule(0)
    assert flying is not None
    policy.add(Admission(later), 0)
    assert policy.schedule(0) is None, "the round is not over, and all of it is in flight"
    policy.abort(gone, 0)
    assert policy.usage().free_blocks == 99
    batch = policy.schedule(0)
    assert batch is not None and step_of(batch) == [(1, 4, 0, 1)]
    assert policy.update(flying, set(), 0).emitted == []
    assert policy.usage().free_blocks == 99


@pytest.mark.parametrize("name", NAMES)
def test_long_decodes_are_few_batches(name: str) -> None:
    run = Run(scheduler(name, 1000), [(10, 600, 0)] * 3)
    assert run.metrics.totals.iterations == 600
    assert len(run.batches) < 15


def test_mixed_continuous_is_orca_by_another_name() -> None:
    rows = [(5 + index % 7, 3 + index % 5, 900 * index) for index in range(20)]
    orca, mixed = (Run(scheduler(name, 12, max_batch=4), rows).outcome() for name in ("orca", "mixed-continuous"))
    assert orca == mixed


@pytest.mark.parametrize(("name", "options"), KINDS)
@pytest.mark.parametrize("stages", [1, 2, 3])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, 30_000)), min_size=1, max_size=12),
    blocks=st.integers(18, 50),
)
def test_every_token_is_computed_once_and_memory_is_all_free(
    name: str, options: dict[str, Any], stages: int, rows: list[tuple[int, int, int]], blocks: int
) -> None:
    rows.sort(key=lambda row: row[2])
    policy = scheduler(name, blocks, pipeline=stages, **options)
    run = Run(policy, rows, stages=stages, max_steps=1)
    computed = dict.fromkeys(range(len(rows)), 0)
    for done in run.batches:
        batch, chunk = done.batch, 0
        assert len(batch.requests) <= (options.get("max_batch") or 12)
        decoding = set()
        for number, new, context, samples in step_of(batch):
            assert computed[number] == context, "no token is passed over or computed again"
            computed[number] += new
            prompt = rows[number][0]
            assert samples == (computed[number] >= prompt)
            decoding.add(context >= prompt)
            chunk += new if context < prompt else 0
        assert name != "continuous" or len(decoding) == 1, "prompts have an iteration of their own"
        assert chunk <= options.get("prefill_chunk", chunk)
    assert computed == {number: prompt + output - 1 for number, (prompt, output, _) in enumerate(rows)}
    assert run.metrics.totals.generated_tokens == sum(output for _, output, _ in rows)
    assert policy.usage().free_blocks == blocks and run.engine.idle()
