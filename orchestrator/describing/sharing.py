"""What a prefix cache of any size could spare: the share of prompt tokens that earlier requests have computed.

Requests are taken in the order of the table, each as if those before it had ended, so it is an upper bound: what a run
finds depends on its memory, its router, and on who is still under way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.request_table import RequestTable

BLOCK_SIZES = (16, 64, 256)
"""Tokens in a block, each a multiple of the one before; only whole blocks are found."""
MOST_TOKENS = 50_000_000
"""Of prompts that are looked at: a hash of each block is kept."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """Of the first `requests` (`prompt_tokens` in all), how many tokens whole blocks of a size would be found for."""

    requests: int
    prompt_tokens: int
    found_tokens: dict[int, int]

    def share(self, block_size: int) -> float:
        """Return the share of prompt tokens that is found, 0 to 1."""
        return self.found_tokens[block_size] / self.prompt_tokens


def prefix_sharing(table: RequestTable) -> Sharing | None:
    """Return what prompts share, None where their token ids are not known."""
    if table.prompt_ids is None:
        return None
    taken = int(np.searchsorted(np.cumsum(table.prompt_tokens), MOST_TOKENS, side="right")) or 1
    looked = table.at(np.arange(min(taken, len(table))))
    seen: dict[int, set[int]] = {size: set() for size in BLOCK_SIZES}
    found = dict.fromkeys(BLOCK_SIZES, 0)
    for request in looked:
        if request.prompt_token_ids is None:
            continue
        prompt = np.asarray(request.prompt_token_ids[:], dtype=np.uint64)
        answer = np.asarray((request.output_token_ids or ())[:], dtype=np.uint64)
        hashes = _prefix_hashes(np.concatenate((prompt, answer)))
        for size in BLOCK_SIZES:
            ends = hashes[size - 1 :: size].tolist()
            found[size] += size * _leading(ends[: len(prompt) // size], seen[size])
            seen[size].update(ends)
    return Sharing(len(looked), int(looked.prompt_tokens.sum()), found)


def _leading(hashes: list[int], seen: set[int]) -> int:
    """Return how many of the hashes, from the first on, are among those seen."""
    return next((place for place, one in enumerate(hashes) if one not in seen), len(hashes))


def _prefix_hashes(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64-bit hashes of the first 1, 2, 3 ... tokens: sums of a hash of each token at its place."""
    mixed = ids + np.arange(1, len(ids) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.cumsum(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)
