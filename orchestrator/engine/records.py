"""What observers are told: batches that have ended, requests that were turned away or given up, KV cache that moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.engine.batch import Batch, Outcome
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import KVUsage

IntArray = NDArray[np.int64]


FRONT = -1
"""In place of an engine's number: the request had not been sent to any."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that the engine came to see at `queued_ns`."""

    request: Request
    queued_ns: int


class Gap(NamedTuple):
    """Time before a batch in which the engine ran nothing: somebody was waiting, or nobody was there (ns)."""

    waiting_ns: int
    idle_ns: int


NO_GAP = Gap(0, 0)


@dataclass(slots=True, eq=False)
class UsageLine:
    """The KV memory's state as each step of a batch was decided: runs of steps that differ in free blocks only."""

    runs: list[tuple[KVUsage, IntArray]]

    def at(self, step: int) -> KVUsage:
        """Return the state as step `step` (from 0) was decided."""
        for usage, free in self.runs:
            if step < len(free):
                return usage.with_free(int(free[step]))
            step -= len(free)
        raise IndexError(step)

    @property
    def last(self) -> KVUsage:
        """The state as the last step was decided."""
        usage, free = self.runs[-1]
        return usage.with_free(int(free[-1]))

    @property
    def least_free_blocks(self) -> int:
        """The fewest KV blocks that were free as a step was decided."""
        return min(int(free.min()) for _, free in self.runs)


@dataclass(frozen=True, slots=True, eq=False)
class CompletedBatch:
    """A batch that ran, in one step or several: its first decided and started when (ns), the end of each, ``[steps]``.

    In a pipeline other batches may have begun and ended between two of its steps.

    - `seen`: the requests that the engine came to see since it told of a batch, but for those who have gone again;
    - `usages`: the KV memory's state as each step was decided, `after`: when the batch had been accounted for;
    - `stages_ns` ``[runs, 2, stages]``: when each stage began and ended each run of steps that nothing came between:
      all of them on a single stage, one step in a pipeline;
    - `serials` ``[steps]``: each step's number among the engine's iterations;
    - `busy_ns`: simulated time of its steps by class of work (`orchestrator.pricing.interface.Cost`), over all stages;
    - `gap`: before its first step, from the end of all that was decided earlier.
    """

    engine: int
    batch: Batch
    decided_ns: int
    start_ns: int
    ends_ns: IntArray
    usages: UsageLine
    after: KVUsage
    seen: Sequence[Seen]
    outcome: Outcome
    stages_ns: IntArray
    serials: IntArray
    busy_ns: IntArray
    gap: Gap = NO_GAP

    @property
    def end_ns(self) -> int:
        """When the last step ended."""
        return int(self.ends_ns[-1])

    @property
    def last_step_start_ns(self) -> int:
        """When the last step began, at the latest: where batches take turns, when the one before it ended."""
        return int(self.ends_ns[-2]) if len(self.ends_ns) > 1 else self.start_ns


@dataclass(frozen=True, slots=True)
class DummyPass:
    """An engine takes part in a wave of its group (`orchestrator.cluster.waves`) with nothing of its own to run.

    Told when the wave begins; from then on the engine's devices are busy until `end_ns`. `gap`: since its last pass.
    """

    engine: int
    start_ns: int
    end_ns: int
    gap: Gap


@dataclass(frozen=True, slots=True)
class Aborted:
    """A request that the engine (or `FRONT`) has forgotten, because its client went away: when (ns) it did so."""

    engine: int
    request: Request
    now: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A request that the engine's front end, or that of the whole cluster (`FRONT`), did not take."""

    engine: int
    request: Request
    now: int
    reason: str


@dataclass(frozen=True, slots=True)
class Transferred:
    """KV cache of a request that has come from engine `source` to `target`: `bytes` over all ranks, and when (ns).

    It was wanted at `asked_ns`, began to move at `began_ns` and was there at `came_ns`.
    """

    request: Request
    source: int
    target: int
    bytes: int
    asked_ns: int
    began_ns: int
    came_ns: int
