"""FasterTransformer's batches: slots of one length, rows of those that are done, answers returned together."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.settings.specification import RunSpec
from orchestrator.simulation import Simulation
from tests.orchestrator.serving import FormulaPricing, Run, StageTimes, scheduler
from tests.orchestrator.test_continuous import Step, step_of

ROWS = [(5, 4, 0), (2, 2, 0), (3, 1, 0), (6, 2, 5)]


def told(run: Run) -> list[tuple[Step, int]]:
    """Return every step's rows, and how many more are computed for nobody."""
    return [(step_of(done.batch), done.batch.padding) for done in run.batches]


def test_who_is_done_keeps_a_row_until_the_last_is() -> None:
    run = Run(scheduler("static", 100), ROWS, pricing=StageTimes([10]), max_steps=1)
    assert told(run) == [
        ([(0, 5, 0, 1), (1, 2, 0, 1), (2, 3, 0, 1)], 0),
        ([(0, 1, 5, 1), (1, 1, 2, 1)], 1),
        ([(0, 1, 6, 1)], 2),
        ([(0, 1, 7, 1)], 2),
        ([(3, 6, 0, 1)], 0),
        ([(3, 1, 6, 1)], 0),
    ]
    rows = run.by_id()
    assert [rows[number]["end"] for number in range(4)] == [40, 40, 40, 60], "answers come back together"
    assert [rows[number]["output"] for number in range(4)] == [4, 2, 1, 2]
    assert run.metrics.totals.generated_tokens == 9, "nobody gets what is computed for nobody"


def test_a_row_of_nobody_takes_time() -> None:
    """1000 ns, 7 a token and 1 a token of context: the second row costs 7 ns a step longer than with `none`."""
    static, none = (Run(scheduler(name, 100), [(5, 4, 0), (2, 2, 0)]).by_id()[0] for name in ("static", "none"))
    assert static["end"] - none["end"] == 2 * 7
    assert static["end"] == (1000 + 7 * 7) + (1000 + 14 + 7) + (1000 + 14 + 6) + (1000 + 14 + 7)


def test_slots_are_as_long_as_the_longest_prompt_and_answer_of_the_batch() -> None:
    """Blocks of 4: two slots of 5 + 7 tokens are 6 blocks, three of 9 + 7 would be 12, and there are 11."""
    rows = [(5, 4, 0), (2, 7, 0), (9, 1, 0)]
    policy = scheduler("static", 11)
    added = [Request(place, 0, prompt, output) for place, (prompt, output, _) in enumerate(rows)]
    for request in added:
        policy.add(Admission(request), 0)
    batch = policy.schedule(0)
    assert batch is not None and [row[0] for row in step_of(batch)] == [0, 1]
    assert (policy.usage().free_blocks, policy.usage().waiting) == (5, 1)
    policy.update(batch, set(), 0)
    batch = policy.schedule(0)
    assert batch is not None
    outcome = policy.update(batch, {added[0]}, 0)
    assert outcome.finished == () and policy.usage().free_blocks == 5, "a slot is held by who is done"
    assert policy.usage().running == 1
    batch = policy.schedule(0)
    assert batch is not None
    outcome = policy.update(batch, {added[1]}, 0)
    assert outcome.finished == added[:2] and policy.usage().free_blocks == 11
    batch = policy.schedule(0)
    assert batch is not None and [row[0] for row in step_of(batch)] == [2]
    assert policy.usage().free_blocks == 8


def test_a_slot_is_for_what_the_client_allows() -> None:
    policy = scheduler("static", 5)
    assert policy.unfit(Request(0, 0, 12, 8), 19) is None
    assert policy.unfit(Request(0, 0, 12, 2, max_tokens=8), 13) is None
    assert "needs 6 KV blocks" in str(policy.unfit(Request(0, 0, 12, 2, max_tokens=9), 13))


def test_a_batch_waits_until_it_is_full_or_its_delay_is_over() -> None:
    run = Run(scheduler("static", 100, max_batch=2, batch_delay=500), [(4, 2, 100), (4, 2, 200), (4, 2, 300)])
    rows = run.by_id()
    assert rows[0]["scheduled"] == rows[1]["scheduled"] == 200
    assert rows[2]["scheduled"] == rows[0]["end"]


def test_batches_take_turns_on_a_pipeline_while_there_are_slots() -> None:
    """Slots of 2 blocks: two batches side by side in 4 blocks, one in 3."""
    rows = [(4, 3, 0), (4, 3, 0)]
    for blocks, together in ((4, True), (3, False)):
        run = Run(scheduler("static", blocks, pipeline=2, max_batch=1), rows, stages=2)
        assert (run.by_id()[1]["scheduled"] < run.by_id()[0]["end"]) == together


def test_one_who_goes_is_computed_to_the_end_and_not_reported() -> None:
    rows = [Request(0, 0, 4, 9), Request(1, 0, 4, 3, abort_ns=1500)]
    run = Run(scheduler("static", 100), rows, max_steps=1)
    assert list(run.by_id()) == [0] and [number for _, number in run.aborted] == [1]
    assert [done.batch.padding for done in run.batches] == [0, 0, 0, *[1] * 6]
    assert run.engine.idle() and run.engine.usage().free_blocks == 100


def test_long_decodes_are_few_batches() -> None:
    run = Run(scheduler("static", 1000), [(10, 600, 0), (10, 300, 0)], pricing=FormulaPricing())
    assert run.metrics.totals.iterations == 600
    assert len(run.batches) < 25


def test_its_slots_cost_time_that_request_level_scheduling_without_them_does_not() -> None:
    """On a real model: the same first tokens, and longer answers, for the LM head is computed for all rows."""
    values = {"model_name": "openai-community/gpt2", "max_batch": 8, "num_prompts": 24}
    static, none = (Simulation(RunSpec.of(scheduling=name, **values)).run().summary for name in ("static", "none"))
    assert static.generated_tokens == none.generated_tokens
    assert static.makespan_s > none.makespan_s


@pytest.mark.parametrize("stages", [1, 2, 3])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, 9000), st.integers(0, 9)),
        min_size=1,
        max_size=10,
    ),
    blocks=st.integers(20, 60),
    max_batch=st.integers(0, 4),
    delay=st.sampled_from([0, 700, 20_000]),
)
def test_batches_are_computed_whole(
    stages: int, rows: list[tuple[int, int, int, int]], blocks: int, max_batch: int, delay: int
) -> None:
    """Rows and padding of a batch are the same from its first step to its last, and every request's tokens come."""
    rows.sort(key=lambda row: row[2])
    made = [Request(place, row[2], row[0], row[1], max_tokens=row[1] + row[3]) for place, row in enumerate(rows)]
    policy = scheduler("static", blocks, pipeline=stages, max_batch=max_batch, batch_delay=delay)
    run = Run(policy, made, stages=stages, max_steps=1)
    width: dict[int, int] = {}
    for done in run.batches:
        numbers = [request.id for request in done.batch.requests]
        if done.batch.admitted:
            width |= dict.fromkeys(numbers, len(numbers))
        assert {width[number] for number in numbers} == {len(numbers) + done.batch.padding}
        assert not max_batch or len(numbers) <= max_batch
    assert run.engine.idle() and sorted(run.by_id()) == list(range(len(rows)))
    assert run.metrics.totals.generated_tokens == sum(row[1] for row in rows)
    assert policy.usage().free_blocks == blocks
