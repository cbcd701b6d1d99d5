"""One step being decided, and one that has been: the batch's rows together with the requests they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from orchestrator.batch import Batch
from orchestrator.request import Request
from orchestrator.schedulers.vllm.tracked import Tracked

_REQUEST = attrgetter("request")


class Decodes:
    """Requests that each compute one token a step, and the columns that all their batches share.

    They stay as they are until a request comes, goes or reaches its last step (`steps_left` steps from now).
    """

    __slots__ = ("_members", "items", "new", "requests", "samples", "steps_left")

    def __init__(self, items: list[Tracked]) -> None:
        self.items = items
        self.requests = list(map(_REQUEST, items))
        self.new = [1] * len(items)
        self.samples = [True] * len(items)
        self.steps_left = min([item.limit - item.computed for item in items], default=0)
        self._members: frozenset[Tracked] | None = None

    @property
    def members(self) -> frozenset[Tracked]:
        """The requests as a set."""
        if self._members is None:
            self._members = frozenset(self.items)
        return self._members


@dataclass(slots=True)
class Draft:
    """A step under decision: rows in scheduling order, and the tokens that may still be given out."""

    budget: int
    items: list[Tracked] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    context: list[int] = field(default_factory=list)
    samples: list[bool] = field(default_factory=list)
    admitted: list[tuple[Request, int]] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)
    last: list[Tracked] = field(default_factory=list)
    decodes: Decodes | None = None
    """Set while the rows are exactly those of `decodes`."""

    def take_decodes(self, decodes: Decodes, context: list[int]) -> None:
        """Start with a row for each of `decodes`."""
        self.decodes = decodes
        self.items, self.requests, self.new, self.samples = (
            decodes.items,
            decodes.requests,
            decodes.new,
            decodes.samples,
        )
        self.context = context
        self.budget -= len(context)

    def unshare(self) -> None:
        """Give this batch columns of its own, so that rows can be added."""
        if self.decodes is not None:
            self.decodes = None
            self.items, self.requests = list(self.items), list(self.requests)
            self.new, self.samples = list(self.new), list(self.samples)

    def append(self, item: Tracked, tokens: int, samples: bool) -> None:
        """Add a row: `tokens` are computed after those that `item` has in its KV blocks."""
        self.items.append(item)
        self.requests.append(item.request)
        self.new.append(tokens)
        self.context.append(item.computed)
        self.samples.append(samples)
        self.budget -= tokens

    def drop(self, item: Tracked) -> bool:
        """Take back `item`'s row and tokens if it has any; return whether it had."""
        if item not in self.items:
            return False
        row = self.items.index(item)
        self.budget += self.new[row]
        item.computed = self.context[row]
        if item in self.last:
            self.last.remove(item)
        for column in (self.items, self.requests, self.new, self.context, self.samples):
            del column[row]
        return True


@dataclass(slots=True)
class Plan:
    """A batch in flight. `applied` of its steps are accounted for in the counters and KV blocks of `items`.

    `last` are the requests whose final token it brings, `budget` the tokens that were left over; `decodes` is set
    when every running request that wanted a token got exactly one and nothing else happened.
    """

    batch: Batch
    items: Sequence[Tracked]
    last: list[Tracked]
    decodes: Decodes | None
    budget: int
    applied: int = 1
    _sampled: frozenset[Tracked] | None = None

    @property
    def sampled(self) -> frozenset[Tracked]:
        """The requests that get a token when this batch finishes."""
        if self.decodes is not None:
            return self.decodes.members
        if self._sampled is None:
            pairs = zip(self.items, self.batch.samples, strict=True)
            self._sampled = frozenset(item for item, samples in pairs if samples)
        return self._sampled
