"""What speculation costs: a drafter's passes after a step, its weights and KV beside the model's, and whole runs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from foundation.errors import UserError
from orchestrator.engine.batch import Batch
from orchestrator.pricing.interface import Cost
from orchestrator.pricing.speculative import DRAFTING, SpeculativePricing
from orchestrator.requests.request import Request
from orchestrator.schedulers.speculation import Speculation
from orchestrator.settings.specification import RunSpec
from orchestrator.simulation import Simulation, prepare
from tests.orchestrator.serving import FormulaPricing

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
SPECULATES: dict[str, Any] = {
    "scheduling": "vllm",
    "num_speculative_tokens": 3,
    "speculative_method": "eagle",
    "acceptance_rate": 0.8,
}


class Passes(FormulaPricing):
    """Notes the tokens, the contexts and the steps of every batch."""

    def __init__(self, max_steps: int) -> None:
        super().__init__()
        self.max_steps = max_steps
        self.seen: list[tuple[list[int], list[int], int]] = []

    def price(self, wave: Sequence[Batch]) -> Cost:
        (batch,) = wave
        assert batch.samples.tolist() == [1] * len(batch.requests)
        self.seen.append((batch.new_tokens.tolist(), batch.context_tokens.tolist(), batch.steps))
        return super().price(wave)


def step(guesses: int) -> Batch:
    """A decode that verifies two drafts, one of which is right, and a chunk of a prompt."""
    batch = Batch.of(5, [Request(0, 0, 9, 9), Request(1, 0, 90, 9)], [3, 8], [10, 16], [3, 0])
    batch.brings, batch.guesses = np.array([2, 0]), guesses
    return batch


@pytest.mark.parametrize(
    ("method", "first", "then"),
    [("eagle", [3, 8], [12, 24]), ("mtp", [3, 8], [12, 24]), ("draft_model", [4, 9], [13, 25])],
)
@pytest.mark.parametrize("max_steps", [1, 2, 512])
def test_passes_follow_the_step(method: str, first: list[int], then: list[int], max_steps: int) -> None:
    """The first computes what the step did, the others a token each, after what was kept of the step."""
    target, drafter = FormulaPricing(), Passes(max_steps)
    pricing = SpeculativePricing(target, drafter, Speculation(3, method))
    cost, plain = pricing.price([step(3)]), target.price([step(3)])
    passes = [(new, context) for new, start, steps in drafter.seen for context, new in _each(new, start, steps)]
    assert passes == [(first, [10, 16]), ([1, 1], then), ([1, 1], [token + 1 for token in then])]
    taken = sum(1000 + 7 * sum(new) + sum(context) for new, context in passes)
    assert (cost.finish_ns - plain.finish_ns).tolist() == [[[taken]]]
    assert cost.busy_ns.tolist() == [[[*plain.busy_ns[0, 0].tolist(), taken]]]
    assert pricing.classes == ("compute", "attention", DRAFTING)


def _each(new: list[int], start: list[int], steps: int) -> list[tuple[list[int], list[int]]]:
    return [([context + step for context in start], new) for step in range(steps)]


def test_one_guess_is_one_pass_and_none_is_none() -> None:
    drafter = Passes(512)
    pricing = SpeculativePricing(FormulaPricing(2), drafter, Speculation(1, "eagle"))
    assert pricing.stages == 2
    assert pricing.price([step(0)]).busy_ns[0, 0, -1] == 0
    assert not drafter.seen
    cost, plain = pricing.price([step(1)]), FormulaPricing(2).price([step(1)])
    assert len(drafter.seen) == 1
    assert (cost.finish_ns - plain.finish_ns)[0, 0].tolist() == [0, int(cost.busy_ns[0, 0, -1])], "on the last stage"


def test_a_head_takes_memory_from_the_cache() -> None:
    """Llama-3.1-8B in 16 bits: a layer of 218.1 million parameters, a projection of 33.6, 4 KiB of KV a token."""
    plain = prepare(RunSpec.of(model_name=LLAMA, hardware="H100", scheduling="vllm")).deployments[0]
    drafting = prepare(RunSpec.of(model_name=LLAMA, hardware="H100", **SPECULATES)).deployments[0]
    weights = 2 * (2 * 4096 * (4096 + 1024) + 3 * 4096 * 14336 + 2 * 4096 * 4096 + 3 * 4096)
    assert drafting.weight_bytes - plain.weight_bytes == weights
    assert (plain.space.block_bytes, drafting.space.block_bytes) == (32 * 4096 * 16, 33 * 4096 * 16)
    left = plain.share.bytes - drafting.weight_bytes
    assert drafting.space.total_blocks == left // drafting.space.block_bytes < plain.space.total_blocks


def test_an_ngram_takes_none() -> None:
    plain = prepare(RunSpec.of(model_name=LLAMA, hardware="H100", scheduling="vllm")).deployments[0]
    found = prepare(RunSpec.of(model_name=LLAMA, hardware="H100", **{**SPECULATES, "speculative_method": "ngram"}))
    assert found.deployments[0].space == plain.space
    assert found.deployments[0].drafter is None


def test_a_draft_model_brings_all_its_weights() -> None:
    values = {**SPECULATES, "speculative_method": "draft_model", "speculative_model": "gpt2"}
    made = prepare(RunSpec.of(model_name="gpt2-xl", hardware="H100", **values)).deployments[0]
    assert made.drafter is not None
    own = made.drafter.memory
    assert made.weight_bytes == made.generator.memory.weight_bytes(0) + own.weight_bytes(0)
    assert made.space.block_bytes == 16 * 2 * 2 * (48 * 1600 + 12 * 768)


def test_a_head_without_room_is_refused() -> None:
    with pytest.raises(UserError, match=r"needs 16\.56\d GB an NPU for its weights"):
        prepare(RunSpec.of(model_name=LLAMA, hardware="RTX4090", npu_mem=16.3, **SPECULATES))


def summary(**change: Any) -> Any:
    values = {"model_name": "gpt2", "hardware": "H100", "num_prompts": 12, **SPECULATES, **change}
    return Simulation(RunSpec.of(**values)).run()


def test_runs_are_the_same_whatever_the_way() -> None:
    first = summary()
    again, steps, files = summary(), summary(macro_steps=1), summary(interface="et", num_prompts=2, macro_steps=7)
    assert first.summary == again.summary == steps.summary
    assert files.summary == summary(num_prompts=2).summary
    assert summary(acceptance_seed=1).summary != first.summary


def test_more_right_guesses_are_sooner_done() -> None:
    """Every step brings a token and the right guesses: what was drafted, accepted and generated adds up."""
    never, always = summary(acceptance_rate=0.0).summary, summary(acceptance_rate=1.0).summary
    assert (never.drafts.accepted_tokens, never.drafts.acceptance_rate, never.drafts.tokens_a_step) == (0, 0, 1)
    assert always.drafts.accepted_tokens == always.drafts.drafted_tokens
    assert always.drafts.tokens_a_step == 4
    assert always.makespan_s < never.makespan_s
    assert always.itl_ms["p50"] == 0, "three of four tokens come with another"
    assert always.generated_tokens == never.generated_tokens


def test_rates_by_place_come_out() -> None:
    figures = summary(acceptance_rate=None, acceptance_per_position="0.9, 0.6,0.3", num_prompts=40).summary.drafts
    assert abs(figures.tokens_a_step - 2.8) < 0.05
    assert abs(figures.acceptance_rate - 0.6) < 0.02


def test_the_summary_says_nothing_where_nothing_is_guessed() -> None:
    plain = Simulation(RunSpec.of(model_name="gpt2", scheduling="vllm", num_prompts=2)).run().summary
    assert plain.drafts is None
    assert "drafts" not in plain.as_json()
    assert summary(num_prompts=2).summary.as_json()["drafts"]["drafted_tokens"] > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_speculative_tokens": 2}, "--speculative_method: missing beside --num_speculative_tokens"),
        ({"speculative_method": "eagle"}, "--num_speculative_tokens: missing beside --speculative_method"),
        ({"acceptance_rate": 0.5}, "--num_speculative_tokens: missing beside --acceptance_rate"),
        ({**SPECULATES, "acceptance_rate": None}, "--acceptance_rate: nothing says how many guessed tokens are right"),
        ({**SPECULATES, "acceptance_rate": 1.1}, "acceptance_rate: 1.1 is not a number from 0 to 1"),
        ({**SPECULATES, "num_speculative_tokens": 65}, "num_speculative_tokens: 65 is not a whole number from 1 to 64"),
        ({**SPECULATES, "num_speculative_tokens": 0}, "num_speculative_tokens: 0 is not"),
        ({**SPECULATES, "acceptance_per_position": "0.5,0.5,0.5"}, "says what --acceptance_rate says, too"),
        (
            {**SPECULATES, "acceptance_rate": None, "acceptance_per_position": "0.5,0.6,0.1"},
            "'0.5,0.6,0.1' is not 3 numbers from 1 to 0, none above the one before it",
        ),
        ({**SPECULATES, "acceptance_rate": None, "acceptance_per_position": "0.5,0.4"}, "is not 3 numbers"),
        ({**SPECULATES, "acceptance_rate": None, "acceptance_per_position": "0.5,x,0.1"}, "is not 3 numbers"),
        ({**SPECULATES, "acceptance_rate": None, "acceptance_per_position": "1.1,0.5,0"}, "is not 3 numbers"),
        ({**SPECULATES, "speculative_method": "draft_model"}, "--speculative_model: missing"),
        (
            {**SPECULATES, "speculative_method": "ngram", "speculative_model": "gpt2"},
            "speculative_model: an n-gram search has no model",
        ),
        (
            {**SPECULATES, "speculative_method": "ngram", "async_scheduling": True},
            "--async_scheduling: drafts by ngram are made from tokens that must be there",
        ),
        (
            {**SPECULATES, "speculative_method": "draft_model", "speculative_model": LLAMA},
            "Llama-3.1-8B-Instruct has 128256 token ids, openai-community/gpt2 50257",
        ),
        (
            {**SPECULATES, "npu_num": 2, "npu_group": 2},
            "--pipeline_parallel_size: speculation is not modelled on 2 stages",
        ),
        ({**SPECULATES, "ngram_rate": 0.5}, "ngram_rate: eagle searches for no n-gram"),
        ({"acceptance_seed": 1}, "--num_speculative_tokens: missing beside --acceptance_seed"),
        ({**SPECULATES, "vllm_version": "0.33"}, "vllm_version: speculation is not modelled for 0.33"),
        ({**SPECULATES, "scheduling": "orca"}, "num_speculative_tokens: not read by --scheduling orca"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare(RunSpec.of(**{"model_name": "gpt2", "scheduling": "vllm", **values}))
    assert message in str(caught.value)


def test_rates_may_stay_the_same() -> None:
    values = {**SPECULATES, "acceptance_rate": None, "acceptance_per_position": "1,1,0"}
    assert prepare(RunSpec.of(model_name="gpt2", **values)).spec.engine.scheduling.speculation == Speculation(
        3, "eagle"
    )
