"""Contents of KV blocks as numbers: two blocks have the same one iff their hashes are (`kv_memory.prefix_chain`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.kv_memory.prefix_chain import chain_of
from orchestrator.requests.request import Request

IntArray = NDArray[np.int64]


class BlockContents:
    """Numbers contents of full blocks of `block_size` tokens, from 1 on, in the order in which they are first met."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._numbers: dict[bytes, int] = {}

    def of(self, request: Request) -> IntArray:
        """Return the number of each leading block of a request whose tokens are all known, ``[blocks]``."""
        chain, numbers = chain_of(request, self._block_size), self._numbers
        if chain.blocks:
            chain.hash(chain.blocks - 1)  # all at once
        found = (numbers.setdefault(chain.hash(block), len(numbers) + 1) for block in range(chain.blocks))
        return np.fromiter(found, dtype=np.int64, count=chain.blocks)
