"""Requests of a task at a rate: exponential gaps, and the lengths of rows drawn from a recorded trace.

As ReaLLM draws them, but for two things. A prompt and its answer are of one row: in recorded traffic they belong
together, and drawing them apart makes requests that nobody sends. And a draw is a function of seed, task, rate and the
request's number alone, so traffic of one rate does not depend on which others are made beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

from orchestrator.reallm.system_file import Traffic
from orchestrator.request_table import RequestTable
from orchestrator.requests.request import Request


def draw(lengths: RequestTable, traffic: Traffic, task: str, rate: float) -> Iterator[Request]:
    """Yield the requests of `task` at `rate` requests/s, with lengths of rows of `lengths`, until one is too late.

    The first arrives one gap after 0, and none at `end_time` or later; there are `max_requests` at most.
    """
    gaps, rows = (Random(f"{traffic.seed}/{task}/{rate:g}/{purpose}") for purpose in ("gap", "row"))
    prompts, outputs = lengths.prompt_tokens.tolist(), lengths.output_tokens.tolist()
    arrival_ns, last_ns = 0, traffic.end_time * 1e9
    for identity in range(traffic.max_requests):
        arrival_ns += round(-math.log(gaps.random() or 2.0**-54) / rate * 1e9)
        if arrival_ns >= last_ns:
            return
        row = int(rows.random() * len(prompts))
        yield Request(identity, arrival_ns, prompts[row], outputs[row])
