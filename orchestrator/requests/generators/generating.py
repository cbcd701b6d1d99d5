"""The rows of clients, in blocks and in order of arrival: what a run serves and what a file holds.

    a client's blocks:  arrivals -> sessions -> lengths, prefixes -> rows        a mixture: rows of all, by arrival

A block has whole sessions only. Clients whose requests come at one time take turns by their shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError
from foundation.records import dataclass
from orchestrator.request_table import RequestTable, SessionColumns
from orchestrator.requests.generators.arrivals import ArrivalPlace
from orchestrator.requests.generators.clients import ClientSettings
from orchestrator.requests.generators.clocks import block_sizes
from orchestrator.requests.generators.pairs import PairPlace
from orchestrator.requests.generators.prefixes import NO_PREFIX
from orchestrator.requests.generators.streams import Stream
from orchestrator.requests.generators.token_ids import GeneratedIds, Parts

IntArray = NDArray[np.int64]
LONGEST_PROMPT = 10**7
"""Tokens, with all that was said before; more are a mistake, and would be written out one by one."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Columns ``[n]`` of requests: see `Parts`. `order` decides between sessions that arrive at one time."""

    arrival_ns: IntArray
    order: NDArray[np.float64]
    client: IntArray
    unit: IntArray
    turn: IntArray
    first: IntArray
    leaf: IntArray
    new: IntArray
    prompt: IntArray
    output: IntArray
    pause_ns: IntArray

    def __len__(self) -> int:
        return len(self.unit)

    def at(self, places: IntArray | NDArray[np.bool_] | slice) -> Rows:
        """Return the rows at `places`."""
        return Rows(*(getattr(self, one.name)[places] for one in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Return the rows of all parts, one part after another."""
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))


class Generator:
    """The requests that `clients` send: `count` of them, or those that arrive before `until_ns` if they are fewer."""

    def __init__(self, clients: Sequence[ClientSettings], seed: int, count: int, until_ns: int | None = None) -> None:
        self._clients = clients
        self._seed = seed
        self._count = count
        self._until_ns = until_ns

    def blocks(self) -> Iterator[Rows]:
        """Yield the first `count` rows in order of arrival; what cannot be made is a `UserError`."""
        left = self._count
        for block in self._endless():
            early = len(block) if self._until_ns is None else int(np.searchsorted(block.arrival_ns, self._until_ns))
            taken = min(left, early)
            if not taken and left == self._count:
                fix = "give a longer one, or a higher --request_rate"
                raise UserError("no request arrives so early", field="--duration", fix=fix)
            yield block.at(slice(0, taken))
            left -= taken
            if not left or early < len(block):
                return

    def tables(self) -> Iterator[RequestTable]:
        """Yield the same as tables, numbered throughout."""
        begin, sessions = 0, 0
        for block in self.blocks():
            table = self._table(block, begin, sessions)
            begin += len(block)
            if table.sessions is not None:
                sessions = max(sessions, int(table.sessions.number.max(initial=0)))
            yield table

    def table(self) -> RequestTable:
        """Return all of it as one table."""
        return self._table(Rows.joined(list(self.blocks())), 0, 0)

    def _endless(self) -> Iterator[Rows]:
        alone = len(self._clients) == 1
        total = sum(one.share or 0.0 for one in self._clients)
        made = []
        for number, client in enumerate(self._clients):
            fraction = 1.0 if client.share is None else client.share / total
            seed = str(self._seed) if alone else f"{self._seed}/{number}"
            made.append(_rows(client, number, seed, fraction, self._count, alone=alone))
        return made[0] if alone else _merged(made)

    def _table(self, rows: Rows, begin: int, sessions: int) -> RequestTable:
        number = np.arange(begin, begin + len(rows))
        ids = any(one.has_ids for one in self._clients)
        parts = Parts(rows.client, rows.unit, rows.turn, rows.first, rows.leaf, rows.new, rows.output)
        prompt_ids = GeneratedIds(parts, self._clients, self._seed, np.arange(len(rows))) if ids else None
        priorities = np.array([one.priority or 0 for one in self._clients], dtype=np.int64)
        return RequestTable(
            number,
            rows.prompt,
            rows.output,
            rows.arrival_ns,
            np.zeros_like(number),
            sessions=self._session_columns(rows, sessions),
            prompt_ids=prompt_ids,
            output_ids=replace(prompt_ids, answers=True) if prompt_ids is not None else None,
            priority=priorities[rows.client] if any(one.priority is not None for one in self._clients) else None,
        )

    def _session_columns(self, rows: Rows, before: int) -> SessionColumns | None:
        have = np.array([one.sessions is not None for one in self._clients])
        if not have.any():
            return None
        of_session = have[rows.client]
        opened = np.cumsum(of_session & (rows.turn == 0))
        return SessionColumns(np.where(of_session, opened + before, 0), rows.pause_ns)


def arrival_times(client: ClientSettings, seed: int, count: int, dataset: Path | None) -> IntArray:
    """Return when a client alone sends its first `count` requests, ns."""
    found: list[IntArray] = []
    have = 0
    for block in _times(client, _place(client, str(seed), 1.0, count, at_zero=True, dataset=dataset)):
        found.append(block)
        have += len(block)
        if have >= count:
            break
    return np.concatenate(found)[:count]


def _place(
    client: ClientSettings, seed: str, fraction: float, count: int, *, at_zero: bool, dataset: Path | None = None
) -> ArrivalPlace:
    rate = None if client.at_once else client.request_rate
    return ArrivalPlace(rate, fraction, count, at_zero, dataset, lambda purpose: Stream(seed, purpose))


def _times(client: ClientSettings, place: ArrivalPlace) -> Iterator[IntArray]:
    if client.at_once:
        return (np.zeros(size, dtype=np.int64) for size in block_sizes())
    return client.process.times(place)


def _rows(
    client: ClientSettings, number: int, seed: str, fraction: float, count: int, *, alone: bool
) -> Iterator[Rows]:
    """Yield blocks of a client's rows, without end, sessions by arrival."""

    def stream(purpose: str) -> Stream:
        return Stream(seed, purpose)

    sample = client.lengths.sampler(PairPlace(stream))
    turns = None if client.sessions is None else client.sessions.turns(stream)
    chosen, shared = stream("prefix"), stream("prefix share")
    units = 0
    for times in _times(client, _place(client, seed, fraction, count, at_zero=alone)):
        size = len(times)
        drawn = None if turns is None else turns(size)
        per_unit = np.ones(size, dtype=np.int64) if drawn is None else drawn.count
        rows = int(per_unit.sum())
        new, output = sample(rows)
        if drawn is not None:
            new = np.where(drawn.tool_tokens > 0, drawn.tool_tokens, new)
        unit = np.repeat(np.arange(units, units + size), per_unit)
        begins = np.repeat(np.cumsum(per_unit) - per_unit, per_unit)
        leaf = client.prefixes.leaves(chosen, shared, size) if client.prefixes.prefix_len else None
        leaf = np.full(rows, NO_PREFIX) if leaf is None else np.repeat(leaf, per_unit)
        first = _first_kept(client, new + output, begins)
        yield Rows(
            np.repeat(times, per_unit),
            (unit + 1) / fraction,
            np.full(rows, number, dtype=np.int64),
            unit,
            np.arange(rows) - begins,
            first - begins,
            leaf,
            new,
            _prompts(client, new, output, leaf, first),
            output,
            np.zeros(rows, dtype=np.int64) if drawn is None else drawn.pause_ns,
        )
        units += size


def _first_kept(client: ClientSettings, said: IntArray, begins: IntArray) -> IntArray:
    """Return the row of the first turn that each row's prompt still holds (its own: none). `said`: a turn's tokens."""
    most = None if client.sessions is None else client.sessions.max_history
    if most is None:
        return begins
    before = np.cumsum(said) - said
    return np.maximum(begins, np.searchsorted(before, before - most, side="left")).astype(np.int64)


def _prompts(client: ClientSettings, new: IntArray, output: IntArray, leaf: IntArray, first: IntArray) -> IntArray:
    """Return the tokens of prompts: the prefix, earlier turns from `first` on, and the new ones."""
    said = new + output
    before = np.cumsum(said) - said
    prompts: IntArray = new + before - before[first] + np.where(leaf == NO_PREFIX, 0, client.prefixes.prefix_len)
    if int(prompts.max()) > LONGEST_PROMPT:
        what = f"a prompt grows to {int(prompts.max())} tokens, at most {LONGEST_PROMPT} can be"
        raise UserError(what, field="--session_turns", fix="give --max_history, or fewer turns")
    return prompts


def _merged(sources: Sequence[Iterator[Rows]]) -> Iterator[Rows]:
    """Yield the rows of all sources by arrival, order, client; those of a session stay together.

    What stands before the last row that the slowest source has told of is complete, and goes out.
    """
    waiting = [next(source) for source in sources]
    while True:
        slowest = min(range(len(sources)), key=lambda one: _key(waiting[one]))
        horizon = _key(waiting[slowest])
        ready = [_until(rows, horizon) for rows in waiting]
        out = Rows.joined([rows.at(slice(0, count)) for rows, count in zip(waiting, ready, strict=True)])
        yield out.at(np.lexsort((out.client, out.order, out.arrival_ns)))
        waiting = [rows.at(slice(count, None)) for rows, count in zip(waiting, ready, strict=True)]
        for place, rows in enumerate(waiting):
            if not len(rows):
                waiting[place] = next(sources[place])


def _key(rows: Rows) -> tuple[int, float, int]:
    return int(rows.arrival_ns[-1]), float(rows.order[-1]), int(rows.client[-1])


def _until(rows: Rows, horizon: tuple[int, float, int]) -> int:
    """Return how many rows are not after `horizon`."""
    time, order, client = horizon
    begin = int(np.searchsorted(rows.arrival_ns, time, side="left"))
    end = int(np.searchsorted(rows.arrival_ns, time, side="right"))
    before = int(rows.client[0]) <= client
    return begin + int(np.searchsorted(rows.order[begin:end], order, side="right" if before else "left"))
