"""Records of batches made by hand, as an engine would tell them: what tests of observers are given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.engine.batch import Batch, Outcome
from orchestrator.engine.records import CompletedBatch, Gap, Seen, UsageLine
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import KVUsage

USAGE = KVUsage(total_blocks=10, free_blocks=6, running=2, waiting=3)


def request(identity: int, prompt: int = 5, output: int = 100, arrival: int = 0) -> Request:
    return Request(identity, arrival, prompt, output)


def done(
    start: int,
    ends: Sequence[int],
    requests: Sequence[Request],
    *,
    new: Sequence[int] | None = None,
    context: Sequence[int] | None = None,
    seen: Sequence[Request] = (),
    admitted: Sequence[Request] = (),
    finished: Sequence[Request] = (),
    emitted: Sequence[Request] | None = None,
    emits: Sequence[int] | None = None,
    usage: KVUsage = USAGE,
    engine: int = 0,
    busy: Sequence[int] = (),
    stages: Sequence[tuple[int, int]] | None = None,
    gap: tuple[int, int] = (0, 0),
) -> CompletedBatch:
    """A batch of `requests` whose steps end at `ends`; unless said otherwise, all decode one token and get one.

    `emits`: how many tokens each of `emitted` gets at a step.
    """
    ids, tokens = [one.id for one in requests], new or [1] * len(requests)
    known = [one.prompt_tokens for one in requests] if context is None else list(context)
    batch = Batch(
        0,
        requests,
        np.array(ids, dtype=np.int64),
        np.array(tokens, dtype=np.int64),
        np.array(known, dtype=np.int64),
        np.ones(len(requests), dtype=np.int64),
        admitted=[(one, 0) for one in admitted],
        steps=len(ends),
    )
    return CompletedBatch(
        engine,
        batch,
        start,
        start,
        np.array(ends, dtype=np.int64),
        UsageLine([(usage, np.full(len(ends), usage.free_blocks))]),
        usage,
        [Seen(one, max(start, one.arrival_ns), one.arrival_ns) for one in seen],
        Outcome(requests if emitted is None else emitted, finished, emits),
        np.array([list(zip(*(stages or [(start, ends[-1])]), strict=True))], dtype=np.int64),
        np.arange(len(ends)),
        np.array(busy, dtype=np.int64),
        Gap(*gap),
    )
