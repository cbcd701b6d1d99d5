"""The orders in which waiting requests are taken (`--queue_order`): a named key each; the least goes first.

Of requests with equal keys the first to come goes first. Nobody who has started is overtaken: an order is of those that
wait. How long an answer will be no server knows; the orders that ask for it read `Request.expected_output`, which is
the truth unless the workload says otherwise, as an oracle or a predictor of lengths would have it (Fu et al.,
"Efficient LLM Scheduling by Learning to Rank", NeurIPS 2024, for `shortest-output`).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, MutableSequence
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from orchestrator.requests.request import Request

Order = Callable[["Request"], int]


class _Entry(Protocol):
    @property
    def request(self) -> Request: ...


Entry = TypeVar("Entry", bound=_Entry)


def fcfs(request: Request) -> int:
    """First come, first served: all are equal."""
    return 0


def shortest_job(request: Request) -> int:
    """Prompt and answer, tokens."""
    return request.prompt_tokens + request.expected_output


ORDERS: Mapping[str, Order] = {
    "fcfs": fcfs,
    "priority": lambda request: request.priority,
    "sjf": shortest_job,
    "ljf": lambda request: -shortest_job(request),
    "shortest-prompt": lambda request: request.prompt_tokens,
    "longest-prompt": lambda request: -request.prompt_tokens,
    "shortest-output": lambda request: request.expected_output,
    "longest-output": lambda request: -request.expected_output,
}
"""`priority`: the lower number first, as vLLM's."""


def line_up(queue: MutableSequence[Entry], entry: Entry, order: Order) -> None:
    """Put `entry` into a queue that is in `order`, behind its equals."""
    insort(queue, entry, key=lambda waiting: order(waiting.request))
