"""Requests as columns: a workload of millions costs bytes, not objects, and is made into objects as they arrive."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.requests.hashed_tokens import HashedTokens
from orchestrator.requests.request import Request

IntArray = NDArray[np.int64]
MOST_TOKEN_ID = 2**31 - 1
_AT_ONCE = 4096


class Ids(Protocol):
    """Token ids of the rows of a table."""

    def at(self, places: IntArray | NDArray[np.bool_]) -> Ids:
        """Return those of the rows at `places`."""

    def row(self, place: int) -> Sequence[int] | None:
        """Return the ids of a row, None where they are not known."""

    def flat(self) -> tuple[IntArray, IntArray]:
        """Return the ids of all rows, and where each row's begin and end in them ``[n, 2]``; none are not known."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenIds:
    """Token ids of many requests: those of row i are ``values[begins[i] : ends[i]]``; none, and they are not known."""

    values: array[int]
    begins: IntArray
    ends: IntArray

    @classmethod
    def of(cls, lists: Iterable[Sequence[int]]) -> TokenIds:
        """Return the ids of rows, each from 0 to `MOST_TOKEN_ID`."""
        values, ends = array("i"), array("q")
        for ids in lists:
            values.extend(ids)
            ends.append(len(values))
        bounds = np.array([0, *ends], dtype=np.int64)
        return cls(values, bounds[:-1], bounds[1:])

    def at(self, places: IntArray | NDArray[np.bool_]) -> TokenIds:
        """Return the ids of the rows at `places`; the values stay where they are."""
        return replace(self, begins=self.begins[places], ends=self.ends[places])

    def row(self, place: int) -> Sequence[int] | None:
        """Return the ids of a row, None where they are not known."""
        return self.values[int(self.begins[place]) : int(self.ends[place])] or None

    def flat(self) -> tuple[IntArray, IntArray]:
        """See `Ids`."""
        return _flat(self.values, self.begins, self.ends)


@dataclass(frozen=True, slots=True, eq=False)
class BlockHashes:
    """Hashes of the blocks of many prompts, in place of token ids: those of row i are ``values[begins[i] : ends[i]]``.

    A hash stands for `block` tokens, the last one of a prompt for those that are left of its `prompt_tokens`.
    """

    values: array[int]
    begins: IntArray
    ends: IntArray
    prompt_tokens: IntArray
    block: int

    def at(self, places: IntArray | NDArray[np.bool_]) -> BlockHashes:
        """Return the hashes of the rows at `places`; the values stay where they are."""
        return replace(
            self, begins=self.begins[places], ends=self.ends[places], prompt_tokens=self.prompt_tokens[places]
        )

    def row(self, place: int) -> Sequence[int] | None:
        """Return what stands for the token ids of a row, None where it has no hashes."""
        hashes = self.values[int(self.begins[place]) : int(self.ends[place])]
        return HashedTokens(hashes, self.block, int(self.prompt_tokens[place])) if hashes else None

    def flat(self) -> tuple[IntArray, IntArray]:
        """See `Ids`."""
        hashes, bounds = _flat(self.values, self.begins, self.ends)
        tokens = np.where(bounds[:, 1] > bounds[:, 0], self.prompt_tokens, 0)
        ends = np.cumsum(tokens)
        within = np.arange(int(tokens.sum())) - np.repeat(ends - tokens, tokens)
        blocks = hashes[np.repeat(bounds[:, 0], tokens) + within // self.block]
        return blocks * self.block + within % self.block, np.stack((ends - tokens, ends), axis=1)


def _flat(values: array[int], begins: IntArray, ends: IntArray) -> tuple[IntArray, IntArray]:
    """Return what rows have of `values`, one row after the other, and their bounds in it."""
    whole = np.frombuffer(values, dtype=np.dtype(values.typecode)) if values else np.zeros(0, dtype=np.int64)
    counts = ends - begins
    last = np.cumsum(counts)
    if (begins[1:] == ends[:-1]).all():
        taken = whole[begins[0] : ends[-1]] if len(begins) else whole
    else:
        taken = whole[np.repeat(begins - (last - counts), counts) + np.arange(int(counts.sum()))]
    return taken.astype(np.int64), np.stack((last - counts, last), axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class SessionColumns:
    """Which requests wait for others: columns ``[n]`` beside a table's.

    `number` is that of the session, from 1 on (0: a request by itself); its requests, the turns, stand in consecutive
    rows, in order, and all have the arrival of the first. `pause_ns`: from the end of a turn to the next one's arrival.
    """

    number: IntArray
    pause_ns: IntArray

    def at(self, places: IntArray | NDArray[np.bool_]) -> SessionColumns:
        """Return the rows at `places`."""
        return SessionColumns(self.number[places], self.pause_ns[places])

    def opens(self) -> NDArray[np.bool_]:
        """Return which rows wait for nobody: single requests and the first turns of sessions."""
        opens = np.ones(len(self.number), dtype=np.bool_)
        opens[1:] = (self.number[1:] == 0) | (self.number[1:] != self.number[:-1])
        return opens


@dataclass(frozen=True, slots=True, eq=False)
class RequestTable:
    """Columns ``[n]``: id, prompt and output tokens, arrival (ns), and the line of the workload file (0: none).

    `adapter` is the number of the LoRA adapter that a request is served with, from 1 on (0: with none); None: nobody
    has one. `sessions`, `prompt_ids` and `output_ids` are None where no request has any. `retrieved`: so many of every
    prompt's tokens are found for it on the way; they follow its own. `priority` None: that of all is 0.
    """

    id: IntArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    arrival_ns: IntArray
    line: IntArray
    adapter: IntArray | None = None
    sessions: SessionColumns | None = None
    prompt_ids: Ids | None = None
    output_ids: Ids | None = None
    retrieved: int = 0
    priority: IntArray | None = None

    @classmethod
    def of(cls, requests: Iterable[Request]) -> RequestTable:
        """Return a table of requests."""
        rows = [(r.id, r.prompt_tokens, r.output_tokens, r.arrival_ns, r.source_line or 0) for r in requests]
        return cls(*np.array(rows, dtype=np.int64).reshape(-1, 5).T)

    def __len__(self) -> int:
        return len(self.id)

    def __iter__(self) -> Iterator[Request]:
        plain = self.sessions is None and self.prompt_ids is None and self.priority is None and not self.retrieved
        columns = (self.id, self.arrival_ns, self.prompt_tokens, self.output_tokens, self.line)
        for begin in range(0, len(self), _AT_ONCE):
            rows = zip(*(column[begin : begin + _AT_ONCE].tolist() for column in columns), strict=True)
            served = repeat(0) if self.adapter is None else self.adapter[begin : begin + _AT_ONCE].tolist()
            for place, (row, adapter) in enumerate(zip(rows, served, strict=False), begin):
                identity, arrival, prompt, output, line = row
                name = f"adapter {adapter}" if adapter else None
                request = Request(identity, arrival, prompt, output, source_line=line or None, adapter=name)
                yield request if plain else self._told_more(request, place)

    def _told_more(self, request: Request, place: int) -> Request:
        """Return `request`, which is that of row `place`, with what only some workloads have."""
        if self.sessions is not None:
            request.session = int(self.sessions.number[place]) or None
        if self.prompt_ids is not None:
            request.prompt_token_ids = self.prompt_ids.row(place)
        if self.output_ids is not None:
            request.output_token_ids = self.output_ids.row(place)
        if self.priority is not None:
            request.priority = int(self.priority[place])
        request.retrieved_tokens = self.retrieved
        return request

    def at(self, places: IntArray | NDArray[np.bool_]) -> RequestTable:
        """Return the rows at `places`, in that order, or those where a mask is true."""
        return RequestTable(
            self.id[places],
            self.prompt_tokens[places],
            self.output_tokens[places],
            self.arrival_ns[places],
            self.line[places],
            None if self.adapter is None else self.adapter[places],
            None if self.sessions is None else self.sessions.at(places),
            None if self.prompt_ids is None else self.prompt_ids.at(places),
            None if self.output_ids is None else self.output_ids.at(places),
            self.retrieved,
            None if self.priority is None else self.priority[places],
        )

    def with_retrieved(self, tokens: int) -> RequestTable:
        """Return the requests with so many tokens more in each prompt, which are found for it on the way."""
        return replace(self, prompt_tokens=self.prompt_tokens + tokens, retrieved=tokens) if tokens else self

    def openings(self) -> RequestTable:
        """Return the requests that wait for no other."""
        return self if self.sessions is None else self.at(self.sessions.opens())

    def reached(self, served: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of the rows are `served` and follow no turn of their session that is not."""
        if self.sessions is None:
            return served
        begins = np.maximum.accumulate(np.where(self.sessions.opens(), np.arange(len(self)), 0))
        lost = np.concatenate(([0], np.cumsum(~served)))
        fine: NDArray[np.bool_] = lost[1:] == lost[begins]
        return fine

    def in_arrival_order(self) -> RequestTable:
        """Return the rows in order of arrival; equal arrivals keep their order, and sessions stay together."""
        if bool((np.diff(self.arrival_ns) >= 0).all()):
            return self
        return self.at(np.argsort(self.arrival_ns, kind="stable"))

    def arriving(self, times: IntArray) -> RequestTable:
        """Return the requests with other arrival times, ascending, one for each that waits for no other.

        They come in the order in which they came before; of equal arrivals in that of the rows.
        """
        opens = np.ones(len(self), dtype=np.bool_) if self.sessions is None else self.sessions.opens()
        given = np.empty_like(times)
        given[np.argsort(self.arrival_ns[opens], kind="stable")] = times
        return replace(self, arrival_ns=given[np.cumsum(opens) - 1])

    def longest(self) -> Request:
        """Return a request as long as the longest prompt with the longest output."""
        return Request(-1, 0, int(self.prompt_tokens.max()), int(self.output_tokens.max()))
