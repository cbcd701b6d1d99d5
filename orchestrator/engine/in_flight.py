"""A batch on its way through the stages, together with the like steps that its requests took just before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.engine.batch import Batch, Outcome
from orchestrator.engine.records import NO_GAP, CompletedBatch, Gap, Seen, UsageLine
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import KVUsage

IntArray = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class InFlight:
    """What the scheduler has in flight: `batch`, of one step, which the stages begin and end (ns).

    `past` are like steps of the same requests that ended before, one after another, and have not been told yet.
    """

    batch: Batch
    decided_ns: int
    begins: Sequence[int]
    ends: Sequence[int]
    usages: UsageLine
    busy_ns: IntArray
    gap: Gap = NO_GAP
    past: CompletedBatch | None = None

    @property
    def end_ns(self) -> int:
        """When the step ends."""
        return self.ends[-1]

    @property
    def untold_from_ns(self) -> int:
        """When the first of its steps began that are still to be told."""
        return self.begins[0] if self.past is None else self.past.start_ns

    def completed(self, engine: int, outcome: Outcome, after: KVUsage, seen: Sequence[Seen] = ()) -> CompletedBatch:
        """Return what observers are told when the step has ended: it and its past, and whom the engine has seen."""
        own = CompletedBatch(
            engine=engine,
            batch=self.batch,
            decided_ns=self.decided_ns,
            start_ns=self.begins[0],
            ends_ns=np.array([self.end_ns], dtype=np.int64),
            usages=self.usages,
            after=after,
            seen=seen,
            outcome=outcome,
            stages_ns=np.array([[self.begins, self.ends]], dtype=np.int64),
            serials=np.array([self.batch.serial], dtype=np.int64),
            busy_ns=self.busy_ns,
            gap=self.gap,
        )
        return own if self.past is None else joined([self.past, own])

    def as_past(self, engine: int, emitting: Sequence[Request]) -> CompletedBatch:
        """Return it with its past; nobody is done, there is more to come. `emitting` have got a token each step."""
        return self.completed(engine, Outcome(emitting), self.usages.last)


def joined(runs: Sequence[CompletedBatch]) -> CompletedBatch:
    """Return steps of one batch that followed each other as one record."""
    first, last = runs[0], runs[-1]
    if first.stages_ns.shape[2] == 1:
        stages_ns = np.array([[first.stages_ns[0, 0], last.stages_ns[-1, 1]]])
    else:
        stages_ns = np.concatenate([run.stages_ns for run in runs])
    ends_ns = np.concatenate([run.ends_ns for run in runs])
    return CompletedBatch(
        engine=first.engine,
        batch=replace(first.batch, steps=len(ends_ns)),
        decided_ns=first.decided_ns,
        start_ns=first.start_ns,
        ends_ns=ends_ns,
        usages=UsageLine([usage for run in runs for usage in run.usages.runs]),
        after=last.after,
        seen=last.seen,
        outcome=last.outcome,
        stages_ns=stages_ns,
        serials=np.concatenate([run.serials for run in runs]),
        busy_ns=sum((run.busy_ns for run in runs[1:]), first.busy_ns),
        gap=first.gap,  # what follows at once has none
    )
