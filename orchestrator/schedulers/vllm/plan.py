"""One step being decided, and one that has been: the batch's rows together with the requests they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.batch import Batch
from orchestrator.request import Request
from orchestrator.schedulers.vllm.tracked import Tracked


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
    decodes_only: bool = False

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

    `last` are the requests whose final token it brings, `budget` the tokens that were left over; `decodes_only`
    says that every running request that wanted a token got exactly one, and that nothing else happened.
    """

    batch: Batch
    items: Sequence[Tracked]
    last: list[Tracked]
    decodes_only: bool
    budget: int
    applied: int = 1
    _sampled: frozenset[Tracked] | None = None

    @property
    def sampled(self) -> frozenset[Tracked]:
        """The requests that get a token when this batch finishes."""
        if self._sampled is None:
            pairs = zip(self.items, self.batch.samples, strict=True)
            self._sampled = frozenset(item for item, samples in pairs if samples)
        return self._sampled
