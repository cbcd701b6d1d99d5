"""Request-level scheduling: who joins a batch, when it starts, and that its answers come back together."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.engine import Engine
from orchestrator.engine.loops import NEVER
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from tests.orchestrator.serving import FormulaPricing, Run, scheduler


def test_a_batch_waits_for_its_delay() -> None:
    run = Run(scheduler("none", 100, batch_delay=500), [(4, 2, 100), (4, 2, 550), (4, 2, 601)])
    rows = run.by_id()
    assert rows[0]["scheduled"] == rows[1]["scheduled"] == 600, "first waiting arrival + delay"
    assert rows[2]["scheduled"] == rows[0]["end"], "nobody joins a running batch; the delay was over meanwhile"


def test_an_engine_whose_request_waits_for_its_batch_is_not_idle() -> None:
    engine = Engine(scheduler("none", 100, batch_delay=500), FormulaPricing())
    assert engine.idle()
    engine.submit(Admission(Request(0, 0, 4, 2)), 0)
    engine.step(0)
    assert engine.usage().waiting == 1 and engine.told_until() == NEVER, "seen, and nothing is in flight"
    assert not engine.idle()


def test_a_full_batch_does_not_wait() -> None:
    run = Run(scheduler("none", 100, max_batch=2, batch_delay=10**9), [(4, 2, 100), (4, 2, 200), (4, 2, 300)])
    rows = run.by_id()
    assert rows[0]["scheduled"] == rows[1]["scheduled"] == 200
    assert rows[2]["scheduled"] == 300 + 10**9


def test_answers_come_back_with_the_batch() -> None:
    run = Run(scheduler("none", 100), [(4, 1, 0), (4, 6, 0)])
    rows = run.by_id()
    assert rows[0]["end"] == rows[1]["end"]
    assert rows[0]["first_token"] == rows[1]["first_token"] < rows[0]["end"]
    assert next(len(done.batch.requests) for done in run.batches) == 2
    assert all(len(done.batch.requests) == 1 for done in run.batches[1:]), "what is done is computed no further"


def test_a_batch_takes_the_prompts_that_fit() -> None:
    run = Run(scheduler("none", 4), [(8, 1, 0), (8, 1, 0), (4, 1, 0)])
    assert [[request.id for request in done.batch.requests] for done in run.batches] == [[0, 1], [2]]


def test_growth_beyond_memory_swaps_within_the_batch() -> None:
    run = Run(scheduler("none", 5), [(8, 10, 0), (8, 10, 0)])
    assert run.metrics.totals.evictions > 0
    assert run.metrics.totals.evicted_bytes == run.metrics.totals.reloaded_bytes


def test_batches_follow_each_other_through_a_pipeline() -> None:
    run = Run(scheduler("none", 100, pipeline=2, max_batch=1), [(4, 3, 0), (4, 3, 0), (4, 3, 0)], stages=2)
    rows = run.by_id()
    assert rows[1]["scheduled"] < rows[0]["end"]
    assert rows[2]["scheduled"] >= rows[0]["end"], "two stages, two batches"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, 9000)), min_size=1, max_size=10),
    blocks=st.integers(18, 40),
    pipeline=st.integers(1, 3),
    max_batch=st.integers(0, 3),
    delay=st.sampled_from([0, 700, 20_000]),
)
def test_every_request_ends_and_memory_is_all_free(
    rows: list[tuple[int, int, int]], blocks: int, pipeline: int, max_batch: int, delay: int
) -> None:
    rows.sort(key=lambda row: row[2])
    policy = scheduler("none", blocks, pipeline=pipeline, max_batch=max_batch, batch_delay=delay)
    run = Run(policy, rows, stages=pipeline)
    assert run.engine.idle()
    assert len(run.rows()) == len(rows)
    assert policy.usage().free_blocks == blocks
    assert run.metrics.totals.generated_tokens == sum(output for _, output, _ in rows)
