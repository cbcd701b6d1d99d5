"""Requests of a task at a rate: exponential gaps, and the lengths of rows drawn from a recorded trace.

As ReaLLM draws them, but for two things. A prompt and its answer are of one row: in recorded traffic they belong
together, and drawing them apart makes requests that nobody sends. And a draw is a function of seed, task, rate and the
request's number alone, so traffic of one rate does not depend on which others are made beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.reallm.system_file import Traffic
from orchestrator.request_table import RequestTable
from orchestrator.requests.generators.arrivals import ArrivalPlace
from orchestrator.requests.generators.arrivals.poisson import Poisson
from orchestrator.requests.generators.pairs.empirical import Rows
from orchestrator.requests.generators.streams import Stream
from orchestrator.requests.request import Request


def draw(lengths: RequestTable, traffic: Traffic, task: str, rate: float) -> Iterator[Request]:
    """Yield the requests of `task` at `rate` requests/s, with lengths of rows of `lengths`, until one is too late.

    The first arrives one gap after 0, and none at `end_time` or later; there are `max_requests` at most.
    """
    seed = f"{traffic.seed}/{task}/{rate:g}"
    place = ArrivalPlace(rate, 1.0, traffic.max_requests, False, None, lambda _: Stream(seed, "gap"))
    rows = Rows(len(lengths), "drawn", Stream(seed, "row"))
    identity, last_ns = 0, traffic.end_time * 1e9
    for times in Poisson().times(place):
        drawn = lengths.at(rows.next(len(times)))
        columns = (times.tolist(), drawn.prompt_tokens.tolist(), drawn.output_tokens.tolist())
        for arrival_ns, prompt, output in zip(*columns, strict=True):
            if identity == traffic.max_requests or arrival_ns >= last_ns:
                return
            yield Request(identity, arrival_ns, prompt, output)
            identity += 1
