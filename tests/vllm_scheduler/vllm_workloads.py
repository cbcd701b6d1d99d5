"""Random settings and requests for the scheduler's properties, and a clock in which every step lasts one unit."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from orchestrator.batch import Batch, BatchOutcome
from orchestrator.request import Request
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig, vllm_scheduler
from orchestrator.schedulers.vllm.config import POLICIES, VERSIONS


@dataclass(frozen=True)
class Workload:
    """Settings, and requests whose `arrival_ns` counts steps."""

    config: VllmSchedulerConfig
    requests: tuple[Request, ...]


def stored_tokens(request: Request, config: VllmSchedulerConfig) -> int:
    """Tokens of `request` that ever have a slot in the KV cache."""
    return min(request.prompt_tokens + request.output_tokens, config.max_model_len) - 1


@st.composite
def workloads(
    draw: st.DrawFn,
    policies: Sequence[str] = POLICIES,
    stages: Sequence[int] = (1,),
    long_outputs: bool = False,
) -> Workload:
    """Draw a workload every request of which fits into the KV cache alone; most do not fit together."""
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
        async_scheduling=draw(st.booleans()) if pipeline == 1 else False,
        scheduler_reserve_full_isl=draw(st.booleans()),
        pipeline_stages=pipeline,
        version=draw(st.sampled_from(VERSIONS)),
    )
    count = draw(st.integers(1, 10))
    gaps = draw(st.lists(st.sampled_from([0, 0, 1, 3, 40]), min_size=count, max_size=count))
    arrivals = [sum(gaps[: index + 1]) for index in range(count)]
    return Workload(
        config, tuple(draw(_requests(index, arrivals[index], length, long_outputs)) for index in range(count))
    )


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


@dataclass
class Flight:
    """A batch in the queue; times in steps."""

    batch: Batch
    start: int

    @property
    def end(self) -> int:
        return self.start + self.batch.steps

    @property
    def last_start(self) -> int:
        return self.end - 1


def drive(
    workload: Workload,
    *,
    jump: Callable[[int], int] = lambda most: 0,
    decided: Callable[[VllmScheduler, Batch], None] = lambda scheduler, batch: None,
    updated: Callable[[VllmScheduler, BatchOutcome], None] = lambda scheduler, outcome: None,
    most_steps: int = 20_000,
) -> tuple[VllmScheduler, list[tuple[int, Batch, BatchOutcome]]]:
    """Run `workload` as an instance does and return the scheduler with every batch, its start and its outcome.

    `jump(k)` chooses how many of the `k` further like steps are taken at once; `decided` is called after every
    decision (before further steps are given to it), `updated` after every update.
    """
    scheduler = vllm_scheduler(workload.config)
    arrivals = deque(sorted(workload.requests, key=lambda request: request.arrival_ns))
    flying: deque[Flight] = deque()
    history: list[tuple[int, Batch, BatchOutcome]] = []
    now = 0
    while scheduler.has_unfinished() or arrivals:
        assert len(history) < most_steps, "the workload does not end"
        if scheduler.decides_ahead and flying:
            now = max(now, flying[-1].last_start)
        while arrivals and arrivals[0].arrival_ns <= now:
            scheduler.add(arrivals.popleft(), now)
        batch = scheduler.schedule(now)
        if batch is not None:
            flight = Flight(batch, flying[-1].end if flying else now)
            decided(scheduler, batch)
            most = min([scheduler.steady(batch), *_until(arrivals, flight, scheduler)])
            batch.steps = 1 + jump(most)
            flying.append(flight)
            if len(flying) < scheduler.max_in_flight:
                continue
        if flying:
            done = flying.popleft()
            now = max(now, done.end)
            outcome = scheduler.update(done.batch, now)
            history.append((done.start, done.batch, outcome))
            updated(scheduler, outcome)
        elif arrivals:
            now = arrivals[0].arrival_ns
        else:
            raise AssertionError("requests wait and nothing can run")
    return scheduler, history


def _until(arrivals: deque[Request], flight: Flight, scheduler: VllmScheduler) -> Iterator[int]:
    """How many further steps are decided before the next arrival is seen."""
    if arrivals:
        ahead = 1 if scheduler.decides_ahead else 0
        yield max(0, arrivals[0].arrival_ns - flight.start - 1 + ahead)
