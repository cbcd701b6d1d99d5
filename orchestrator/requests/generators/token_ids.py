"""The token ids of generated requests, worked out when they are asked for.

What prompts share is made of parts: nodes of the prefix tree, a turn's new tokens, an answer. The ids of a part are a
hash of what it is and of each token's place in it, so requests of the same parts have the same ids, and a million
prompts cost no memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from foundation.compiling import compiles
from foundation.draws import draw
from foundation.records import dataclass
from orchestrator.requests.generators.clients import ClientSettings
from orchestrator.requests.generators.prefixes import NO_PREFIX

IntArray = NDArray[np.int64]
VOCABULARY = 128_000
"""About that of Llama 3; ids are from 0 on."""
_WORD = 2**64 - 1
_NONE: IntArray = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Columns ``[n]`` of all generated rows: whose they are, and what their prompts are made of.

    `client` is the client's number, `unit` that of its request or session, `turn` the turn (from 0 on), `first` the
    first turn that the prompt still holds, `leaf` the prefix, `new` the turn's own tokens, `output` its answer's.
    """

    client: IntArray
    unit: IntArray
    turn: IntArray
    first: IntArray
    leaf: IntArray
    new: IntArray
    output: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedIds:
    """The ids of the rows at `places` of `parts`: of their prompts, or (`answers`) of their answers."""

    parts: Parts
    clients: Sequence[ClientSettings]
    seed: int
    places: IntArray
    answers: bool = False

    def at(self, places: IntArray | NDArray[np.bool_]) -> GeneratedIds:
        """Return the ids of the rows at `places`."""
        return replace(self, places=self.places[places])

    def row(self, place: int) -> Sequence[int] | None:
        """Return the ids of a row; None where nothing is shared with any other."""
        at = int(self.places[place])
        client = int(self.parts.client[at])
        if not self.clients[client].has_ids:
            return None
        made = [self._part(*part) for part in (self._answer(at) if self.answers else self._prompt(at))]
        ids = array("i")
        ids.frombytes(np.concatenate(made).astype(np.int32).tobytes())
        return ids

    def flat(self) -> tuple[IntArray, IntArray]:
        """Return the ids of all rows, and where each row's begin and end in them; see `Ids`."""
        keys: list[int] = []
        counts: list[int] = []
        ends = [0]
        for at in self.places.tolist():
            if self.clients[int(self.parts.client[at])].has_ids:
                for kind, client, of, within, tokens in self._answer(at) if self.answers else self._prompt(at):
                    keys.append(self._key(kind, client, of, within))
                    counts.append(tokens)
            ends.append(len(counts))
        lasts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))[ends]
        return many_hashed(keys, counts), np.stack((lasts[:-1], lasts[1:]), axis=1)

    def _prompt(self, at: int) -> Iterator[tuple[str, int, int, int, int]]:
        parts = self.parts
        client, unit, turn, leaf = (int(one[at]) for one in (parts.client, parts.unit, parts.turn, parts.leaf))
        if leaf != NO_PREFIX:
            for level, node, tokens in self.clients[client].prefixes.nodes(leaf):
                yield "prefix", client, level, node, tokens
        for earlier in range(int(parts.first[at]), turn):
            row = at - turn + earlier
            yield "new", client, unit, earlier, int(parts.new[row])
            yield "answer", client, unit, earlier, int(parts.output[row])
        yield "new", client, unit, turn, int(parts.new[at])

    def _answer(self, at: int) -> Iterator[tuple[str, int, int, int, int]]:
        parts = self.parts
        yield "answer", int(parts.client[at]), int(parts.unit[at]), int(parts.turn[at]), int(parts.output[at])

    def _part(self, kind: str, client: int, of: int, within: int, tokens: int) -> IntArray:
        return hashed(self._key(kind, client, of, within), tokens)

    def _key(self, kind: str, client: int, of: int, within: int) -> int:
        return (
            _shared_key(self.seed, client, of, within)
            if kind == "prefix"
            else draw(self.seed, kind, client, of, within)
        )


@lru_cache(maxsize=16_384)
def _shared_key(seed: int, client: int, of: int, within: int) -> int:
    return draw(seed, "prefix", client, of, within)


def many_hashed(keys: Sequence[int], counts: Sequence[int]) -> IntArray:
    """Return what `hashed` does of each key, one after the other."""
    if not compiles():
        return np.concatenate([_NONE, *map(hashed, keys, counts)])
    from orchestrator.requests.generators.compiled import fill_hashed

    words = np.array([key & _WORD for key in keys], dtype=np.uint64)
    ids = np.empty(sum(counts), dtype=np.int64)
    fill_hashed(words, np.array(counts, dtype=np.int64), VOCABULARY, ids)
    return ids


def hashed(key: int, count: int) -> IntArray:
    """Return token ids 0 to `count` - 1 of a key: SplitMix64 (Steele et al., OOPSLA 2014) at each token's place."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key & _WORD)
    steps = (steps ^ (steps >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    steps = (steps ^ (steps >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = (steps ^ (steps >> np.uint64(31))) >> np.uint64(32)
    return ((bits * np.uint64(VOCABULARY)) >> np.uint64(32)).astype(np.int64)
