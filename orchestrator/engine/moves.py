"""Who moves the KV cache that an engine's policy evicts and loads, where its batches do not do so themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.engine.batch import Batch
from orchestrator.requests.request import Request


class Moves(Protocol):
    """A way that engines share, so that a batch may have to wait for its turn."""

    def move(self, batch: Batch, now: int) -> int:
        """Move what `batch`, decided at `now`, evicts and loads; return when (ns) it may begin to compute."""

    def forget(self, requests: Sequence[Request]) -> None:
        """Requests are gone; what was evicted of them is needed no more."""
