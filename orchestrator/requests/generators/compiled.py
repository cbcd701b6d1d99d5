"""Token ids of many keys at once, compiled; see `token_ids.hashed`, which says the same in arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.compiling import compiled


@compiled
def fill_hashed(keys: NDArray[np.uint64], counts: NDArray[np.int64], vocabulary: int, ids: NDArray[np.int64]) -> None:
    """Fill `ids` with ``counts[i]`` ids of each of `keys`, one key after the other."""
    at = 0
    for part in range(len(keys)):
        step = keys[part]
        for _ in range(counts[part]):
            step += np.uint64(0x9E3779B97F4A7C15)
            bits = (step ^ (step >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            bits = (bits ^ (bits >> np.uint64(31))) >> np.uint64(32)
            ids[at] = np.int64((bits * np.uint64(vocabulary)) >> np.uint64(32))
            at += 1
