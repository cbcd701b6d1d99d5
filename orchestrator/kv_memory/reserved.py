"""KV memory reserved whole when a request is admitted: the baselines that demand paging is compared with.

The three ways to guess a request's length are those of Kwon et al., "Efficient Memory Management for Large Language
Model Serving with PagedAttention", SOSP 2023, section 6.1: the longest sequence that the model takes (`max`), the
prompt and the output rounded up to a power of two (`pow2`), and the true length, as if known (`oracle`).
"""

from __future__ import annotations

from collections.abc import Sequence

from foundation.errors import InternalError
from orchestrator.kv_memory.paged import KVSpace, PagedKV
from orchestrator.request import Request


class ReservedKV(PagedKV):
    """A request holds its whole reservation from its first token to its last; it never grows, so never swaps."""

    def reserved_tokens(self, request: Request) -> int:
        """Return the tokens for which room is set aside."""
        raise NotImplementedError

    def blocks_for(self, request: Request, tokens: int) -> int:
        """Return the blocks of the reservation, however few tokens fill it."""
        return -(-max(tokens, self.reserved_tokens(request)) // self.space.block_size)

    def steps_that_fit(self, tokens: Sequence[int], most: int) -> int:
        """Return `most`: nothing grows."""
        return most


class MaxKV(ReservedKV):
    """Room for the longest sequence that the model takes (``--kv_manage max``)."""

    def __init__(self, space: KVSpace) -> None:
        if space.max_model_len is None:
            raise InternalError("reserving the longest sequence needs max_model_len")
        super().__init__(space)
        self._longest = space.max_model_len

    def reserved_tokens(self, request: Request) -> int:
        """Return the model's longest sequence."""
        return self._longest


class Pow2KV(ReservedKV):
    """Room for the prompt and the output rounded up to a power of two (``--kv_manage pow2``)."""

    def reserved_tokens(self, request: Request) -> int:
        """Return prompt plus the power of two that is not below the output."""
        return request.prompt_tokens + (1 << (request.output_tokens - 1).bit_length())


class OracleKV(ReservedKV):
    """Room for the request's true length (``--kv_manage oracle``)."""

    def reserved_tokens(self, request: Request) -> int:
        """Return prompt plus output."""
        return request.prompt_tokens + request.output_tokens
