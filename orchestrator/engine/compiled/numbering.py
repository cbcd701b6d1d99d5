"""The search for contents of KV blocks among those that have a number; see `contents`, which holds them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.compiling import compiled, inner
from orchestrator.engine.compiled.layout import IntArray, SmallArray

WordArray = NDArray[np.uint64]
USED, STARTS, ROW, AT = 0, 1, 2, 3
"""Places of `scalars`: contents that have a number, those of them in `slots`, the next row, where its numbers go."""


@compiled
def number_blocks(
    prompts: IntArray, answers: IntArray, bounds: IntArray, size: int, keys: WordArray, slots: SmallArray,
    scalars: IntArray, numbers: SmallArray,
) -> bool:  # fmt: skip
    """Write the number of each full block of `size` tokens of rows into `numbers`; False: there is no room for more.

    A row's tokens are ``prompts[b[0] : b[1]]``, then ``answers[b[2] : b[3]]`` with its `bounds` b ``[rows, 4]``. `keys`
    ``[contents, 2]`` holds what is numbered. What a row brings anew has numbers that follow each other, so it is found
    behind the number of what comes before it; only the first of it is in `slots`, by its key (0: nothing is).
    It goes on where it stopped when it is called again.
    """
    for row in range(scalars[ROW], len(bounds)):
        scalars[ROW] = row
        prompt, tokens = bounds[row, 1] - bounds[row, 0], bounds[row, 3] - bounds[row, 2]
        tokens += prompt
        if scalars[USED] + tokens // size >= len(keys) or 2 * scalars[STARTS] >= len(slots) - 1:
            return False
        first, second = np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344)  # digits of pi
        known, is_new = 0, False
        for block in range(tokens // size):
            for place in range(block * size, (block + 1) * size):
                if place < prompt:
                    word = np.uint64(prompts[bounds[row, 0] + place])
                else:
                    word = np.uint64(answers[bounds[row, 2] + place - prompt])
                # Odd factors: those of SplitMix64's steps (Steele et al., OOPSLA 2014).
                first = (first ^ word) * np.uint64(0xBF58476D1CE4E5B9)
                first ^= first >> np.uint64(32)
                second = (second + word) * np.uint64(0x94D049BB133111EB)
                second ^= second >> np.uint64(29)
            if not is_new:
                if keys[known, 0] == first and keys[known, 1] == second:
                    known += 1
                else:
                    slot = find(keys, slots, first, second)
                    known, is_new = slots[slot], slots[slot] == 0
                    if is_new:
                        slots[slot] = scalars[USED] + 1
                        scalars[STARTS] += 1
            if is_new:
                keys[scalars[USED], 0], keys[scalars[USED], 1] = first, second
                scalars[USED] += 1
                known = scalars[USED]
            numbers[scalars[AT]] = known
            scalars[AT] += 1
    return True


@inner
def find(keys: WordArray, slots: SmallArray, first: np.uint64, second: np.uint64) -> np.int64:
    """Return the slot of a key, or the empty one where it would be."""
    mask = np.uint64(len(slots) - 1)
    slot = np.int64((first ^ (second >> np.uint64(7))) & mask)
    while slots[slot] and not (keys[slots[slot] - 1, 0] == first and keys[slots[slot] - 1, 1] == second):
        slot = np.int64((np.uint64(slot) + np.uint64(1)) & mask)
    return slot


@compiled
def move_slots(keys: WordArray, old: SmallArray, slots: SmallArray) -> None:
    """Fill empty `slots` with what is in `old` ones."""
    for number in old:
        if number:
            slots[find(keys, slots, keys[number - 1, 0], keys[number - 1, 1])] = number
