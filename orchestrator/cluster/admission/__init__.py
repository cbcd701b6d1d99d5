"""Admission control, a rule a file: which requests the front turns away before an engine sees them (`--admission`).

To add one: put a module into this package that registers a record of its settings under a name. All load lightly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from foundation.registry import Registry

if TYPE_CHECKING:
    from orchestrator.cluster.pool import Pool
    from orchestrator.requests.request import Request


class Gate(Protocol):
    """Decides on every request as it comes to the engines, before it is routed."""

    def refuses(self, request: Request, now: int, pool: Pool) -> str | None:
        """Return why `request` is turned away at `now` (one clause), or None.

        What `pool` says is as of `now`: batches that end then have ended, nothing that arrives then has been seen but
        the requests before this one.
        """


class GateSettings(Protocol):
    """The settings of a rule."""

    def gate(self) -> Gate:
        """Return a new gate."""


gates: Registry[type[GateSettings]] = Registry("admission rule", package="orchestrator.cluster.admission")
