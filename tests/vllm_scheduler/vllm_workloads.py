"""Random settings and requests for the scheduler's properties, and an engine whose every step lasts one unit."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, cast

from hypothesis import strategies as st

from orchestrator.engine.batch import Batch, Outcome
from orchestrator.engine.engine import Engine
from orchestrator.engine.records import CompletedBatch
from orchestrator.requests.request import Request
from orchestrator.schedulers.acceptance import DrawnAcceptance
from orchestrator.schedulers.interface import Scheduler
from orchestrator.schedulers.speculation import METHODS, NGRAM
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig
from orchestrator.schedulers.vllm.config import POLICIES, VERSIONS
from tests.orchestrator.serving import StageTimes, completed


@dataclass(frozen=True)
class Workload:
    """Settings, and requests whose `arrival_ns` counts steps; `rates` decide which drafts are right."""

    config: VllmSchedulerConfig
    requests: tuple[Request, ...]
    rates: tuple[float, ...] = ()


def stored_tokens(request: Request, config: VllmSchedulerConfig) -> int:
    """Tokens of `request` that ever have a slot in the KV cache."""
    return min(request.prompt_tokens + request.output_tokens, config.max_model_len) - 1


@st.composite
def workloads(
    draw: st.DrawFn,
    policies: Sequence[str] = POLICIES,
    stages: Sequence[int] = (1,),
    long_outputs: bool = False,
    speculates: bool = False,
) -> Workload:
    """Draw a workload every request of which fits into the KV cache alone; most do not fit together.

    `speculates`: tokens are guessed ahead, and requests are served with adapters.
    """
    length = draw(st.sampled_from([24, 40, 100]))
    block = draw(st.sampled_from([1, 2, 4, 16]))
    seats = draw(st.integers(1, 8))
    chunked = draw(st.booleans())
    budget = max(seats, draw(st.sampled_from([4, 16, 33, 100])), 0 if chunked else length)
    pipeline = draw(st.sampled_from(stages))
    config = VllmSchedulerConfig(
        num_gpu_blocks=1 + -(-(length - 1) // block) + draw(st.integers(0, 3 * length // block)),
        max_model_len=length,
        max_num_seqs=seats,
        max_num_batched_tokens=budget,
        block_size=block,
        enable_prefix_caching=draw(st.booleans()),
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 5, 16])),
        policy=draw(st.sampled_from(list(policies))),
        async_scheduling=draw(st.booleans()),
        scheduler_reserve_full_isl=draw(st.booleans()),
        pipeline_stages=pipeline,
        version=draw(st.sampled_from(VERSIONS)),
    )
    rates: tuple[float, ...] = ()
    if speculates:
        method = draw(st.sampled_from(METHODS))
        drafts, sure = draw(st.integers(1, 4)), draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
        rates = tuple(sure**place for place in range(1, drafts + 1))
        config = replace(
            config,
            version="0.19",
            num_speculative_tokens=drafts,
            speculative_method=method,
            async_scheduling=config.async_scheduling and method != NGRAM,
            max_num_batched_tokens=budget + seats,
            max_loras=draw(st.integers(0, 2)),
        )
    count = draw(st.integers(1, 10))
    gaps = draw(st.lists(st.sampled_from([0, 0, 1, 3, 40]), min_size=count, max_size=count))
    arrivals = [sum(gaps[: index + 1]) for index in range(count)]
    requests = tuple(draw(_requests(index, arrivals[index], length, long_outputs)) for index in range(count))
    for request in requests if speculates else ():
        request.adapter = draw(st.sampled_from([None, "one", "two", "three"]))
    return Workload(config, requests, rates)


@st.composite
def _requests(draw: st.DrawFn, index: int, arrival: int, length: int, long_outputs: bool) -> Request:
    prompt = draw(st.integers(1, length // 4 if long_outputs else length - 1))
    output = draw(st.integers(length // 2 if long_outputs else 1, length))
    kind = draw(st.integers(0, 2))
    ids = None if kind == 0 else [(draw(st.integers(0, 2)) if position % 7 == 0 else 1) for position in range(prompt)]
    return Request(
        index,
        arrival,
        prompt,
        output,
        name=str(index),
        priority=draw(st.integers(0, 2)),
        prompt_token_ids=ids,
        output_token_ids=[1] * output if kind == 2 else None,
    )


class Watched:
    """A scheduler that is looked at: before and after each decision, and after each update."""

    def __init__(
        self,
        scheduler: VllmScheduler,
        deciding: Callable[[VllmScheduler], None],
        decided: Callable[[VllmScheduler, Batch], None],
        updated: Callable[[VllmScheduler, Outcome], None],
        most_steps: int,
    ) -> None:
        self._scheduler = scheduler
        self._deciding, self._decided, self._updated = deciding, decided, updated
        self._left = most_steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def schedule(self, now: int) -> Batch | None:
        self._left -= 1
        assert self._left, "the workload does not end"
        self._deciding(self._scheduler)
        batch = self._scheduler.schedule(now)
        if batch is not None:
            self._decided(self._scheduler, batch)
        return batch

    def update(self, batch: Batch, ended: Set[Request], now: int) -> Outcome:
        outcome = self._scheduler.update(batch, ended, now)
        self._updated(self._scheduler, outcome)
        return outcome


def nothing(*_: object) -> None:
    """Look at nothing."""


def drive(
    workload: Workload,
    *,
    max_steps: int = 1,
    deciding: Callable[[VllmScheduler], None] = nothing,
    decided: Callable[[VllmScheduler, Batch], None] = nothing,
    updated: Callable[[VllmScheduler, Outcome], None] = nothing,
    most_steps: int = 20_000,
) -> tuple[VllmScheduler, list[CompletedBatch]]:
    """Serve `workload`, every step of each stage lasting one unit; return the scheduler and what the engine told."""
    config = workload.config
    scheduler = VllmScheduler(config, acceptance=DrawnAcceptance(1, workload.rates, found=0.7))
    watched = Watched(scheduler, deciding, decided, updated, most_steps)
    engine = Engine(cast(Scheduler, watched), StageTimes([1] * config.pipeline_stages), max_steps=max_steps)
    return scheduler, completed(engine, sorted(workload.requests, key=lambda request: request.arrival_ns))
