"""What the host adds to steps, and the padding of captured graphs: by hand, as properties, and in whole runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import UserError
from orchestrator.engine.batch import Batch
from orchestrator.pricing.graphs import CapturedGraphs, vllm_sizes
from orchestrator.pricing.host import HOST, HostPricing, HostTimes
from orchestrator.requests.request import Request
from orchestrator.schedulers.settings import ServerHost
from orchestrator.settings.host import HostSettings
from orchestrator.settings.specification import RunSpec
from orchestrator.simulation import Simulation
from tests.orchestrator.serving import FormulaPricing, StageTimes
from trace_gen.batch_shape import BatchShape, dummy_batch, empty_batch

SERVER = ServerHost(4000.0, 4.0, 40.0, 70.0, hidden=True, largest_graph=512)
RUN: dict[str, Any] = {"model_name": "openai-community/gpt2", "scheduling": "vllm", "req_num": 20, "hardware": "H100"}


def decodes(count: int, steps: int = 1) -> Batch:
    requests = [Request(index, 0, 9, 99) for index in range(count)]
    batch = Batch.of(0, requests, [1] * count, [9] * count, [1] * count)
    return batch if steps == 1 else batch.again(batch.context_tokens, steps)


def prompt(tokens: int) -> Batch:
    return Batch.of(0, [Request(0, 0, tokens, 9)], [tokens], [0], [1])


def shape(tokens: list[int]) -> BatchShape:
    column = np.array(tokens, dtype=np.int64)
    return BatchShape(np.arange(len(tokens)), column, column * 0 + 5, (column == 1).astype(np.int64))


@pytest.mark.parametrize(
    ("times", "batch", "added"),
    [
        (HostTimes(3000, 10, hidden=True), decodes(4), 3040 - 1000),  # the host takes longer than the device
        (HostTimes(900, 10, hidden=True), decodes(4), 0),  # it is done while the device works
        (HostTimes(900, 10, hidden=False), decodes(4), 940),  # nothing to hide behind
        (HostTimes(900, 10, hidden=True), prompt(50), 910),  # prompts are prepared in their turn
    ],
)
def test_what_shows_of_the_host(times: HostTimes, batch: Batch, added: int) -> None:
    device = StageTimes([1000])
    pricing = HostPricing(device, times, CapturedGraphs((64,)), [10])
    plain, cost = device.price([batch]), pricing.price([batch])
    assert (cost.finish_ns - plain.finish_ns).tolist() == [[[added]]]
    assert cost.busy_ns[0, 0, pricing.classes.index(HOST)] == added
    assert (cost.busy_ns[:, :, :-1] == plain.busy_ns).all()


@pytest.mark.parametrize(("sizes", "tokens", "floor"), [((), 4, 5000), ((4,), 4, 0), ((4,), 5, 5000)])
def test_operators_that_are_launched_one_by_one_are_a_floor(sizes: tuple[int, ...], tokens: int, floor: int) -> None:
    device = StageTimes([1000, 9000])
    pricing = HostPricing(device, HostTimes(launch_ns=10, hidden=True), CapturedGraphs(sizes), [500, 500])
    cost = pricing.price([decodes(tokens)])
    assert np.diff(cost.finish_ns[0, 0], prepend=0).tolist() == [max(1000, floor), 9000]


def test_who_launches_a_step_prepares_no_other_meanwhile() -> None:
    """Decodes that are scheduled ahead take the longer of the device and of all that the host does."""
    for device, launches, step, taken in ((900, 50, 300, 900), (900, 50, 700, 1200), (900, 95, 0, 950)):
        times = HostTimes(step_ns=step, launch_ns=10, hidden=True)
        cost = HostPricing(StageTimes([device]), times, CapturedGraphs(), [launches]).price([decodes(4)])
        assert int(cost.finish_ns[0, 0, 0]) == taken


@given(
    st.integers(0, 9000), st.integers(0, 50), st.integers(0, 30), st.booleans(), st.integers(1, 40), st.integers(1, 30)
)
def test_many_steps_cost_what_each_costs(
    step: int, request: int, launch: int, hidden: bool, count: int, steps: int
) -> None:
    """And no step takes less than the device, or than the host, or more than both."""
    device, times = FormulaPricing(stages=2), HostTimes(step, request, launch, hidden)
    pricing = HostPricing(device, times, CapturedGraphs((16,)), [100, 50])
    together, plain = pricing.price([decodes(count, steps)]), device.price([decodes(count, steps)])
    for place in range(steps):
        batch = decodes(count)
        batch.context_tokens = batch.context_tokens + place
        one = pricing.price([batch])
        assert (one.finish_ns[0, 0] == together.finish_ns[0, place]).all()
        assert (one.busy_ns[0, 0] == together.busy_ns[0, place]).all()
    own, first = plain.finish_ns[0, :, -1], together.finish_ns[0, :, -1]
    host = step + request * count
    assert (first >= own).all() and (together.finish_ns[0, :, 0] >= host).all()
    assert (first <= own + host + launch * 150).all()


def test_vllm_captures_these_sizes() -> None:
    assert vllm_sizes(20) == (1, 2, 4, 8, 16)
    assert vllm_sizes(512)[-3:] == (480, 496, 512) and len(vllm_sizes(512)) == 51
    assert vllm_sizes(256)[-2:] == (248, 256)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=4))
def test_padding_fills_the_next_graph_and_the_largest_member_decides(tokens: list[int]) -> None:
    sizes = vllm_sizes(512)
    members = [shape([1] * count) for count in tokens]
    padded = CapturedGraphs(sizes).padded(members)
    largest = max(tokens)
    if largest > 512:
        assert list(padded) == members
        return
    assert {batch.total_tokens for batch in padded} == {min(size for size in sizes if size >= largest)}
    assert [batch.sampled_tokens for batch in padded] == tokens
    assert [len(batch.new_tokens) for batch in padded] == tokens


def test_dummies_are_padded_and_members_that_compute_nothing_are_not() -> None:
    padded = CapturedGraphs((8,)).padded([shape([1] * 5), dummy_batch(), empty_batch()])
    assert [batch.total_tokens for batch in padded] == [8, 8, 0]
    assert CapturedGraphs().padded([shape([1])])[0].total_tokens == 1


def test_what_is_not_said_is_the_servers() -> None:
    made = HostSettings().decided(SERVER)
    assert (made.host_step_us, made.host_request_us, made.launch_us) == (4000.0, 4.0, 40.0)
    assert made.graphs.sizes == vllm_sizes(512)
    assert made.times(SERVER) == HostTimes(4_000_000, 4_000, 40_000, hidden=True)
    assert not HostSettings().decided(None).times(None)
    own = HostSettings(host_step_us=0.5, cudagraph_capture_sizes="2,6").decided(SERVER)
    assert own.times(SERVER).step_ns == 500 and own.graphs.sizes == (2, 6)
    eager = HostSettings(enforce_eager=True).decided(SERVER)
    assert (eager.graphs.sizes, eager.launch_us) == ((), 70.0)
    assert HostSettings(enforce_eager=True, launch_us=9).decided(SERVER).launch_us == 9


@pytest.mark.parametrize("sizes", ["4,2", "0,1", "1,1", "x", "1,,2"])
def test_sizes_that_are_none(sizes: str) -> None:
    with pytest.raises(UserError, match="numbers of tokens that grow"):
        RunSpec.of(**RUN, cudagraph_capture_sizes=sizes)


def run(**more: Any) -> dict[str, list[int]]:
    """Return the columns of a run's requests."""
    result = Simulation(RunSpec.of(**{**RUN, **more})).run()
    return {name: column.tolist() for name, column in result.columns.items()}


def makespan(**more: Any) -> int:
    return max(run(**more)["end"])


def test_a_small_model_on_a_fast_device_goes_at_the_speed_of_its_host() -> None:
    """GPT-2's steps take the device about a millisecond, so with vLLM's host a token takes the host's time."""
    assert makespan() > makespan(host_step_us=0, host_request_us=0, launch_us=0)
    rows = run()
    columns = (rows[name] for name in ("first_token", "end", "output"))
    paces = [(end - first) / (tokens - 1) for first, end, tokens in zip(*columns, strict=True) if tokens > 20]
    assert min(paces) >= 4.0e6
    assert np.median(paces) < 6.0e6


def test_synchronous_scheduling_adds_the_host_to_every_step() -> None:
    assert makespan(req_num=1, async_scheduling=False) > makespan(req_num=1)


@pytest.mark.parametrize(
    "more", [{}, {"enforce_eager": True}, {"async_scheduling": False}, {"npu_num": 2, "npu_group": 2}]
)
def test_stretches_change_nothing(more: dict[str, Any]) -> None:
    assert run(**more) == run(**more, macro_steps=1)


def test_eager_execution_is_slower() -> None:
    assert makespan(enforce_eager=True) > makespan()
