"""What a decision costs: microseconds of CPU a step for `schedule` and `update`, every step decided singly.

    python -m benchmarks.vllm_scheduler [CASE.json]

A case is replayed without recording it; then 16 to 512 requests decode, with prefix caching off and on. The last
part runs one request for many steps and reports how memory grows.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Set
from pathlib import Path

from orchestrator.engine.batch import Batch
from orchestrator.replay.case import Case, read_case
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig

NOBODY: Set[Request] = frozenset()
VLLM_DECODE_US = {1: 16, 16: 100, 64: 370, 128: 770, 256: 1800, 512: 4000}
"""vLLM 0.19's own CPU time a step by requests running (one core of a shared two-core machine, Python 3.11)."""


def time_case(case: Case) -> tuple[int, float, float]:
    """Replay `case` (synchronous); return its steps, requests scheduled a step, and CPU microseconds a step."""
    scheduler = VllmScheduler(case.config)
    arrivals = deque(sorted(case.requests, key=lambda request: request.arrival_ns))
    left = {request: request.output_tokens for request in case.requests}
    now = steps = rows = 0
    spent = 0.0
    while True:
        while arrivals and arrivals[0].arrival_ns <= now * 1000:
            scheduler.add(Admission(arrivals.popleft(), 0), now * 1000)
        start = time.process_time()
        batch = scheduler.schedule(now * 1000)
        spent += time.process_time() - start
        if batch is None:
            if not arrivals:
                return steps, rows / steps, spent / steps * 1e6
            now = arrivals[0].arrival_ns // 1000
            continue
        tokens = int(batch.new_tokens.sum())
        now += case.latency.step_us(tokens, int(batch.context_tokens.sum()) + tokens)
        ended = _ended(left, batch)
        start = time.process_time()
        scheduler.update(batch, ended, now * 1000)
        spent += time.process_time() - start
        steps += 1
        rows += len(batch.requests)


def _ended(left: dict[Request, int], batch: Batch) -> Set[Request]:
    """Count the tokens that `batch` brings; return whose answer is complete."""
    ended = set()
    for request, samples in zip(batch.requests, batch.samples.tolist(), strict=True):
        left[request] -= samples
        if not left[request]:
            ended.add(request)
    return ended


def time_decodes(running: int, steps: int, caching: bool, ahead: bool) -> float:
    """Return CPU microseconds a step while `running` requests decode."""
    config = VllmSchedulerConfig(
        num_gpu_blocks=running * (steps + 400) // 16 + running + 100,
        max_model_len=steps + 1000,
        max_num_seqs=running,
        max_num_batched_tokens=running * 300,
        enable_prefix_caching=caching,
        async_scheduling=ahead,
    )
    scheduler = VllmScheduler(config)
    for index in range(running):
        scheduler.add(Admission(Request(index, 0, 100 + index % 16, steps + 100), 0), 0)
    flying = deque(scheduler.schedule(0) for _ in range(scheduler.places))
    start = time.process_time()
    for _ in range(steps):
        batch = flying.popleft()
        assert batch is not None
        scheduler.update(batch, NOBODY, 0)
        flying.append(scheduler.schedule(0))
    return (time.process_time() - start) / steps * 1e6


def memory_growth(steps: int) -> tuple[int, int]:
    """Return bytes held after a tenth of `steps` and after all of them, the same requests coming again and again."""
    config = VllmSchedulerConfig(num_gpu_blocks=200, max_model_len=512, max_num_seqs=8)
    scheduler = VllmScheduler(config)
    held = []
    tracemalloc.start()
    for step in range(steps):
        if not scheduler.usage().waiting:
            ids = [step % 7] * 64
            scheduler.add(Admission(Request(step, 0, 64, 32, prompt_token_ids=ids), 0), 0)
        batch = scheduler.schedule(0)
        flights = scheduler.ledger.flights
        if batch is not None and len(flights) == scheduler.places:
            scheduler.update(flights[0].batch, NOBODY, 0)
        if step + 1 in (steps // 10, steps):
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    return held[0], held[1]


def main() -> None:
    if len(sys.argv) > 1:
        case = read_case(Path(sys.argv[1]), "0.19")
        best = min((time_case(case) for _ in range(5)), key=lambda timing: timing[2])
        print(f"case {sys.argv[1]}: {best[0]} steps, {best[1]:.0f} requests a step, {best[2]:.1f} us a step")
    for running, theirs in VLLM_DECODE_US.items():
        timings = {
            f"{'caching' if caching else 'plain'}{', ahead' if ahead else ''}": min(
                time_decodes(running, 1000, caching, ahead) for _ in range(3)
            )
            for caching in (False, True)
            for ahead in (False, True)
        }
        figures = "  ".join(f"{name} {value:6.1f} us" for name, value in timings.items())
        print(f"{running:4d} decoding: {figures}  (vLLM {theirs} us, {theirs / timings['plain']:.0f} x)")
    early, late = memory_growth(50_000)
    print(f"memory: {early / 1e3:.0f} kB after 5,000 steps, {late / 1e3:.0f} kB after 50,000")


if __name__ == "__main__":
    main()
