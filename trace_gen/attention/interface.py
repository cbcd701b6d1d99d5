"""The contract of a kind of attention: what a layer asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from foundation.records import dataclass
from trace_gen.attention.work import AttentionShape
from trace_gen.operators import Operator, OperatorMaker, Portion
from trace_gen.precision import Precision


class KVKind(StrEnum):
    """What a layer keeps of a sequence, which decides how its KV blocks are managed."""

    FULL = "full"
    """Keys and values of every token."""
    SLIDING = "sliding"
    """Those of the last tokens only: blocks that fell out of the window are free."""
    LATENT = "latent"
    """One compressed vector a token, whole on every tensor-parallel rank."""


@dataclass(frozen=True, slots=True)
class KVLayer:
    """What one layer keeps on one rank: bytes a token, and the tokens of its window (None: all)."""

    kind: KVKind
    window: int | None
    bytes_per_token: int


class Attention(Protocol):
    """One layer's attention. Implementations are frozen: equal ones are the same kind of layer."""

    def operators(self, make: OperatorMaker, source: str) -> list[Operator]:
        """Return the operators from the norm called `source` to the output projection, on one rank of `make`."""

    def shapes(self, tensor: int, precision: Precision) -> Mapping[Portion, AttentionShape]:
        """Return what decides the work of attention itself on one of `tensor` ranks.

        By the portion of its operators of class ATTENTION: `Portion.ALL` where one of them attends for all requests.
        """

    def kv(self, tensor: int, precision: Precision) -> KVLayer:
        """Return what one of `tensor` ranks keeps in the KV cache."""

    def kv_share(self, tensor: int, precision: Precision) -> KVLayer:
        """Return the same where ranks hold whole requests: the mean over the ranks, nothing held twice."""

    def warnings(self, tensor: int) -> tuple[str, ...]:
        """Return what a user should know of dividing it by `tensor` ranks, each the end of ``<model> has ...``."""
