"""Contents of KV blocks as numbers: two blocks have the same one iff all tokens up to their ends are the same.

That is what `kv_memory.prefix_chain` asks of hashes, here by one of 128 bits in two halves, whose steps are one to one
in what came before. Numbers are given from 1 on, in the order in which contents are first met.
"""

from __future__ import annotations

import numpy as np

from orchestrator.engine.compiled.layout import IntArray, SmallArray
from orchestrator.engine.compiled.numbering import AT, ROW, STARTS, USED, WordArray, move_slots, number_blocks
from orchestrator.kv_memory.prefix_chain import known_tokens
from orchestrator.request_table import RequestTable
from orchestrator.requests.request import Request


class Contents:
    """The numbers of contents of blocks of `block_size` tokens."""

    def __init__(self, block_size: int) -> None:
        self._size = block_size
        self._keys: WordArray = np.zeros((1024, 2), dtype=np.uint64)
        self._slots: SmallArray = np.zeros(256, dtype=np.int32)
        self._scalars = np.zeros(4, dtype=np.int64)

    def of(self, request: Request) -> SmallArray:
        """Return the number of each leading block of a request whose tokens are all known, ``[blocks]``."""
        tokens = np.array(known_tokens(request), dtype=np.int64)
        bounds = np.array([[0, len(tokens), 0, 0]])
        return self._numbered(tokens, _NO_TOKENS, bounds)

    def of_rows(self, rows: RequestTable) -> tuple[SmallArray, IntArray]:
        """Return those of requests, one after another, and how many each has."""
        assert rows.prompt_ids is not None
        prompts, bounds = rows.prompt_ids.flat()
        answers, ends = _NO_TOKENS, np.zeros_like(bounds)
        if rows.output_ids is not None:
            answers, ends = rows.output_ids.flat()
        known = bounds[:, 1] - bounds[:, 0]
        if ((known != rows.prompt_tokens) & (known > 0)).any():
            for request in rows:
                known_tokens(request)  # says which, and what is wrong
        ends[known == 0] = 0
        counts: IntArray = (known + ends[:, 1] - ends[:, 0]) // self._size
        return self._numbered(prompts, answers, np.concatenate((bounds, ends), axis=1)), counts

    def _numbered(self, prompts: IntArray, answers: IntArray, bounds: IntArray) -> SmallArray:
        tokens = bounds[:, 1] - bounds[:, 0] + bounds[:, 3] - bounds[:, 2]
        numbers = np.zeros(int((tokens // self._size).sum()), dtype=np.int32)
        scalars = self._scalars
        scalars[[ROW, AT]] = 0
        with np.errstate(over="ignore"):  # as plain Python
            while not number_blocks(
                prompts, answers, bounds, self._size, self._keys, self._slots, scalars, numbers
            ):  # fmt: skip
                self._grow(int(tokens[scalars[ROW]]) // self._size)
        return numbers

    def _grow(self, more: int) -> None:
        """Make room for `more` contents, and for one more that others do not lead to."""
        used, room = int(self._scalars[USED]), len(self._keys)
        if used + more >= room:
            keys = np.zeros((max(2 * room, used + more + 1), 2), dtype=np.uint64)
            keys[:used] = self._keys[:used]
            self._keys = keys
        if 2 * self._scalars[STARTS] >= len(self._slots) - 1:
            slots = np.zeros(4 * len(self._slots), dtype=np.int32)
            move_slots(self._keys, self._slots, slots)
            self._slots = slots


_NO_TOKENS: IntArray = np.zeros(0, dtype=np.int64)
