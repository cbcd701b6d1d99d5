"""Sarathi's rules: decodes in every step, prompts in chunks of what is left, the latest loses its place.

Tables are worked out by hand, for blocks of 4 tokens; how a row is written says test_vllm_v0.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from orchestrator.engine.batch import Batch
from orchestrator.requests.request import Request
from orchestrator.schedulers.sarathi import SarathiScheduler
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.conservation import check_conserved
from tests.orchestrator.serving import FormulaPricing, Run, scheduler
from tests.orchestrator.steps import add, ids, told
from tests.orchestrator.test_stretches import again, workloads


def sarathi(blocks: int, **options: Any) -> SarathiScheduler:
    policy = scheduler("sarathi", blocks, **options)
    assert isinstance(policy, SarathiScheduler)
    return policy


def test_decodes_come_first_then_chunks_then_new_prompts() -> None:
    """8 tokens a step; requests 0, 1 and 2 are 2 + 6 tokens, 3 is 7 + 3, 4 is 5 + 1.

    step  decodes    chunks       blocks held      what happens
    0                2 2 2 | 2    1 1 1 2          4 waits for tokens; 3 has the blocks of its whole prompt
    1     0 1 2      3: 5         1 1 1 2          the rest of 3, its first token
    2     0 1 2 3    4: 4         1 1 1 2 2
    3     0 1 2 3    4: 1         2 2 2 3 2        3 and 4 are done
    4     0 1 2                   2 2 2
    5     0 1 2                   2 2 2            done
    """
    policy = sarathi(30, chunk_size=8)
    add(policy, [(2, 6), (2, 6), (2, 6), (7, 3), (5, 1)])
    assert [told(policy) for _ in range(6)] == [
        "0:2@0 1:2@0 2:2@0 3:2@0 | 25",
        "0:1@2 1:1@2 2:1@2 3:5@2 | 25",
        "0:1@3 1:1@3 2:1@3 3:1@7 4:4@0 | 23",
        "0:1@4 1:1@4 2:1@4 3:1@8 4:1@4 | 19",
        "0:1@5 1:1@5 2:1@5 | 24",
        "0:1@6 1:1@6 2:1@6 | 24",
    ]
    assert not policy.has_unfinished() and policy.usage().free_blocks == 30


def test_the_latest_loses_its_place_also_in_the_middle_of_its_prompt() -> None:
    """6 blocks, 4 tokens a step; request 0 is 4 + 7 tokens, 1 is 16 + 1.

    step  rows        blocks held  what happens
    0     0           1
    1     0, 1: 3     2 4          1 takes the blocks of all its prompt
    2     0           2            0 must find a block free, though it has room: 1 goes, and is not let in at once
    3     0, 1: 3     2 4          1 begins anew
    4     0           2            the same again
    5     0           3            now 1 does not fit
    6     0           3            its last token
    7-10  1           4            4 tokens each
    """
    policy = sarathi(6, chunk_size=4)
    add(policy, [(4, 7), (16, 1)])
    assert [told(policy) for _ in range(11)] == [
        "0:4@0 | 5",
        "0:1@4 1:3@0 | 0",
        "0:1@5 -1 | 4",
        "0:1@6 1:3@0 | 0",
        "0:1@7 -1 | 4",
        "0:1@8 | 3",
        "0:1@9 | 3",
        "1:4@0 | 2",
        "1:4@4 | 2",
        "1:4@8 | 2",
        "1:4@12 | 2",
    ]
    assert not policy.has_unfinished() and policy.usage().free_blocks == 6


def test_what_is_computed_anew_is_the_prompt_and_the_answer_so_far() -> None:
    """5 blocks, 8 tokens a step; request 0 is 4 + 9 tokens, 1 is 8 + 3.

    step  rows            blocks held  what happens
    0     0, 1: 4         1 2
    1     0, 1: 4         2 2
    2     0 and 1         2 3          all blocks are taken
    3     0               2            1 goes with 10 tokens
    4     0, 1: 7         2 3          7 of the 10
    5     0               3            0 needs a block: 1 goes again, and does not fit until 0 is done
    6-8   0               3
    9     1: 8              3
    10    1: 2              3          its third token
    """
    policy = sarathi(5, chunk_size=8)
    add(policy, [(4, 9), (8, 3)])
    assert [told(policy) for _ in range(11)] == [
        "0:4@0 1:4@0 | 2",
        "0:1@4 1:4@4 | 1",
        "0:1@5 1:1@8 | 0",
        "0:1@6 -1 | 3",
        "0:1@7 1:7@0 | 0",
        "0:1@8 -1 | 2",
        "0:1@9 | 2",
        "0:1@10 | 2",
        "0:1@11 | 2",
        "1:8@0 | 2",
        "1:2@8 | 2",
    ]
    assert not policy.has_unfinished() and policy.usage().free_blocks == 5


def test_an_admission_leaves_the_watermark() -> None:
    """10 blocks, of which admissions leave 2: 1 waits, and nobody overtakes it."""
    policy = sarathi(10, watermark=0.2)
    add(policy, [(24, 2), (12, 1), (4, 1)])
    assert [told(policy) for _ in range(3)] == ["0:24@0 | 4", "0:1@24 | 3", "1:12@0 2:4@0 | 6"]
    fully = "it needs 9 KV blocks of 4 tokens, the cache holds 10, 2 of which stay free at admission"
    assert policy.unfit(Request(0, 0, 33, 1), 33) == fully and policy.unfit(Request(0, 0, 32, 1), 32) is None


def test_seats() -> None:
    policy = sarathi(40, max_num_seqs=2)
    add(policy, [(4, 2), (4, 3), (4, 1)])
    assert [told(policy) for _ in range(3)] == ["0:4@0 1:4@0 | 38", "0:1@4 1:1@4 | 36", "1:1@5 2:4@0 | 37"]


def test_a_request_is_in_one_batch_of_a_pipeline() -> None:
    policy = sarathi(20, pipeline=2, chunk_size=4)
    add(policy, [(4, 3), (6, 2)])
    first, second = policy.schedule(0), policy.schedule(0)
    assert first is not None and second is not None
    assert (ids(first), second.new_tokens.tolist(), second.samples.tolist()) == ([0], [4], [0])
    policy.update(first, set(), 1)
    third = policy.schedule(1)
    assert third is not None and (ids(third), third.context_tokens.tolist()) == ([0], [4])
    assert list(policy.update(second, set(), 2).emitted) == []
    fourth = policy.schedule(2)
    assert fourth is not None and (ids(fourth), fourth.new_tokens.tolist(), fourth.samples.tolist()) == ([1], [2], [1])


def test_who_loses_its_place_to_batches_in_flight_is_told_of_with_the_next_batch() -> None:
    """4 blocks, 2 of them in flight with 1: 0 finds none for its ninth token, and would need 3 to begin anew."""
    policy = sarathi(4, pipeline=2, chunk_size=8)
    add(policy, [(8, 3), (7, 3)])
    first, second = policy.schedule(0), policy.schedule(0)
    assert first is not None and second is not None
    policy.update(first, set(), 1)
    assert policy.schedule(1) is None and policy.usage().free_blocks == 2
    policy.update(second, set(), 2)
    third = policy.schedule(2)
    assert third is not None and ids(third) == [1] and [request.id for request in third.preempted] == [0]


def test_a_request_whose_prompt_is_computed_goes_on_as_a_decode() -> None:
    run = Run(sarathi(10), [(8, 3, 0), (8, 2, 0)], computed=True, max_steps=1)
    rows = [(done.batch.new_tokens.tolist(), done.batch.context_tokens.tolist()) for done in run.batches]
    assert rows == [([1, 1], [8, 8]), ([1, 1], [9, 9]), ([1], [10])]


def test_a_sequence_ends_at_the_longest() -> None:
    policy = sarathi(20, max_model_len=16)
    assert policy.rejects(Request(0, 0, 16, 1)) == "its prompt of 16 tokens is not below max_model_len (16)"
    assert policy.rejects(Request(0, 0, 15, 9)) is None
    assert [row["output"] for row in Run(policy, [(10, 30, 0)]).rows()] == [6]


def test_decodes_do_not_wait_for_a_long_prompt() -> None:
    """The gaps between the tokens of an answer, beside a prompt of 400 tokens: short with chunks, one long without."""

    def longest_gap(name: str, **options: Any) -> int:
        run = Run(scheduler(name, 200, **options), [(4, 40, 0), (400, 2, 3000)], pricing=FormulaPricing(per_token=100))
        finished = [row["id"] for row in run.rows()]
        return int(run.gaps[finished.index(0)].max())

    assert longest_gap("vllm-v0") > 400 * 100
    assert longest_gap("sarathi", chunk_size=20) < 1000 + 20 * 100 + 500


OPTIONS: list[dict[str, Any]] = [
    {"chunk_size": 8},
    {"chunk_size": 5, "watermark": 0.1, "max_num_seqs": 6},
    {"chunk_size": 64},
    {"chunk_size": 8, "pipeline": 2},
    {"chunk_size": 8, "pipeline": 3, "watermark": 0.05},
]


class Watched(SarathiScheduler):
    """Checks after each decision that no block is lost, and that no decode is left out."""

    def schedule(self, now: int) -> Batch | None:
        decodes = [member.request for member in self._running if member.decodes]
        batch = super().schedule(now)
        flying = [member for flight in self._ledger.flights for member in flight.members]
        assert len({*flying, *self._running}) == len(flying) + len(self._running) <= self._max_num_seqs
        assert self._kv.free + sum(map(self._kv.held, (*flying, *self._running))) == self._kv.total
        if batch is not None:
            assert all(request in batch.requests or request in batch.preempted for request in decodes)
            assert 0 < int(batch.new_tokens.sum()) <= max(self._chunk_size, len(decodes))
        return batch


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_conserved(options: dict[str, Any]) -> None:
    @reaches(0.3, examples=40, rows=workloads(busy=True), blocks=st.integers(20, 26))
    def holds(reached: Reached, rows: list[Request], blocks: int) -> None:
        policy = sarathi(blocks, **options)
        policy.__class__ = Watched
        run = Run(policy, again(rows), stages=options.get("pipeline", 1))
        check_conserved(run, rows, swaps=False)
        if run.metrics.totals.preemptions:
            reached()

    holds()
