"""What a cluster and its routers know of a serving engine: `engine.engine`, or one that runs as a compiled loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from orchestrator.engine.iterations import Iterations
    from orchestrator.engine.records import Aborted, CompletedBatch, Rejected
    from orchestrator.request_table import RequestTable
    from orchestrator.requests.admission import Admission
    from orchestrator.requests.request import Request
    from orchestrator.schedulers.interface import KVUsage


class AnyEngine(Protocol):
    """An engine on the clock; `orchestrator.engine.engine.Engine` says what each method does."""

    number: int
    hands_over: bool
    lazy: bool
    """Whether it has to be told when nobody comes any more (`expect` of `NEVER`): only then does it go on by itself."""

    @property
    def now(self) -> int:
        """When it acted last (ns)."""

    @property
    def waits(self) -> bool:
        """Whether it will go on though `next_event` says nothing."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of work that it tells apart."""

    def submit(self, admission: Admission, now: int) -> Rejected | None:
        """Take a request in, or say why not."""

    def turned_away(self, request: Request, now: int) -> Rejected | None:
        """Return why a request would not be taken in at `now`, or None."""

    def abort(self, request: Request, now: int) -> None:
        """Hear that the client of a request has gone."""

    def disturb(self, now: int) -> None:
        """Hear that what may be decided changes at `now`."""

    def begun(self, request: Request, now: int) -> bool:
        """Whether a request has had its first token before `now`."""

    def expect(self, horizon_ns: int) -> None:
        """Hear that nothing is likely to come before `horizon_ns`."""

    def load(self, now: int) -> KVUsage:
        """Return the state just before the decisions at `now`; who has not been seen yet is waiting."""

    def reported(self, now: int) -> KVUsage:
        """Return the state as the engine's own loop told it last."""

    def cached_tokens(self, request: Request, now: int) -> int:
        """Return how many leading tokens of a request would be found in the KV memory by a decision at `now`."""

    def next_event(self) -> tuple[int, int] | None:
        """Return when it acts next (ns) and the event's priority; None if only something outside moves it."""

    def step(self, now: int) -> Sequence[CompletedBatch | Aborted | Iterations]:
        """Do what is due at `now`; return what observers are told."""

    def idle(self) -> bool:
        """Whether nothing is in flight, waiting or yet to be seen."""

    def usage(self) -> KVUsage:
        """Return the KV memory's state, and requests by state."""

    def told_until(self) -> int:
        """Return the moment (ns) from which on batches are still to come."""


@runtime_checkable
class TakesMany(Protocol):
    """An engine to which requests can be handed many at a time."""

    def takes(self, table: RequestTable) -> bool:
        """Whether it would take in all requests of a table, and has no need of them as objects."""

    def take(self, rows: RequestTable) -> None:
        """Take requests in, each when it arrives, in order of arrival; all others came before."""


@runtime_checkable
class KeepsTokenTimes(Protocol):
    """An engine that tells the times between each request's tokens only where they are asked for."""

    def keep_token_times(self) -> None:
        """Have them told; nobody has come yet."""
