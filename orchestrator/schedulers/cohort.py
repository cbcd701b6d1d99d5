"""Requests that decode together: one token each a step, counted once for all of them.

While a cohort lives, its members' own counters stand still where it was formed; `settle` brings them up to date.
Batches of a cohort share all columns but the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.engine.batch import Batch
from orchestrator.kv_memory.store import KVCohort
from orchestrator.requests.request import Request
from orchestrator.schedulers.tracked import Tracked

IntArray = NDArray[np.int64]
Member = TypeVar("Member", bound=Tracked)


class Cohort(Generic[Member]):
    """`members` and the steps that they have taken together: `decided`, of which the tokens of `arrived` are there."""

    def __init__(self, members: Sequence[Member], kv: KVCohort) -> None:
        self.members = members
        self.kv = kv
        self.decided = 0
        self.arrived = 0
        self._columns: tuple[list[Request], IntArray, IntArray, IntArray] | None = None

    def step(self) -> bool:
        """Decide a step, or return False and change nothing where KV blocks are missing."""
        if not self.kv.step(self.arrived):
            return False
        self.decided += 1
        return True

    def batch(self, serial: int, back: int = 1) -> Batch:
        """Return the batch of the step decided last, or `back` - 1 before it."""
        if self._columns is None:  # many a cohort is foreseen and never decided
            self._columns = self._make_columns()
        requests, ids, context, ones = self._columns
        return Batch(serial, requests, ids, ones, context + (self.decided - back), ones)

    def _make_columns(self) -> tuple[list[Request], IntArray, IntArray, IntArray]:
        """Return requests, their ids, tokens computed when the cohort was formed, and a one each."""
        requests = [member.request for member in self.members]
        ids = np.array([request.id for request in requests], dtype=np.int64)
        context = np.array([member.computed for member in self.members], dtype=np.int64)
        return requests, ids, context, np.ones(len(ids), dtype=np.int64)

    def settle(self) -> None:
        """Write the steps into the members' own counters; the cohort is of no more use then."""
        self.kv.settle()
        decided, arrived = self.decided, self.arrived
        for member in self.members:
            member.computed += decided
            member.tokens += arrived
            member.in_flight += decided - arrived
