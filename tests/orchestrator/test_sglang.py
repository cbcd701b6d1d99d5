"""SGLang's rules: steps worked out by hand, decisions of its own functions, what is conserved, what servers decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from foundation.errors import UserError
from orchestrator.deployment import Deployment
from orchestrator.engine.batch import Batch
from orchestrator.kv_memory.radix import RadixKV
from orchestrator.kv_memory.store import KVSpace
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.sglang import SglangConfig, SglangScheduler
from orchestrator.schedulers.sglang.server import MIB, chunked_prefill_size, mem_fraction_static
from orchestrator.settings.specification import RunSpec, from_flags
from orchestrator.simulation import prepare
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.serving import Run, scheduler

CASES = [json.loads(line) for line in Path(__file__).with_name("sglang_decisions.jsonl").read_text().splitlines()]
Rows = list[tuple[int, int, int]]


def policy(tokens: int, **options: Any) -> SglangScheduler:
    made = scheduler("sglang", tokens // options.get("page_size", 1), options.get("page_size", 1), **options)
    assert isinstance(made, SglangScheduler)
    return made


def conserved(sglang: SglangScheduler) -> int:
    """Return the tokens that are free, in the tree, or held by a request alone: what there are, always."""
    kv = sglang.kv
    holders = {entry for flight in sglang._ledger.flights for entry in flight.members}
    holders |= {entry for lane in sglang.lanes for entry in lane.running}
    holders |= {entry for lane in sglang.lanes if lane.last is not None for entry in lane.last.entries}
    holders |= {sglang._cut} if sglang._cut is not None else set()
    alone = sum(entry.room - entry.shared for entry in holders)
    return kv.available + kv.tree.evictable + kv.tree.protected + alone


class Steps:
    """Drives a scheduler step by step; who is done is known from the answers' lengths."""

    def __init__(self, sglang: SglangScheduler, requests: list[Request]) -> None:
        self.sglang, self.now = sglang, 0
        self.left = {request.id: request.output_tokens for request in requests}
        self.flying: list[Batch] = []
        for request in requests:
            sglang.add(Admission(request), 0)

    def decide(self) -> Rows | None:
        """Decide a step, and let all batches end that SGLang would have processed by the next decision."""
        batch = self.sglang.schedule(self.now)
        assert conserved(self.sglang) == self.sglang.kv.capacity
        self.now += 1
        if self.flying or not self.sglang.config.runs_ahead:
            self.flying += [batch] if batch is not None else []
            if self.flying:
                self.land(self.flying.pop(0))
        elif batch is not None:
            self.flying.append(batch)
        return None if batch is None else rows(batch)

    def land(self, batch: Batch) -> None:
        ended = set()
        for request, tokens in zip(batch.requests, batch.tokens().tolist(), strict=True):
            if tokens and request.id in self.left:
                self.left[request.id] -= tokens
                ended |= {request} if not self.left[request.id] else set()
        for request in self.sglang.update(batch, ended, self.now).finished:
            del self.left[request.id]
        assert conserved(self.sglang) == self.sglang.kv.capacity


def rows(batch: Batch) -> Rows:
    return list(zip(batch.ids.tolist(), batch.new_tokens.tolist(), batch.context_tokens.tolist(), strict=True))


def test_chunks_prefixes_and_decodes_by_hand() -> None:
    """8 prompt tokens a step. Request 0: 10 tokens and 3 of output; 1: 8, the first 6 like those of 0, and 2.

    step  computes                              because
    0     8 of 0                                the chunk is full, so 1 is not begun
    1     the last 2 of 0; 2 of 1               what 0 has computed is in the tree: 1 finds 6
    2     a token of 0 and of 1                 nobody waits; 1 is done
    3     a token of 0                          done
    """
    first = Request(0, 0, 10, 3, prompt_token_ids=[*range(10)])
    second = Request(1, 0, 8, 2, prompt_token_ids=[0, 1, 2, 3, 4, 5, 90, 91])
    sglang = policy(60, chunked_prefill_size=8, disable_overlap_schedule=True)
    steps = Steps(sglang, [first, second])
    assert steps.decide() == [(0, 8, 0)]
    assert steps.decide() == [(0, 2, 8), (1, 2, 6)]
    assert steps.decide() == [(0, 1, 10), (1, 1, 8)]
    assert steps.decide() == [(0, 1, 11)]
    assert steps.decide() is None and not steps.left
    # In the tree: the prompt of 0 and 2 tokens of output, of 1 what differs (2) and 1 token of output.
    assert (sglang.kv.available, sglang.kv.tree.evictable) == (60 - 15, 15)


def test_retraction_and_coming_back_by_hand() -> None:
    """20 tokens of KV cache, next to nothing set aside for running requests; prompts of 5, outputs of 8.

    step  computes          KV cache, and why
    0     prompt of 0       5; of the 15 others, 5 + 8 are promised to 0, too few for 1 (13) to begin
    1     prompt of 1       10; by now next to nothing is promised, and 13 < 15
    2-6   0 and 1           20: both have 6 tokens of output
    7     0                 none left. Of equals the last goes: 1 loses 10, its prompt in the tree is evicted
    8     0                 1 needs 11 + 2 (two tokens are left for it), more than what is left of 9 beside 0; 0 is done
    9     nothing           all have left, so that others may come
    10    11 of 1           its prompt and 6 tokens of output; what 0 has left behind is evicted for it
    11    1                 done
    """
    sglang = policy(20, schedule_conservativeness=0.001, disable_overlap_schedule=True)
    steps = Steps(sglang, [Request(0, 0, 5, 8), Request(1, 0, 5, 8)])
    assert steps.decide() == [(0, 5, 0)]
    assert steps.decide() == [(1, 5, 0)]
    for step in range(5):
        assert steps.decide() == [(0, 1, 5 + step), (1, 1, 5 + step)]
    assert (sglang.kv.available, sglang.kv.tree.evictable) == (0, 0)
    assert steps.decide() == [(0, 1, 10)]
    assert sglang.ratio.value == 1.0, "6 decoded and 20 steps more, of 8 that are allowed"
    assert [entry.request.id for entry in sglang.waiting] == [1]
    assert (sglang.kv.available, sglang.kv.tree.evictable) == (9, 0)
    assert steps.decide() == [(0, 1, 11)]
    assert steps.decide() is None and sglang.next_decision(0) == 0
    assert steps.decide() == [(1, 11, 0)]
    assert steps.decide() == [(1, 1, 11)]
    assert steps.decide() is None and not steps.left


def test_a_step_decided_ahead_computes_a_row_in_vain() -> None:
    """Who is done is known a step late, and what that row computed stays in the tree as well."""
    sglang = policy(40)
    steps = Steps(sglang, [Request(0, 0, 4, 2)])
    assert [steps.decide() for _ in range(4)] == [[(0, 4, 0)], [(0, 1, 4)], [(0, 1, 5)], None]
    assert sglang.kv.tree.evictable == 4 + 2
    in_turn = policy(40, disable_overlap_schedule=True)
    steps = Steps(in_turn, [Request(0, 0, 4, 2)])
    assert [steps.decide() for _ in range(3)] == [[(0, 4, 0)], [(0, 1, 4)], None]
    assert in_turn.kv.tree.evictable == 4 + 1, "the last token of an answer is not computed"


def test_a_token_in_flight_is_lost_with_its_place() -> None:
    """As above, but decided ahead: 1 loses the token that it would have got from the batch in flight."""
    sglang = policy(20, schedule_conservativeness=0.001)
    run = Run(sglang, [Request(0, 0, 5, 8), Request(1, 0, 5, 8)], max_steps=1)
    lost = [done.batch for done in run.batches if done.batch.brings is not None]
    assert [(batch.ids.tolist(), batch.tokens().tolist()) for batch in lost] == [([0, 1], [1, 0])]
    again = next(done.batch for done in run.batches if done.batch.new_tokens.max() > 5)
    assert rows(again) == [(1, 5 + 5, 0)], "5 tokens of output are known, the sixth is computed anew"
    assert [row["output"] for row in run.rows()] == [8, 8]
    assert run.metrics.totals.generated_tokens == 16 and run.metrics.totals.preemptions == 1


@pytest.mark.parametrize("ahead", [False, True])
def test_a_prompt_that_was_cut_may_take_the_place_of_the_last_that_decodes(ahead: bool) -> None:
    """40 tokens; 1 is computed a token a step beside the decodes of 0. Where SGLang stops, both are served.

    When 0 has 2 + 19 and 1 has 19, nothing is left for either. 1 waits, 0 finds no page and nobody else to retract.
    """
    sglang = policy(
        40,
        schedule_conservativeness=0.001,
        chunked_prefill_size=2,
        enable_mixed_chunk=True,
        disable_overlap_schedule=not ahead,
    )
    run = Run(sglang, [Request(0, 0, 2, 36), Request(1, 1500, 20, 1)], max_steps=1)
    retracted = [done.batch for done in run.batches if done.batch.preempted]
    assert [[request.id for request in batch.preempted] for batch in retracted] == [[0]]
    assert retracted[0].requests == [], "nobody is left to decode"
    assert {row["id"]: row["output"] for row in run.rows()} == {0: 36, 1: 1}
    assert sglang.kv.reachable == 40


def test_prompts_come_first_or_mixed() -> None:
    rows_ = [Request(0, 0, 4, 4), Request(1, 0, 9, 2)]
    apart = Steps(policy(100, chunked_prefill_size=6, disable_overlap_schedule=True), rows_)
    assert [apart.decide() for _ in range(3)] == [[(0, 4, 0), (1, 2, 0)], [(1, 6, 2)], [(1, 1, 8)]]
    mixed = Steps(policy(100, chunked_prefill_size=6, enable_mixed_chunk=True, disable_overlap_schedule=True), rows_)
    # A decode takes a token of the chunk.
    assert [mixed.decide() for _ in range(2)] == [[(0, 4, 0), (1, 2, 0)], [(1, 5, 2), (0, 1, 4)]]
    assert mixed.decide() == [(1, 2, 7), (0, 1, 5)]


def waiting(sglang: SglangScheduler) -> list[int]:
    sglang._order.sort(sglang.waiting)
    return [entry.request.id for entry in sglang.waiting]


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("fcfs", [0, 1, 2, 3, 4]),
        ("lof", [3, 0, 1, 2, 4]),
        ("lpm", [2, 4, 0, 3, 1]),  # 40 and 20 tokens are there; 1 shares 40 with 0, so it steps back
        ("dfs-weight", [2, 4, 0, 1, 3]),
    ],
)
def test_the_order_of_those_that_wait(name: str, order: list[int]) -> None:
    sglang = policy(2000, schedule_policy=name, disable_overlap_schedule=True)
    steps = Steps(sglang, [Request(9, 0, 60, 1, prompt_token_ids=[*range(60)])])
    while steps.left:
        steps.decide()
    prompts = [[1000, *range(100, 139)] * 2, [1000, *range(100, 139), 7], [*range(40), 8], [5] * 50, [*range(20), 6, 7]]
    for number, ids in enumerate(prompts):
        most = 50 if number == 3 else 5
        sglang.add(Admission(Request(number, 0, len(ids), 5, prompt_token_ids=ids, max_tokens=most)), 9)
    assert waiting(sglang) == order
    assert waiting(sglang) == order, "it is kept"


def test_more_than_128_are_not_sorted() -> None:
    for count, first in ((128, 127), (129, 0)):
        sglang = policy(20_000, schedule_policy="lpm", disable_overlap_schedule=True)
        steps = Steps(sglang, [Request(999, 0, 9, 1, prompt_token_ids=[*range(9)])])
        while steps.left:
            steps.decide()
        for number in range(count):
            last = number == count - 1
            ids = [*range(9)] if last else [100 + number, 1, 1]
            sglang.add(Admission(Request(number, 0, len(ids), 5, prompt_token_ids=ids)), 9)
        assert waiting(sglang)[0] == first


def test_random_orders_are_drawn_of_seed_and_draw() -> None:
    def orders(seed: int) -> list[list[int]]:
        sglang = policy(2000, schedule_policy="random", random_seed=seed)
        for number in range(8):
            sglang.add(Admission(Request(number, 0, 4, 4)), 0)
        return [waiting(sglang) for _ in range(3)]

    assert orders(1) == orders(1) != orders(2)
    assert len({tuple(order) for order in orders(1)}) == 3


def test_prompts_computed_elsewhere_decode_at_once() -> None:
    sglang = policy(40, disable_overlap_schedule=True)
    sglang.add(Admission(Request(0, 0, 6, 2), computed_tokens=6), 0)
    first, second = sglang.schedule(0), None
    assert first is not None and rows(first) == [(0, 1, 6)]
    assert conserved(sglang) == 40 and sglang.kv.available == 40 - 7
    assert sglang.update(first, set(), 1).finished == []
    second = sglang.schedule(1)
    assert second is not None and rows(second) == [(0, 1, 7)]
    assert len(sglang.update(second, set(second.requests), 2).finished) == 1
    assert not sglang.schedule(2) and not sglang.has_unfinished()


def test_a_history_that_is_there_is_not_computed() -> None:
    sglang = policy(40, disable_overlap_schedule=True)
    sglang.add(Admission(Request(0, 0, 10, 2), computed_tokens=6), 0)
    batch = sglang.schedule(0)
    assert batch is not None and rows(batch) == [(0, 4, 6)]
    assert sglang.kv.available == 30


@pytest.mark.parametrize("options", [{}, {"pipeline": 2}, {"chunked_prefill_size": 8}])
def test_prompts_computed_elsewhere_are_served_to_the_end(options: dict[str, Any]) -> None:
    many = [Request(n, 100 * n, 5 + n, 9) for n in range(12)]
    sglang = policy(60, **options)
    run = Run(sglang, many, stages=options.get("pipeline", 1), computed=True)
    assert sorted(row["output"] for row in run.rows()) == [9] * 12
    assert sglang.kv.tree.protected == 0 and sglang.kv.free == 60


@pytest.mark.parametrize("number", range(len(CASES)))
def test_decisions_are_those_of_sglangs_own_functions(number: int) -> None:
    """Recorded from the scheduler's own functions of SGLang 0.5.5.post3, over a stand-in for tensors and pools."""
    case = CASES[number]
    config = SglangConfig(**case["settings"])
    kv = RadixKV(KVSpace(config.capacity // config.page_size, config.page_size, 1), shares=config.radix_cache)
    steps = Steps(SglangScheduler(config, kv), [])
    for step, expected in enumerate(case["steps"]):
        for identity, given_ in enumerate(case["requests"]):
            if given_["at"] == step:
                prompt, output = given_["prompt"], given_["output"]
                request = Request(
                    identity, 0, len(prompt), len(output), prompt_token_ids=prompt, output_token_ids=output,
                    max_tokens=given_["max_tokens"],
                )  # fmt: skip
                steps.left[identity] = len(output)
                steps.sglang.add(Admission(request), step)
        batch = steps.sglang.schedule(step)
        decided = None if batch is None else [list(row) for row in rows(batch)]
        assert [decided, kv.available, kv.tree.evictable] == expected
        steps.now = step + 1
        steps.flying += [] if batch is None else [batch]
        if len(steps.flying) == steps.sglang.places or (batch is None and steps.flying):
            steps.land(steps.flying.pop(0))
    assert not steps.left


def test_the_recorded_decisions_have_all_there_is() -> None:
    given_ = [case["settings"] for case in CASES]
    assert {(s["schedule_policy"], s["overlap"], s["enable_mixed_chunk"]) for s in given_} == {
        (name, ahead, mixed)
        for name in ("fcfs", "lpm", "dfs-weight", "lof")
        for ahead in (True, False)
        for mixed in (True, False)
    }
    assert {s["page_size"] for s in given_} == {1, 2, 4} and {s["radix_cache"] for s in given_} == {True, False}


OPTIONS: list[dict[str, Any]] = [
    {},
    {"disable_overlap_schedule": True, "schedule_policy": "random"},
    {"chunked_prefill_size": 8, "enable_mixed_chunk": True},
    {"chunked_prefill_size": 8, "page_size": 4},
    {"pipeline": 2},
    {"pipeline": 3, "chunked_prefill_size": 12, "page_size": 2, "schedule_policy": "lpm"},
    {"disable_radix_cache": True, "ignore_eos": True},
    {"schedule_policy": "dfs-weight", "max_running_requests": 3},
]


@st.composite
def workloads(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Requests that share prefixes; some without token ids, some with clients that go, some that end early."""
    count = draw(st.integers(1, 10))
    made = []
    for _ in range(count):
        prompt, output = draw(st.integers(1, 30)), draw(st.integers(1, 40))
        one: dict[str, Any] = {"prompt_tokens": prompt, "output_tokens": output}
        one["arrival_ns"] = draw(st.sampled_from([0, 0, 0, 5000, 20_000, 40_000]))
        if draw(st.booleans()):
            common = draw(st.integers(0, prompt))
            one["prompt_token_ids"] = [7] * common + [draw(st.integers(0, 1)) for _ in range(prompt - common)]
            one["output_token_ids"] = draw(st.sampled_from([None, [7] * output]))
        kind = draw(st.integers(0, 4))
        if kind == 1:
            one["abort_ns"] = one["arrival_ns"] + draw(st.integers(0, 40_000))
        if kind > 2:
            one["max_tokens"] = output + 20
        made.append(one)
    return sorted(made, key=lambda one: one["arrival_ns"])


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_conserved_and_that_stretches_change_nothing(options: dict[str, Any]) -> None:
    @reaches(0.3, examples=40, made=workloads(), tokens=st.integers(96, 140))
    def compare(reached: Reached, made: list[dict[str, Any]], tokens: int) -> None:
        runs = []
        for steps in (1, 5, 512):
            sglang = policy(tokens // 4 * 4, schedule_conservativeness=0.05, **options)
            asked = [Request(number, name=str(number), **one) for number, one in enumerate(made)]
            run = Run(sglang, asked, stages=options.get("pipeline", 1), max_steps=steps)
            runs.append(run)
            assert len(run.rows()) + len(run.aborted) == len(made) and run.engine.idle()
            assert sglang.kv.tree.protected == 0 and sglang.kv.reachable == sglang.kv.capacity
            assert conserved(sglang) == sglang.kv.capacity
        assert runs[0].outcome() == runs[1].outcome() == runs[2].outcome()
        computed_in_order(runs[0])
        if len(runs[2].batches) < len(runs[0].batches):
            reached()

    compare()


def computed_in_order(run: Run) -> None:
    """Every token is computed once, after those before it, from what was found or from the beginning."""
    computed: dict[int, int] = {}
    emitted: dict[int, int] = {}
    ends = [done.end_ns for done in run.batches]
    assert ends == sorted(ends)
    for done in run.batches:
        for request in done.batch.preempted:
            del computed[request.id]
        for request, found in done.batch.admitted:
            assert request.id not in computed
            computed[request.id] = found
        for request, new, context in zip(*_columns(done.batch), strict=True):
            assert context == computed[request.id] and new > 0
            computed[request.id] = context + new
        for request in done.outcome.emitted:
            emitted[request.id] = emitted.get(request.id, 0) + 1
    for row in run.rows():
        assert row["output"] == emitted[row["id"]]


def _columns(batch: Batch) -> tuple[Any, ...]:
    return batch.requests, batch.new_tokens.tolist(), batch.context_tokens.tolist()


def test_an_abort_leaves_nothing_behind_wherever_it_falls() -> None:
    """The client of 1 goes at every moment of a run: in the queue, in a chunk, decoding, retracted."""
    for moment in range(0, 22_000, 500):
        sglang = policy(28, chunked_prefill_size=6, schedule_conservativeness=0.001)
        asked = [Request(0, 0, 7, 9), Request(1, 0, 9, 9, abort_ns=moment), Request(2, 0, 5, 9)]
        run = Run(sglang, asked)
        assert [row["output"] for row in run.rows()] == [9] * (3 - len(run.aborted))
        assert sglang.kv.reachable == 28 and not sglang.has_unfinished()


def test_who_is_refused_and_who_cannot_be_served_whole() -> None:
    sglang = policy(100)
    assert sglang.config.longest_prompt == 93
    refused = sglang.rejects(Request(0, 0, 94, 3))
    assert refused == "its prompt has 94 tokens, the 4096 tokens of a sequence and 100 of KV cache allow 93"
    assert sglang.rejects(Request(0, 0, 93, 3)) is None
    assert sglang.rejects(Request(0, 0, 50, 4046)) == (
        "it asks for 4096 tokens, prompt included, a sequence has less than 4096"
    )
    assert (
        sglang.unfit(Request(0, 0, 50, 60), 109) == "it grows to 109 tokens, a KV cache of 100 lets a sequence have 97"
    )
    assert sglang.unfit(Request(0, 0, 50, 48), 97) is None
    run = Run(policy(100), [Request(0, 0, 50, 60)])
    assert [row["output"] for row in run.rows()] == [48], "SGLang cuts what its client allows"
    assert run.metrics.totals.generated_tokens == 48


@pytest.mark.parametrize(
    ("gib", "tensor", "stages", "chunk", "share"),
    [
        (16, 1, 1, 2048, 0.772),  # 512 + 3072 + 16 + 128 of 16384 MiB
        (24, 1, 1, 2048, 0.847),  # 512 + 3072 + 48 + 128
        (24, 4, 1, 2048, 0.827),  # 512 + 3072 + 160 + 512
        (48, 2, 1, 4096, 0.858),  # 512 + 6144 + 64 + 256
        (80, 1, 1, 8192, 0.836),  # 512 + 12288 + 512 + 128
        (80, 8, 2, 8192, 0.806),  # 512 + 12288 + 1024 + 2048
        (180, 8, 1, 16384, 0.853),  # 512 + 24576 + 1024 + 1024
    ],
)
def test_what_the_server_decides_for_a_device(gib: int, tensor: int, stages: int, chunk: int, share: float) -> None:
    assert chunked_prefill_size(gib * 1024 * MIB) == chunk
    assert mem_fraction_static(gib * 1024 * MIB, chunk, 16384, tensor, stages) == share


def test_large_devices_keep_ten_gib_for_other_things() -> None:
    assert mem_fraction_static(80 * 1024 * MIB, 2048, 16384, 1, 1) == 0.875
    assert mem_fraction_static(80 * 1024 * MIB, -1, 16384, 1, 1) == round(1 - (512 + 24576 + 512 + 128) / 81920, 3)


@pytest.mark.parametrize(
    ("capacity", "context", "asked", "stages", "seats"),
    [
        (1000, 4096, None, 1, 500),
        (100_000, 4096, None, 1, 4096),
        (100_000, 40_960, None, 1, 2048),
        (300_000, 51_200, None, 1, 3000),
        (100_000, 4096, 100, 3, 33),
        (100_000, 4096, 2, 3, 1),
    ],
)
def test_how_many_run_at_once(capacity: int, context: int, asked: int | None, stages: int, seats: int) -> None:
    assert SglangConfig(capacity, context, max_running_requests=asked, stages=stages).seats == seats


def deployed(**values: Any) -> Deployment:
    return prepare(RunSpec.of(**{"scheduling": "sglang", "skip_unfit": True, "req_num": 5, **values})).deployments[0]


def test_a_server_is_deployed_with_its_defaults() -> None:
    made = deployed(model_name="meta-llama/Llama-3.1-8B-Instruct", hardware="H100")
    share = mem_fraction_static(made.hardware.driver_memory_bytes, 8192, 16384, 1, 1)
    assert made.share.bytes == round(share * made.hardware.driver_memory_bytes)
    assert made.engine.block_size == 1 and made.engine.scheduling.step_limits() == {"prompt tokens": 8192}
    assert made.space.total_blocks == (made.share.bytes - made.weight_bytes) // made.space.block_bytes


def test_pages_and_tokens_of_the_cache_are_settings() -> None:
    made = deployed(model_name="gpt2", page_size=16, max_total_tokens=1000)
    assert (made.space.block_size, made.space.total_blocks) == (16, 62)
    assert deployed(model_name="gpt2", block_size=16, max_total_tokens=1000).space == made.space


@pytest.mark.parametrize(
    ("flags", "wrong"),
    [
        ("--page_size 4 --block_size 8", "--page_size: 4 conflicts with --block_size 8"),
        ("--gpu_memory_utilization 0.8", "--mem_fraction_static"),
        ("--chunked_prefill_size 100 --page_size 16", "--chunked_prefill_size: 100 tokens are no whole pages of 16"),
        ("--npu_mem 3", "--mem_fraction_static: SGLang leaves 3.91 GB to other things than weights"),
        (
            "--npu_num 2 --npu_group 2 --enable_mixed_chunk",
            "--enable_mixed_chunk: SGLang mixes no prompts with decodes",
        ),
        ("--mem_fraction_static 0.001", "--mem_fraction_static: 0.025 GB an NPU (0.001 of"),
        ("--max_total_tokens 8 --model_name gpt2 --max_model_len 7", "no prompt is let in, which takes 8 of both"),
    ],
)
def test_wrong_settings_are_named(flags: str, wrong: str) -> None:
    with pytest.raises(UserError) as refused:
        prepare(from_flags(["--scheduling", "sglang", *flags.split()]))
    assert wrong in str(refused.value)


def test_an_estimate_begins_anew_after_idleness() -> None:
    sglang = policy(60, disable_overlap_schedule=True)
    steps = Steps(sglang, [Request(0, 0, 4, 9)])
    first = sglang.ratio.value
    for _ in range(6):
        steps.decide()
    assert first == 0.7 and sglang.ratio.value == pytest.approx(0.7 - 5 * 0.7 * 0.86 / 600)
    while steps.left:
        steps.decide()
    assert steps.decide() is None and sglang.ratio.value == first


def test_tokens_of_pages_and_requests_of_adapters() -> None:
    """Adapters do not share prefixes, and a chunk of a prompt ends at a page."""
    ids = [*range(12)]
    asked = [Request(0, 0, 12, 1, prompt_token_ids=ids, adapter="a"), Request(1, 0, 12, 1, prompt_token_ids=ids)]
    steps = Steps(policy(80, page_size=4, chunked_prefill_size=8, disable_overlap_schedule=True), asked)
    assert [steps.decide() for _ in range(4)] == [[(0, 8, 0)], [(0, 4, 8), (1, 4, 0)], [(1, 8, 4)], None]
