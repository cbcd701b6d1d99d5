"""A scheduler step by step, without an engine: what tests of policies compare with tables worked out by hand."""

from __future__ import annotations

from orchestrator.engine.batch import Batch
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Scheduler
from tests.orchestrator.serving import requests


def add(policy: Scheduler, rows: list[tuple[int, int]], first: int = 0, computed: int = 0) -> list[Request]:
    """Add requests of (prompt tokens, output tokens), numbered from `first`, with `computed` tokens in the cache."""
    added = requests([(prompt, output, 0) for prompt, output in rows])
    for request in added:
        request.id += first
        policy.add(Admission(request, computed), 0)
    return added


def ended(batch: Batch) -> set[Request]:
    """Return whose answer is complete with the token that `batch` computes."""
    after = (batch.context_tokens + batch.new_tokens).tolist()
    pairs = zip(batch.requests, after, strict=True)
    return {request for request, tokens in pairs if tokens == request.prompt_tokens + request.output_tokens - 1}


def step(policy: Scheduler) -> Batch:
    """Decide a step and let it finish."""
    batch = policy.schedule(0)
    assert batch is not None
    policy.update(batch, ended(batch), 0)
    return batch


def ids(batch: Batch) -> list[int]:
    """Return whose rows they are."""
    return [request.id for request in batch.requests]


def told(policy: Scheduler) -> str:
    """Decide a step, let it finish, and tell of it: rows ``request:new@context``, who moved, blocks free in it."""
    batch = policy.schedule(0)
    assert batch is not None
    free = policy.usage().free_blocks
    columns = (ids(batch), batch.new_tokens.tolist(), batch.context_tokens.tolist())
    parts = [f"{number}:{new}@{context}" for number, new, context in zip(*columns, strict=True)]
    parts += [f"-{request.id}" for request in batch.preempted]
    parts += [f"out {moved.request_id}x{moved.blocks}" for moved in batch.kv_evictions]
    parts += [f"in {moved.request_id}x{moved.blocks}" for moved in batch.kv_loads]
    policy.update(batch, ended(batch), 0)
    return f"{' '.join(parts)} | {free}"
