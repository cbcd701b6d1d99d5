"""The contract of a kind of feed-forward network: what a layer asks of it."""

from __future__ import annotations

from typing import Protocol

from trace_gen.operators import Operator, OperatorMaker


class Mlp(Protocol):
    """One layer's feed-forward network. Implementations are frozen: equal ones are the same kind of layer."""

    @property
    def inner(self) -> int:
        """Elements of the inner state of a token, over all ranks."""

    def operators(self, make: OperatorMaker, source: str) -> list[Operator]:
        """Return the operators from the norm called `source` to the last projection, on one rank of `make`."""
