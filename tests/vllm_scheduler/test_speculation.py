"""Tokens guessed ahead: steps worked out by hand, and what must hold whatever the settings and the requests."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from foundation.errors import InternalError, UserError
from orchestrator.engine.batch import Batch, Outcome
from orchestrator.engine.engine import Engine
from orchestrator.engine.records import CompletedBatch
from orchestrator.replay.case import read_case
from orchestrator.replay.run import replay
from orchestrator.requests.request import Request
from orchestrator.schedulers.acceptance import DrawnAcceptance, RecordedAcceptance
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig
from tests.orchestrator.serving import StageTimes, completed
from tests.vllm_scheduler.test_vllm_properties import check_blocks
from tests.vllm_scheduler.vllm_workloads import Workload, drive, stored_tokens, workloads

GOOD: dict[str, Any] = {
    "num_gpu_blocks": 11,
    "max_model_len": 40,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 16,
    "block_size": 4,
    "num_speculative_tokens": 2,
    "speculative_method": "eagle",
}
Step = tuple[list[int], list[int], list[int], list[int], int]


def served(rows: list[tuple[int, int]], right: list[int], **change: Any) -> tuple[list[Step], list[CompletedBatch]]:
    """Serve prompts and answers of so many tokens, all at once; `right`: drafts that are, by tokens known (modulo).

    Returns each step's tokens, tokens before them, logits, tokens that came out, and KV blocks in use when decided.
    """
    config = VllmSchedulerConfig(**{**GOOD, **change})
    requests = [Request(number, 0, prompt, output) for number, (prompt, output) in enumerate(rows)]
    acceptance = RecordedAcceptance({request.id: right for request in requests}, {})
    scheduler = VllmScheduler(config, acceptance=acceptance)
    batches = completed(Engine(scheduler, StageTimes([1])), requests)
    assert scheduler.usage().free_blocks == config.num_gpu_blocks - 1
    steps = []
    for done in batches:
        batch, counts = done.batch, {request.id: tokens for request, tokens in done.outcome.each()}
        out = [counts.get(request.id, 0) for request in batch.requests]
        used = done.usages.last.total_blocks - done.usages.last.free_blocks
        steps.append((batch.new_tokens.tolist(), batch.context_tokens.tolist(), batch.samples.tolist(), out, used))
    return steps, batches


def test_wrong_drafts_are_computed_anew() -> None:
    """Prompt of 5, answer of 7. Slots: what is computed and two more, but for the prompt; blocks of 4."""
    steps, _ = served([(5, 7)], [0, 1, 0, 2], async_scheduling=False)
    assert steps == [
        ([5], [0], [1], [1], 2),
        ([3], [5], [3], [2], 3),  # one known: one draft right; slots 5 + 3 + 2
        ([3], [7], [3], [3], 3),  # three known: both right; slots 7 + 3 + 2
        ([3], [10], [3], [1], 4),  # six known; the answer ends
    ]


def test_an_answer_ends_among_right_drafts() -> None:
    steps, batches = served([(5, 3)], [2], async_scheduling=False)
    assert [(new, out) for new, _, _, out, _ in steps] == [([5], [1]), ([3], [2])]
    assert [request.id for request in batches[-1].outcome.finished] == [0]
    assert batches[-1].batch.tokens().tolist() == [3], "the draft after the end was right, too"


def test_asynchronous_steps_count_drafts_until_they_are_known() -> None:
    """The step after is decided as if all drafts were right; what it computes is what is right."""
    steps, _ = served([(5, 7)], [0, 1, 0, 2], async_scheduling=True)
    assert [(new, context, out) for new, context, _, out, _ in steps] == [
        ([5], [0], [1]),
        ([3], [5], [2]),
        ([3], [7], [3]),
        ([3], [10], [1]),  # no step more: one token of this one is sure, and ends the answer
    ]


def test_drafts_share_the_budget_of_a_step() -> None:
    """Two requests of a step with 4 tokens: three for the first, one for the second, which verifies nothing."""
    steps, _ = served([(1, 9), (1, 9)], [2], async_scheduling=False, max_num_batched_tokens=4)
    assert [new for new, *_ in steps[:3]] == [[1, 1], [3, 1], [3, 1]]
    assert [out for *_, out, _ in steps[:3]] == [[1, 1], [3, 1], [3, 1]]


def test_a_draft_model_has_a_slot_of_each_request() -> None:
    steps, batches = served([(20, 2)], [2], async_scheduling=False, speculative_method="draft_model")
    assert [new for new, *_ in steps] == [[12], [8], [3]], "16 tokens less 4 requests"
    assert [done.batch.guesses for done in batches] == [2, 2, 2]


def test_no_drafts_where_the_longest_is_near() -> None:
    """40 tokens at most: a drafter that goes on by 2 runs up to 38."""
    steps, batches = served([(33, 20)], [2], async_scheduling=False, max_num_batched_tokens=64)
    assert [(new, out) for new, _, _, out, _ in steps] == [([33], [1]), ([3], [3]), ([3], [3])]
    assert [done.batch.guesses for done in batches] == [2, 2, 0]
    for prompt, last, guesses in ((36, 3, [2, 0]), (37, 2, [2, 0]), (38, 1, [2, 0]), (39, 0, [0])):
        steps, batches = served([(prompt, 20)], [2], async_scheduling=False, max_num_batched_tokens=64)
        more = [([last], [last])] if last else []
        assert [(new, out) for new, _, _, out, _ in steps] == [([prompt], [1]), *more]
        assert [done.batch.guesses for done in batches] == guesses


def test_ngrams_are_searched_by_the_host() -> None:
    requests = [Request(0, 0, 5, 6)]
    config = VllmSchedulerConfig(**{**GOOD, "speculative_method": "ngram"})
    scheduler = VllmScheduler(config, acceptance=RecordedAcceptance({0: [2]}, {0: [0, 0, 1, 5]}))
    batches = completed(Engine(scheduler, StageTimes([1])), requests)
    assert not config.decides_ahead
    assert [(done.batch.new_tokens.tolist(), done.batch.guesses) for done in batches] == [
        ([5], 0),
        ([1], 0),
        ([2], 0),  # two known: one found
        ([1], 0),  # four known: none
        ([1], 0),
    ]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(workloads(speculates=True))
def test_no_block_is_lost_and_no_token(workload: Workload) -> None:
    config = workload.config
    most = config.num_speculative_tokens + 1
    tokens: Counter[int] = Counter()

    def decided(scheduler: VllmScheduler, batch: Batch) -> None:
        check_blocks(scheduler)
        assert sum(batch.new_tokens) <= config.step_tokens
        assert all(1 <= logits <= new for new, logits in zip(batch.new_tokens, batch.samples, strict=True) if logits)
        assert all(0 <= brings <= logits <= most for brings, logits in zip(batch.tokens(), batch.samples, strict=True))
        adapters = {request.adapter for request in batch.requests} - {None}
        assert not config.max_loras or len(adapters) <= config.max_loras

    def updated(scheduler: VllmScheduler, outcome: Outcome) -> None:
        check_blocks(scheduler)
        assert all(1 <= count <= most for _, count in outcome.each())
        tokens.update({request.id: count for request, count in outcome.each()})

    try:
        scheduler, batches = drive(workload, decided=decided, updated=updated, most_steps=2000)
    except AssertionError as error:
        if config.policy != "priority" or "does not end" not in str(error):  # two may drive each other out for ever
            raise
        return
    assert scheduler.usage().free_blocks == config.num_gpu_blocks - 1
    assert sorted(request.id for done in batches for request in done.outcome.finished) == sorted(
        request.id for request in workload.requests
    )
    for request in workload.requests:
        assert tokens[request.id] == stored_tokens(request, config) + 1 - request.prompt_tokens


@settings(max_examples=60, deadline=None, derandomize=True)
@given(workloads(policies=["fcfs"], speculates=True))
def test_results_depend_on_nothing_but_the_draws(workload: Workload) -> None:
    def seen(max_steps: int) -> list[Any]:
        return [
            (done.batch.ids.tolist(), done.batch.samples.tolist(), done.ends_ns.tolist(), list(done.outcome.each()))
            for done in drive(workload, max_steps=max_steps)[1]
        ]

    assert seen(1) == seen(512)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(("rate", "a_step"), [(0.0, 1), (1.0, 3)])
def test_sure_rates_bring_as_many_tokens_a_step(rate: float, a_step: int, ahead: bool) -> None:
    config = VllmSchedulerConfig(**{**GOOD, "async_scheduling": ahead})
    scheduler = VllmScheduler(config, acceptance=DrawnAcceptance(0, (rate, rate)))
    batches = completed(Engine(scheduler, StageTimes([1])), [Request(0, 0, 5, 13)])
    counts = [count for done in batches for _, count in done.outcome.each()]
    assert counts == [1] + [a_step] * (12 // a_step)


def test_speculation_that_is_never_right_serves_in_the_order_of_none() -> None:
    requests = [Request(number, 2 * number, 6 + number, 5) for number in range(4)]
    without = VllmSchedulerConfig(**{**GOOD, "num_speculative_tokens": 0, "speculative_method": None})
    never = VllmScheduler(VllmSchedulerConfig(**GOOD), acceptance=DrawnAcceptance(0, (0.0, 0.0)))
    finished = [
        [request.id for done in completed(Engine(one, StageTimes([1])), requests) for request in done.outcome.finished]
        for one in (VllmScheduler(replace(without, async_scheduling=True)), never)
    ]
    assert finished[0] == finished[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speculative_method": "medusa"}, "unknown speculative_method 'medusa'"),
        ({"speculative_method": None}, "speculative_method: speculation needs a method and a number of tokens"),
        ({"num_speculative_tokens": 0}, "num_speculative_tokens: speculation needs"),
        ({"num_speculative_tokens": -1}, "num_speculative_tokens: -1 is not"),
        ({"speculative_method": "ngram", "async_scheduling": True}, "async_scheduling: drafts by ngram"),
        ({"version": "0.33"}, "version: speculation is not modelled for 0.33"),
        ({"pipeline_stages": 2}, "pipeline_stages: speculation is not modelled on 2 pipeline stages"),
        (
            {"speculative_method": "draft_model", "max_num_batched_tokens": 4},
            r"max_num_batched_tokens: 4 tokens a step leave nothing beside a draft token for each of .* \(4\) requests",
        ),
        ({"max_loras": -1}, "max_loras: -1 is not"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        VllmSchedulerConfig(**{**GOOD, **change})


def test_settings_that_can_just_be() -> None:
    tight = {**GOOD, "speculative_method": "draft_model", "max_num_batched_tokens": 5}
    assert VllmSchedulerConfig(**tight).step_tokens == 1


@pytest.mark.parametrize(
    ("method", "by_default", "asked"), [("eagle", True, True), ("mtp", True, True), ("draft_model", False, True)]
)
def test_who_runs_ahead(method: str, by_default: bool, asked: bool) -> None:
    config = VllmSchedulerConfig(**{**GOOD, "speculative_method": method})
    assert (config.decides_ahead, config.places) == (by_default, 1 + by_default)
    assert replace(config, async_scheduling=True).decides_ahead is asked


def test_nothing_says_what_becomes_of_drafts() -> None:
    with pytest.raises(InternalError, match="tokens are guessed ahead, and nothing says what becomes of them"):
        VllmScheduler(VllmSchedulerConfig(**GOOD))


CASE: dict[str, Any] = {
    **GOOD,
    "latency_model": {"a_us": 1000, "b_us_per_token": 0, "c_us_per_kv_token": 0},
    "requests": [{"id": "a", "arrival": 0, "prompt_len": 5, "output_len": 7, "accepted": [0, 1, 0, 2]}],
}


def test_a_case_says_what_was_right(tmp_path: Path) -> None:
    path = tmp_path / "case.json"
    path.write_text(json.dumps(CASE | {"async_scheduling": False}))
    steps = replay(read_case(path, "0.19"))["steps"]
    assert [step[2] for step in steps] == [{"a": 5}, {"a": 3}, {"a": 3}, {"a": 3}]


@pytest.mark.parametrize(
    ("change", "of_request", "message"),
    [
        ({}, {"accepted": [-1]}, r"requests\[0\].accepted"),
        ({}, {"proposed": ["1"]}, r"requests\[0\].proposed"),
        ({}, {"lora": 0}, r"requests\[0\].lora: 0 is not a whole number from 1"),
        ({"speculative_method": "medusa"}, {}, "speculative_method"),
        (
            {"num_speculative_tokens": 0},
            {},
            "num_speculative_tokens: speculation needs a method and",
        ),
        ({"num_speculative_tokens": -1}, {}, "num_speculative_tokens: -1 is not a whole number from 0"),
        ({"vllm_version": "0.33"}, {}, "vllm_version: speculation is not modelled for 0.33"),
        ({"pipeline_parallel_size": 2}, {}, "pipeline_parallel_size: speculation is not modelled on 2"),
    ],
)
def test_cases_that_cannot_be(change: dict[str, Any], of_request: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "case.json"
    path.write_text(json.dumps(CASE | change | {"requests": [CASE["requests"][0] | of_request]}))
    with pytest.raises(UserError, match=message):
        read_case(path, "0.19")
