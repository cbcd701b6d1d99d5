"""Contents of KV blocks as numbers: two blocks have the same one iff all tokens up to their end are the same.

The adapter that computed them counts, too. A number stands for the pair of the content before it and the block's own
tokens, which are compared, not hashed away; so equal numbers are equal contents, always.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


class BlockContents:
    """Numbers contents of full blocks of `block_size` tokens, from 1 on, in the order in which they are first met."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._roots: dict[str, int] = {}

    def add(self, token_ids: Sequence[int], adapter: str | None = None) -> IntArray:
        """Return the number of each full block of `token_ids`, ``[full blocks]``."""
        full = len(token_ids) // self._block_size
        width = 8 * self._block_size
        tokens = array("q", token_ids[: full * self._block_size]).tobytes()
        numbers, before = (
            self._numbers,
            0 if adapter is None else self._roots.setdefault(adapter, -1 - len(self._roots)),
        )
        found = np.empty(full, dtype=np.int64)
        for block in range(full):
            before = numbers.setdefault((before, tokens[block * width : (block + 1) * width]), len(numbers) + 1)
            found[block] = before
        return found
