"""The numbers of a table of attention, for `profile.compiled`: all its slices laid end to end.

`floats` holds sizes, `table` times, and `places` says where: rows of slices, rows of chunks, and lists of such rows.
Where a list of sizes is, is said by its place and, next to it, its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from trace_gen.attention_numbers import PROFILE, SHAPE_NUMBERS, CompiledAttention, shape_numbers

if TYPE_CHECKING:
    from trace_gen.attention.work import AttentionShape
    from trace_gen.perf_models.profile.attention import AttentionTable, Slice
    from trace_gen.perf_models.profile.skew import Skew, Tail

SQUARES_FROM = 256
"""Tokens of a chunk from which its time grows with the square, below it is the launching and the tiles that show."""
NONE = -1
"""In place of the row of what was not measured."""
(
    NO_CHUNK,
    ALONE,
    ALONE_LENGTH,
    ALONE_ROWS,
    BESIDE,
    BESIDE_LENGTH,
    BESIDE_ROWS,
    TAIL,
    TAIL_LENGTH,
    TAUS,
    TAIL_BESIDE,
    TAIL_BESIDE_LENGTH,
    TAUS_BESIDE,
    MOST_CHUNK,
    MOST_CONTEXT,
    MOST_COUNT,
    LEAST_DECODE,
    MOST_DECODE,
    MEASURED,
    INTERPOLATED,
    EXTRAPOLATED,
    INTS,
) = range(SHAPE_NUMBERS, SHAPE_NUMBERS + 22)
"""Places of `CompiledAttention.ints`: the row of no chunk; chunks that were measured alone and beside decodes, with
where `places` lists their rows; the tails' numbers of decodes, with where `table` has their taus; the ends of what was
measured; and the lookups that compiled functions have made."""
COUNTS, COUNTS_LENGTH, FIRST_SLICE, ALONE_SLICE = range(4)
"""A chunk's row: its numbers of decodes, the row of the first's slice (the others follow), and that without decodes."""
PROMPTS, PROMPTS_LENGTH, DECODES, DECODES_LENGTH, TIMES, SLICE_ROW = range(6)
"""A slice's row: contexts of the prompt, those of the decodes, and times, those of one prompt's context together."""


def profile_numbers(table: AttentionTable, skew: Skew | None, shape: AttentionShape) -> CompiledAttention:
    """Return the numbers of attention of `shape` whose times are in `table`; its lookups begin at 0."""
    laid = _Laid()
    rows = {chunk: laid.chunk(slices) for chunk, slices in table.slices.items()}
    ints = np.zeros(INTS, dtype=np.int64)
    ints[:SHAPE_NUMBERS] = shape_numbers(shape)
    ints[NO_CHUNK] = rows[0]
    for place, chunks in ((ALONE, table.alone), (BESIDE, table.beside)):
        ints[place : place + 2] = laid.sizes(chunks)
        ints[place + 2] = laid.rows(rows[int(chunk)] for chunk in chunks)
    if skew is not None:
        for place, tail in ((TAIL, skew.alone), (TAIL_BESIDE, skew.beside)):
            ints[place : place + 3] = laid.tail(tail)
    ints[MOST_CHUNK], ints[MOST_CONTEXT], ints[MOST_COUNT] = table.most[:3]
    ints[LEAST_DECODE], ints[MOST_DECODE] = table.decode_range
    floats, times, places = np.array(laid.floats), np.array(laid.times), np.array(laid.places, dtype=np.int64)
    return CompiledAttention(PROFILE, ints, floats, places, times)


class _Laid:
    """What has been laid end to end so far; each method adds something, and returns where it is."""

    def __init__(self) -> None:
        self.floats: list[float] = []
        self.times: list[float] = []
        self.places: list[int] = []

    def sizes(self, sizes: Iterable[float]) -> tuple[int, int]:
        """Add sizes; the place and length of them are returned."""
        place = len(self.floats)
        self.floats.extend(map(float, sizes))
        return place, len(self.floats) - place

    def rows(self, values: Iterable[int]) -> int:
        """Add a row, or a list of rows."""
        place = len(self.places)
        self.places.extend(values)
        return place

    def tail(self, tail: Tail) -> tuple[int, int, int]:
        """Add a tail; the place and length of its numbers of decodes, and the place of its taus, are returned."""
        place = len(self.times)
        self.times.extend(tail.taus.tolist())
        return *self.sizes(tail.counts), place

    def chunk(self, slices: Mapping[int, Slice]) -> int:
        """Add the slices of a chunk, by their numbers of decodes, and its row."""
        counts = sorted(filter(None, slices))
        rows = [self.slice(slices[count]) for count in counts]
        alone = self.slice(slices[0]) if 0 in slices else NONE
        return self.rows([*self.sizes(counts), rows[0] if rows else NONE, alone])

    def slice(self, own: Slice) -> int:
        """Add a slice and its row."""
        place = len(self.times)
        self.times.extend(own.times.ravel().tolist())
        return self.rows([*self.sizes(own.prompt), *self.sizes(own.decode), place])
