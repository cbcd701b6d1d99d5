"""One engine on the clock: who is seen when, how a pipeline fills, what an abort does."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest

from orchestrator.engine.engine import Engine
from orchestrator.engine.records import Aborted, UsageLine
from orchestrator.kv_memory.groups import FULL
from orchestrator.kv_memory.store import KVSpace
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import KVUsage
from orchestrator.schedulers.settings import Place, policies
from tests.orchestrator.serving import BLOCK_BYTES, FormulaPricing, Run, StageTimes, scheduler, simulate

EVERY_POLICY = list(policies)


def test_a_request_is_seen_at_the_first_step_boundary_at_or_after_its_arrival() -> None:
    # One request of 3 steps at 0: prompt 10 -> 1000 + 70 = 1070; decodes 1007 + 10 and 1007 + 11.
    run = Run(scheduler("orca", 100), [(10, 3, 0), (5, 1, 1070), (5, 1, 1071)])
    rows = run.by_id()
    assert rows[1]["queued"] == rows[1]["scheduled"] == 1070, "an arrival at the boundary is in time"
    # The second step holds one decode at context 10 and a prompt of 5: 1000 + 6 * 7 + 10.
    assert rows[1]["end"] == 1070 + 1052
    assert rows[2]["queued"] == 1070 + 1052


def test_idle_time_is_jumped_over() -> None:
    run = Run(scheduler("orca", 100), [(10, 1, 5), (10, 1, 10**15)])
    assert [row["scheduled"] for row in run.rows()] == [5, 10**15]
    assert len(run.batches) == 2


def test_completions_come_before_arrivals_before_decisions_at_one_moment() -> None:
    # Three blocks of 4: the first request holds all; the second arrives as it ends and takes its memory at once.
    run = Run(scheduler("orca", 3), [(12, 1, 0), (12, 1, 1084)])
    assert run.by_id()[1]["queued"] == run.by_id()[1]["scheduled"] == run.by_id()[0]["end"] == 1084


def test_a_long_decode_is_few_batches() -> None:
    run = Run(scheduler("orca", 1000), [(10, 600, 0)], interval_ns=10**12)
    assert len(run.batches) < 15
    assert run.metrics.totals.iterations == 600


def test_a_long_decode_is_few_batches_however_often_intervals_are_told() -> None:
    run = Run(scheduler("orca", 1000), [(10, 600, 0)], interval_ns=1500)
    assert len(run.batches) < 15
    assert len(run.intervals) > 400


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("orca", {"max_batch": 2}),
        ("vllm", {"async_scheduling": False, "max_num_seqs": 4, "max_num_batched_tokens": 8}),
        ("vllm", {"async_scheduling": False, "max_num_seqs": 2, "max_num_batched_tokens": 16}),  # others await a seat
        ("vllm-v0", {}),
        ("sarathi", {"chunk_size": 8}),
    ],
)
def test_batches_that_take_turns_are_priced_many_at_once(policy: str, options: dict[str, Any]) -> None:
    pricing = FormulaPricing(2)
    rows = [(4, 200, 0), (4, 200, 0), (4, 200, 0), (4, 200, 0)]
    run = Run(scheduler(policy, 1000, pipeline=2, **options), rows, pricing=pricing)
    assert run.metrics.totals.iterations > 390
    assert len(pricing.priced) < 40
    assert len(run.batches) < 40


@pytest.mark.parametrize("version", ["0.19", "0.33"])
@pytest.mark.parametrize("stages", [2, 3, 4, 5])
@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_fewer_batches_than_places_take_turns_as_they_would_one_by_one(version: str, stages: int, turns: int) -> None:
    """Decisions for nothing stand in the queue between theirs, in the same places after many steps at once."""
    rows = [*((4, 60 - 10 * turn, 0) for turn in range(turns)), (4, 5, 1500), (4, 5, 1503)]
    one_prompt_a_batch = {"max_num_seqs": 4, "max_num_batched_tokens": 4, "max_model_len": 100}
    runs = [
        Run(
            scheduler(
                "vllm", 1000, pipeline=stages, vllm_version=version, async_scheduling=False, **one_prompt_a_batch
            ),
            rows,
            pricing=StageTimes([10] * stages),
            max_steps=most,
        )
        for most in (1, 512)
    ]
    alone, ahead = ([*run.metrics.columns().items()] for run in runs)
    assert len(runs[1].batches) < len(runs[0].batches) / 2
    assert str(alone) == str(ahead)
    assert [run.metrics.totals.iterations for run in runs] == [len(runs[0].batches)] * 2
    for account in (run.time.account(run.metrics.totals.end_ns) for run in runs):
        assert account.busy_ns + account.waiting_ns + account.idle_ns == account.makespan_ns


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_a_place_of_which_no_more_is_said_has_one_stage(policy: str) -> None:
    place = Place(KVSpace(100, 4, BLOCK_BYTES, None), (FULL,), 4096)
    run = Run(policies.get(policy)().scheduler(place), [(4, 9, 0), (4, 9, 0)])
    assert [row["output"] for row in run.rows()] == [9, 9]


def test_a_full_pipeline_is_paced_by_its_slowest_stage() -> None:
    # Three stages of 10, 30 and 20; single-token requests, one a batch: the n-th leaves at 60 + 30 n.
    rows = [(1, 1, 0)] * 6
    run = Run(scheduler("orca", 100, pipeline=3, max_batch=1), rows, pricing=StageTimes([10, 30, 20]))
    assert [row["end"] for row in run.rows()] == [60 + 30 * n for n in range(6)]


def test_no_more_batches_than_stages_are_in_flight() -> None:
    # First stage very fast: without the limit all batches would start within 6 ns. At most 2 are in flight, so the
    # third starts when the first is done.
    run = Run(scheduler("orca", 100, pipeline=2, max_batch=1), [(1, 1, 0)] * 6, pricing=StageTimes([1, 99]))
    starts = sorted(row["scheduled"] for row in run.rows())
    assert starts == [0, 1, 100, 199, 298, 397]
    assert [row["end"] for row in run.rows()] == [100 + 99 * n for n in range(6)]


def test_a_request_has_one_token_in_the_pipeline_at_a_time() -> None:
    run = Run(scheduler("orca", 100, pipeline=2), [(1, 5, 0)], pricing=StageTimes([10, 10]))
    assert run.gaps[0].tolist() == [20, 20, 20, 20]


@pytest.mark.parametrize("ahead", [False, True])
def test_a_token_is_not_computed_before_the_one_before_it_whenever_it_is_decided(ahead: bool) -> None:
    policy = scheduler("vllm", 100, pipeline=2, async_scheduling=ahead)
    run = Run(policy, [(1, 5, 0)], pricing=StageTimes([10, 10]))
    assert run.gaps[0].tolist() == [20, 20, 20, 20]


def test_two_groups_of_requests_alternate_in_a_pipeline() -> None:
    # The second request arrives while the first is on stage 0: each decodes every 20 ns, offset by 10.
    run = Run(scheduler("orca", 100, pipeline=2), [(1, 5, 0), (1, 5, 3)], pricing=StageTimes([10, 10]))
    assert [row["end"] for row in run.rows()] == [100, 110]


def test_stage_spans_and_busy_time_are_told() -> None:
    run = Run(scheduler("orca", 100, pipeline=2), [(4, 3, 0)], stages=2)
    # Prompt: 1028 + 1029; decodes at contexts 4 and 5: 1011 + 1012, 1012 + 1013. Attention: 4 and 5, on both stages.
    spans = np.concatenate([done.stages_ns for done in run.batches]).tolist()
    assert spans == [[[0, 1028], [1028, 2057]], [[2057, 3068], [3068, 4080]], [[4080, 5092], [5092, 6105]]]
    assert np.concatenate([done.serials for done in run.batches]).tolist() == [0, 1, 2]
    assert run.busy_ns() == [2057 + 2023 + 2025 - 2 * 9, 2 * 9]


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_who_is_forgotten_cannot_go_again(policy: str) -> None:
    engine = Engine(scheduler(policy, 100), FormulaPricing())
    aborted = []
    for told in simulate([engine], [Request(0, 0, 10, 9, abort_ns=500), Request(1, 0, 10, 9)]):
        if isinstance(told, Aborted):
            aborted.append(told.request.id)
            engine.abort(told.request, told.now)
    assert aborted == [0] and engine.idle()


@pytest.mark.parametrize(
    ("abort", "told", "tokens"),
    [
        (500, 1070, 0),  # during the prompt's step: it takes effect as the step ends, before the token is counted
        (1070, 1070, 0),  # at the very end of a step: that token is lost
        (1071, 2087, 1),
        (10**6, None, 3),  # after its end: nothing
    ],
)
def test_an_abort_takes_effect_before_the_next_batch_is_accounted_for(
    abort: int, told: int | None, tokens: int
) -> None:
    policy = scheduler("orca", 100)
    run = Run(policy, [Request(0, 0, 10, 3, abort_ns=abort)])
    assert run.aborted == ([] if told is None else [(told, 0)])
    assert run.metrics.totals.generated_tokens == tokens
    assert len(run.rows()) == (told is None)
    assert policy.usage().free_blocks == 100
    assert run.engine.idle()


def test_an_abort_of_a_request_that_was_not_seen_yet_is_never_scheduled() -> None:
    run = Run(scheduler("orca", 100), [Request(0, 0, 10, 3), Request(1, 100, 5, 2, abort_ns=200)])
    assert run.aborted == [(1070, 1)]
    assert all(request.id == 0 for done in run.batches for request in done.batch.requests)


def test_an_abort_makes_room_for_who_waited() -> None:
    # Six blocks of 4: 0 holds four, 1 needs three. 0 goes at 2000, in the step that ends at 2107.
    rows = [Request(0, 0, 14, 3), Request(1, 10, 12, 1)]
    waits = Run(scheduler("orca", 6), rows).by_id()[1]["scheduled"]
    rows = [Request(0, 0, 14, 3, abort_ns=2000), Request(1, 10, 12, 1)]
    gone = Run(scheduler("orca", 6), rows).by_id()[1]["scheduled"]
    assert (gone, waits) == (1098 + 1021, 1098 + 1021 + 1022)


def test_a_static_batch_computes_an_aborted_request_to_its_end() -> None:
    rows = [Request(0, 0, 4, 9, abort_ns=1500), Request(1, 0, 4, 2)]
    policy = scheduler("none", 100)
    run = Run(policy, rows)
    kept = Run(scheduler("none", 100), [Request(0, 0, 4, 9), Request(1, 0, 4, 2)])
    assert run.metrics.totals.end_ns == kept.metrics.totals.end_ns
    assert [row["id"] for row in run.rows()] == [1]
    assert len(run.aborted) == 1 and run.metrics.totals.generated_tokens == 1 + 2
    assert policy.usage().free_blocks == 100


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_an_engine_forgets_who_has_gone(policy: str) -> None:
    """Else its memory would grow with the requests of a run; those of the last batches may still be known."""
    rows = [Request(0, 0, 4, 9, abort_ns=1500), Request(1, 0, 4, 2), Request(2, 90_000, 4, 2)]
    run = Run(scheduler(policy, 100), rows)
    assert [identity for _, identity in run.aborted] == [0]
    assert {request.id for request in _reachable(run.engine) if isinstance(request, Request)} <= {2}


def _reachable(root: object) -> Iterator[object]:
    """Return all that an object holds, and what that holds; classes, modules and functions apart."""
    seen, found = {id(root)}, [root]
    while found:
        one = found.pop()
        yield one
        for held in gc.get_referents(one):
            if id(held) not in seen and not isinstance(held, type | ModuleType | FunctionType):
                seen.add(id(held))
                found.append(held)


def test_an_abort_of_who_is_not_here_changes_nothing() -> None:
    """Its answer is complete, or it never came: the engine's time stays where it is, and nothing is told."""
    engine = Engine(scheduler("orca", 100), FormulaPricing())
    engine.abort(Request(0, 0, 4, 2), 50)
    assert engine.now == 0 and engine.idle()


def test_the_state_at_a_step_is_that_of_its_run() -> None:
    full, busy = KVUsage(10, 10, 0, 1), KVUsage(10, 7, 2, 0)
    line = UsageLine([(full, np.array([10])), (busy, np.array([7, 6, 4]))])
    assert [line.at(step) for step in range(4)] == [full, busy, busy.with_free(6), busy.with_free(4)]
    assert line.last == busy.with_free(4) and line.least_free_blocks == 4
    with pytest.raises(IndexError):
        line.at(4)
