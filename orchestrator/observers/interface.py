"""The contract of observers: what they are told of a run, in order of simulated time, and how one ends it.

    begin(run)            before the first event
    batch(done)           a batch has ended; those of one engine come in order of their ends
    iterations(told)      many iterations of one engine have ended: instead of its batches, where everybody who
                          overrides `batch` overrides this, too (`hears_iterations`)
    dummy(record)         an engine begins a pass with nothing of its own, for others that run in lock step with it
    turned_away(record)   a request was rejected, or given up by its client
    transferred(record)   KV cache has come from one engine to another
    finished(rows)        requests have finished: columns, in order of (end, id) over the whole run, in blocks
    interval(interval)    a piece of time is over, and everything in it has been told
    end(result)           after the last event, however the run ended
    close()               last of all, also after a defect that left no result

An observer derives from `Observer` and overrides what it wants to hear; what it does not override costs nothing. Any of
them may raise `Stop`, which ends the run in order: what finished until then is the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass

if TYPE_CHECKING:
    from orchestrator.deployment import Deployment
    from orchestrator.engine.iterations import Iterations
    from orchestrator.engine.records import Aborted, CompletedBatch, DummyPass, Rejected, Transferred
    from orchestrator.observers.intervals import Interval
    from orchestrator.request_source import RequestSource
    from orchestrator.result import RunResult
    from orchestrator.settings.specification import RunSpec

IntArray = NDArray[np.int64]


class Stop(Exception):
    """Raised by an observer to end the run; `str(stop)` is the reason, one clause."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is about to be simulated: what was asked for, the same with nothing left open, its engines, its requests.

    `deployments`: of each engine, in their order; like engines have the same. `notes`: what a user should know of the
    files that it was read from.
    """

    asked: RunSpec
    spec: RunSpec
    deployments: Sequence[Deployment]
    source: RequestSource
    notes: Sequence[str] = ()

    def places(self) -> dict[Deployment, list[int]]:
        """Return the deployments that differ, in the order of their first engines, and the numbers of their engines."""
        found: dict[Deployment, list[int]] = {}
        for number, deployment in enumerate(self.deployments):
            found.setdefault(deployment, []).append(number)
        return found

    def kinds(self) -> list[Deployment]:
        """The deployments that differ, in the order of their first engines."""
        return list(dict.fromkeys(self.deployments))


@dataclass(frozen=True, slots=True, eq=False)
class FinishedRows:
    """Requests that have finished, as columns ``[n]`` (see `orchestrator.observers.finished.COLUMNS`), times in ns.

    `itl`: the times between each one's tokens, where these are asked for.
    """

    columns: dict[str, IntArray]
    itl: Sequence[IntArray] | None = None

    def __len__(self) -> int:
        return len(self.columns["id"])


class Observer:
    """Is told of a run; see the module's docstring. Every method does nothing until it is overridden."""

    wants_itl = False
    """Whether rows of finished requests shall bring the times between their tokens; asked once, after `begin`."""

    def begin(self, run: Run) -> None:
        """Hear what is about to be simulated."""

    def batch(self, done: CompletedBatch) -> None:
        """Hear that a batch has ended."""

    def iterations(self, told: Iterations) -> None:
        """Hear that iterations have ended, instead of their batches."""

    def dummy(self, record: DummyPass) -> None:
        """Hear that an engine makes a dummy pass."""

    def turned_away(self, record: Rejected | Aborted) -> None:
        """Hear that a request was rejected or given up."""

    def transferred(self, record: Transferred) -> None:
        """Hear that KV cache has come from one engine to another."""

    def finished(self, rows: FinishedRows) -> None:
        """Hear that requests have finished."""

    def interval(self, interval: Interval) -> None:
        """Hear that an interval is over."""

    def end(self, result: RunResult) -> None:
        """Hear how the run ended."""

    def close(self) -> None:
        """Let go of files and the like."""


def hooks(observers: Sequence[Observer], name: str) -> list[Callable[[Any], None]]:
    """Return the methods called `name` of those observers that override it."""
    plain = getattr(Observer, name)
    return [getattr(one, name) for one in observers if getattr(type(one), name) is not plain]


def hears_iterations(observers: Sequence[Observer]) -> bool:
    """Whether engines may tell of many iterations at once: whoever wants batches can be told of them in that way, too.

    One who inherits `iterations` but has a `batch` of his own cannot: what he does in it would be left out.
    """
    return all(_place(type(one), "iterations") <= _place(type(one), "batch") for one in observers)


def _place(kind: type[Observer], name: str) -> int:
    """Return how far up the line of ancestors the method called `name` is defined."""
    return next(place for place, ancestor in enumerate(kind.__mro__) if name in vars(ancestor))
