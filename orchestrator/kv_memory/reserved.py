"""KV memory reserved whole when a request is admitted: the baselines that demand paging is compared with.

The three ways to guess a request's length are those of Kwon et al., "Efficient Memory Management for Large Language
Model Serving with PagedAttention", SOSP 2023, section 6.1: the longest sequence that the model takes (`max`), the
prompt and the output rounded up to a power of two (`pow2`), and the true length, as if known (`oracle`).
"""

from __future__ import annotations

from collections.abc import Sequence

from foundation.errors import InternalError
from orchestrator.kv_memory.groups import FULL, LayerGroup
from orchestrator.kv_memory.paged import PagedKV
from orchestrator.kv_memory.store import KVSpace
from orchestrator.requests.request import Request


class ReservedKV(PagedKV):
    """A request holds its whole reservation from its first token to its last; it never grows, so never swaps.

    Windows give nothing back: the room stays reserved.
    """

    def __init__(self, space: KVSpace, groups: Sequence[LayerGroup] = (FULL,)) -> None:
        super().__init__(space, (FULL,) * len(groups))

    def reserved(self, request: Request, tokens: int) -> int:
        """Return the tokens of the reservation, however few are in the cache."""
        return max(tokens, self.reservation(request))

    def reservation(self, request: Request) -> int:
        """Return the tokens for which room is set aside."""
        raise NotImplementedError


class MaxKV(ReservedKV):
    """Room for the longest sequence that the model takes (``--kv_manage max``)."""

    def __init__(self, space: KVSpace, groups: Sequence[LayerGroup] = (FULL,)) -> None:
        if space.max_model_len is None:
            raise InternalError("reserving the longest sequence needs max_model_len")
        super().__init__(space, groups)
        self._longest = space.max_model_len

    def reservation(self, request: Request) -> int:
        """Return the model's longest sequence."""
        return self._longest


class Pow2KV(ReservedKV):
    """Room for the prompt and the output rounded up to a power of two (``--kv_manage pow2``)."""

    def reservation(self, request: Request) -> int:
        """Return prompt plus the power of two that is not below the output expected."""
        return request.prompt_tokens + (1 << (request.expected_output - 1).bit_length())


class OracleKV(ReservedKV):
    """Room for the length that is expected of the request, by default its true one (``--kv_manage oracle``)."""

    def reservation(self, request: Request) -> int:
        """Return prompt plus the output expected."""
        return request.prompt_tokens + request.expected_output
