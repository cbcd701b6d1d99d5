"""LoRA adapters in a run: who is served when, what it costs, and the memory that slots take."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation.errors import UserError
from orchestrator.engine.batch import Batch
from orchestrator.engine.engine import Engine
from orchestrator.pricing.adapters import ADAPTERS, AdapterPricing
from orchestrator.requests.request import Request
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig
from orchestrator.settings.specification import RunSpec
from orchestrator.simulation import Simulation, prepare
from tests.orchestrator.serving import FormulaPricing, StageTimes, completed


class Work:
    """Takes 1000 ns an adapter and 1 ns a token on the first stage, and twice as much on each that follows."""

    def stage_ns(self, tokens: int, adapters: int) -> Any:
        return (1000 * adapters + tokens) * 2 ** np.arange(2)


def adapted(names: list[str | None], tokens: list[int]) -> Batch:
    requests = [Request(number, 0, 50, 50, adapter=name) for number, name in enumerate(names)]
    return Batch.of(0, requests, tokens, [0] * len(names), [1] * len(names))


def test_a_batch_costs_by_its_adapters_and_their_tokens() -> None:
    pricing = AdapterPricing(FormulaPricing(2), Work())  # type: ignore[arg-type]
    batch = adapted(["one", None, "two", "one"], [7, 100, 20, 3])
    cost, plain = pricing.price([batch]), FormulaPricing(2).price([batch])
    assert (cost.finish_ns - plain.finish_ns).tolist() == [[[2030, 3 * 2030]]]
    assert cost.busy_ns[0, 0].tolist() == [*plain.busy_ns[0, 0].tolist(), 3 * 2030]
    assert (pricing.classes[-1], pricing.stages) == (ADAPTERS, 2)


def test_like_steps_cost_alike() -> None:
    pricing = AdapterPricing(FormulaPricing(2), Work())  # type: ignore[arg-type]
    batch = adapted(["one", None], [1, 1])
    many = batch.again(batch.context_tokens, 3)
    added = pricing.price([many]).finish_ns - FormulaPricing(2).price([many]).finish_ns
    assert added.tolist() == [[[1001, 3003]] * 3]
    assert pricing.max_steps == FormulaPricing().max_steps


@pytest.mark.parametrize(
    ("version", "firsts"),
    [
        # Seats for four, two adapters: c waits while b and a run; d has none and is served.
        ("0.19", [["a1", "b1", "a2", "d"], ["c1"]]),
        ("0.33", [["a1", "b1", "a2", "d"], ["c1"]]),
    ],
)
def test_a_step_has_so_many_adapters(version: str, firsts: list[list[str]]) -> None:
    config = VllmSchedulerConfig(
        num_gpu_blocks=100, max_model_len=100, max_num_seqs=4, max_num_batched_tokens=64, max_loras=2, version=version
    )
    names = ["a1", "b1", "c1", "a2", "d"]
    requests = [
        Request(number, 0, 5, 3, name=name, adapter=None if name == "d" else name[0])
        for number, name in enumerate(names)
    ]
    batches = completed(Engine(VllmScheduler(config), StageTimes([1])), requests)
    assert [[request.name for request, _ in done.batch.admitted] for done in batches if done.batch.admitted] == firsts
    served = {request.name for done in batches for request in done.outcome.finished}
    assert served == set(names)


def test_prefixes_of_other_adapters_are_others() -> None:
    config = VllmSchedulerConfig(num_gpu_blocks=100, max_model_len=100, block_size=4, max_loras=3)
    ids = list(range(20))
    requests = [
        Request(number, 10 * number, 20, 2, prompt_token_ids=ids, adapter=name)
        for number, name in enumerate(["a", "b", None, "a", "b", None])
    ]
    batches = completed(Engine(VllmScheduler(config), StageTimes([1])), requests)
    hits = {request.id: hit for done in batches for request, hit in done.batch.admitted}
    assert [hits[number] for number in range(6)] == [0, 0, 0, 16, 16, 16]


def run(**values: Any) -> Any:
    return Simulation(RunSpec.of(**{"model_name": "gpt2", "scheduling": "vllm", "num_prompts": 12, **values})).run()


def test_adapters_take_time_and_places() -> None:
    plain, one = run().summary, run(enable_lora=True, lora_adapters=1).summary
    many = run(enable_lora=True, lora_adapters=6).summary
    roomy = run(enable_lora=True, lora_adapters=6, max_loras=6).summary
    assert ADAPTERS not in plain.simulated_time_s
    assert one.simulated_time_s[ADAPTERS] > 0
    assert plain.tpot_ms["mean"] < one.tpot_ms["mean"] < roomy.tpot_ms["mean"]
    assert many.queuing_delay_ms["mean"] > 10 * roomy.queuing_delay_ms["mean"], "one adapter at a time"


def test_who_has_none_pays_nothing() -> None:
    plain, ready = run().summary, run(enable_lora=True).summary
    assert ready.simulated_time_s[ADAPTERS] == 0
    assert (ready.ttft_ms, ready.tpot_ms, ready.makespan_s) == (plain.ttft_ms, plain.tpot_ms, plain.makespan_s)


def test_runs_are_the_same_whatever_the_way() -> None:
    values = {"enable_lora": True, "lora_adapters": 3, "max_loras": 2}
    assert run(**values).summary == run(**values, macro_steps=1).summary


def test_adapters_and_guesses_together() -> None:
    values = {"num_speculative_tokens": 2, "speculative_method": "eagle", "acceptance_rate": 0.5}
    both = run(enable_lora=True, lora_adapters=2, max_loras=2, **values).summary
    assert {ADAPTERS, "drafting"} <= both.simulated_time_s.keys()
    assert both.finished_requests == run().summary.finished_requests


def test_slots_take_memory_from_the_cache() -> None:
    llama = {"model_name": "meta-llama/Llama-3.1-8B", "hardware": "H100", "scheduling": "vllm"}
    plain, slots = (
        prepare(RunSpec.of(**llama, **more)).deployments[0]
        for more in ({}, {"enable_lora": True, "max_loras": 4, "max_lora_rank": 32})
    )
    assert slots.weight_bytes - plain.weight_bytes == 4 * 2 * 2 * 41_943_040
    assert slots.space.total_blocks == (plain.share.bytes - slots.weight_bytes) // slots.space.block_bytes
    piped = prepare(RunSpec.of(**llama, npu_num=2, npu_group=2, enable_lora=True)).deployments[0]
    assert piped.beside == (41_943_040, 41_943_040), "a slot, half of it on each stage"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora_adapters": 2}, "--lora_adapters: requests have LoRA adapters, and there are engines that serve none"),
        ({"max_loras": 2}, "max_loras: no adapters are served"),
        ({"max_lora_rank": 8}, "max_lora_rank: no adapters are served"),
        ({"enable_lora": True, "max_loras": 0}, "max_loras: 0 is not a whole number from 1 to 1024"),
        ({"enable_lora": True, "lora_adapters": 0}, "lora_adapters: 0 is not a whole number from 1 to 1000000"),
        ({"enable_lora": True, "perf_model": "backend"}, "--perf_model: backend has no time for LoRA adapters"),
        ({"scheduling": "orca", "enable_lora": True}, "enable_lora: not read by --scheduling orca"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare(RunSpec.of(**{"model_name": "gpt2", "scheduling": "vllm", **values}))
    assert message in str(caught.value)


HEADER = "input_toks\toutput_toks\tarrival_time_ns\tlora_adapter\n"


@pytest.mark.parametrize("header", ["", HEADER, "\n\n" + HEADER])
@pytest.mark.parametrize("rows", ["5\t3\t0\t2\n6\t3\t10\t0\n7 3 20 2\n", "5 3 0 2\n\n6 3 10 0 \n+7 3 20 2"])
def test_a_workload_may_name_adapters(header: str, rows: str, tmp_path: Path) -> None:
    path = tmp_path / "adapted.tsv"
    path.write_text(header + rows.replace("+", ""))
    made = prepare(RunSpec.of(model_name="gpt2", scheduling="vllm", enable_lora=True, dataset=str(path)))
    assert [(one.prompt_tokens, one.adapter) for one in made.source.requests()] == [
        (5, "adapter 2"),
        (6, None),
        (7, "adapter 2"),
    ]


def test_adapters_follow_their_requests(tmp_path: Path) -> None:
    """Rows out of order, one that is skipped, and a first so many."""
    path = tmp_path / "adapted.tsv"
    path.write_text("5 3 90 1\n2000 3 0 2\n7 3 20 3\n8 3 10 4\n")
    values = {"model_name": "gpt2", "scheduling": "vllm", "enable_lora": True, "dataset": str(path), "req_num": 3}
    made = prepare(RunSpec.of(**values, num_gpu_blocks_override=40, max_model_len=200))
    assert [(one.prompt_tokens, one.adapter) for one in made.source.requests()] == [
        (2000, "adapter 2"),
        (7, "adapter 3"),
        (5, "adapter 1"),
    ]


def test_adapters_in_turn_are_numbered_from_one() -> None:
    made = prepare(RunSpec.of(model_name="gpt2", scheduling="vllm", enable_lora=True, lora_adapters=2, num_prompts=5))
    adapters = {one.id: one.adapter for one in made.source.requests()}
    assert adapters == {0: "adapter 1", 1: "adapter 2", 2: "adapter 1", 3: "adapter 2", 4: "adapter 1"}


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("5 3 0 1\n5 3 0\n", {}, "adapted.tsv, line 2: malformed row '5 3 0'; expected four whole numbers"),
        ("5 3 0\n5 3 0 1\n", {}, "adapted.tsv, line 2: malformed row '5 3 0 1'; expected three whole numbers"),
        ("5 3 0 -1\n", {}, "lora_adapter: -1 is too small; at least 0"),
        ("5 3 0 1000001\n", {}, "lora_adapter: 1000001 is too large; at most 1000000"),
        ("5 3 0 1\n", {"lora_adapters": 2}, "lora_adapter: --lora_adapters 2, but every row names its own"),
        ("5 3 0 1\n", {"enable_lora": None}, "lora_adapter: requests have LoRA adapters, and there are engines"),
    ],
)
def test_adapters_that_cannot_be(text: str, more: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "adapted.tsv"
    path.write_text(text)
    values = {"model_name": "gpt2", "scheduling": "vllm", "enable_lora": True, "dataset": str(path), **more}
    with pytest.raises(UserError) as caught:
        prepare(RunSpec.of(**values))
    assert message in str(caught.value)
