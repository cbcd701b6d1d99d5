"""The arrays of one compiled engine: made as large as its settings ask, and grown with the requests that come."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from orchestrator.engine.compiled.contents import Contents
from orchestrator.engine.compiled.layout import (
    ARRIVAL,
    ASLEEP,
    CONTENTS,
    ENTERED,
    FINAL,
    FIRST_TOKEN,
    FLIGHT_COLUMNS,
    FREE_BLOCKS,
    ID,
    KINDS,
    KNOWN,
    LAST_LAUNCHED,
    LEFT,
    NEXT_CONTENT,
    NOTHING,
    PENDING,
    PROMPT,
    REPORTED_FREE,
    REQUEST_COLUMNS,
    SCALARS,
    SCHEDULED,
    STATUS,
    SUBMITTED,
    TIMES_USED,
    TOKEN_TIMES,
    TOKENS,
    TOLD_COLUMNS,
    UNUSED_BLOCK,
    WAITING,
    IntArray,
    Rules,
    SmallArray,
    State,
)
from orchestrator.engine.compiled.pricing import Prepared
from orchestrator.request_table import RequestTable
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request

Array = TypeVar("Array", IntArray, SmallArray)
COMING = (ID, ARRIVAL, ENTERED, PROMPT, FINAL, LEFT, CONTENTS, KNOWN)
"""What is known of a request when it comes."""
MOST_TOLD = 4096
"""Iterations that are told at once, at most."""


class Arrays:
    """The `state` of an engine under the `rules`; `state` is another tuple whenever an array has grown."""

    def __init__(self, prepared: Prepared, rules: Rules) -> None:
        self.rules = rules
        self.state = _made(rules, len(prepared.prices.tokens_ns), len(prepared.prices.samples_ns))
        self._coming: list[tuple[int, ...]] = []
        self._known: list[SmallArray] = []
        self._known_count = 0
        self._contents = Contents(rules.block_size) if rules.numbered else None

    def __len__(self) -> int:
        """How many requests have come."""
        return int(self.state.scalars[SUBMITTED]) + len(self._coming)

    def add(self, admission: Admission, entered_ns: int) -> None:
        """Write a request down that comes to the engine at `entered_ns`, which is never before that of the last one."""
        request = admission.request
        known, first = 0, self._known_count
        if self._contents is not None and request.prompt_token_ids is not None:
            numbers = self._contents.of(request)
            known = len(numbers)
            self._known.append(numbers)
            self._known_count += known
        final = request.prompt_tokens + admission.most(request.max_tokens)
        left = admission.most(request.output_tokens)
        self._coming.append(
            (request.id, request.arrival_ns, entered_ns, request.prompt_tokens, final, left, first, known)
        )

    def add_rows(self, rows: RequestTable) -> None:
        """Write requests down, as rows, each of which comes to the engine when it arrives."""
        self.settle()
        table = columns(rows)
        if self._contents is not None and rows.prompt_ids is not None:
            numbers, counts = self._contents.of_rows(rows)
            table[:, COMING.index(CONTENTS)] = self._known_count + np.cumsum(counts) - counts
            table[:, COMING.index(KNOWN)] = counts
            self._known.append(numbers)
            self._known_count += len(numbers)
        self._append(table)

    def cached_tokens(self, request: Request) -> int:
        """Return how many leading tokens of a request that is not here would be found now, the last one excepted."""
        if self._contents is None or request.prompt_token_ids is None:
            return 0
        contents, size = self.state.contents, self.rules.block_size
        numbers = 2 * self._contents.of(request)[: (request.prompt_tokens - 1) // size]
        there = (numbers < len(contents)) & (contents[np.minimum(numbers, len(contents) - 1), 0] > 0)
        return size * int(there.argmin() if not there.all() else len(there))

    def settle(self) -> None:
        """Put what was written down into the arrays."""
        if not self._coming:
            return
        table = np.array(self._coming, dtype=np.int64)
        self._coming = []
        self._append(table)

    def _append(self, table: IntArray) -> None:
        """Put rows of `COMING` columns into the arrays."""
        scalars, lefts = self.state.scalars, table[:, COMING.index(LEFT)]
        first, count = int(scalars[SUBMITTED]), len(table)
        self.make_room(count, int(table[:, COMING.index(FINAL)].max()), int(lefts.sum()))
        own = self.state.request[first : first + count]
        own[:, COMING] = table
        own[:, TOKENS] = own[:, PROMPT]
        own[:, STATUS] = WAITING
        own[:, (SCHEDULED, FIRST_TOKEN)] = -1
        own[:, TOKEN_TIMES] = scalars[TIMES_USED] + np.cumsum(lefts) - lefts
        scalars[TIMES_USED] += int(lefts.sum())
        scalars[SUBMITTED] = first + count

    def more_contents(self) -> None:
        """Make room for more contents of blocks."""
        self.state = self.state._replace(contents=_longer(self.state.contents, 2 * len(self.state.contents)))

    def make_room(self, requests: int, longest: int, tokens: int) -> None:
        """Make room for so many requests more, of at most `longest` tokens, that make `tokens` tokens."""
        state, rules = self.state, self.rules
        requests += int(state.scalars[SUBMITTED])
        times = int(state.scalars[TIMES_USED]) + tokens if rules.keeps_token_times else 0
        state = state._replace(
            request=_longer(state.request, requests),
            waiting=_longer(state.waiting, requests),
            token_ns=_longer(state.token_ns, times),
        )
        # Of those that decide ahead, all batches in flight but one may compute a token that is one too many.
        most = min(longest + rules.places - 1, rules.longest)
        columns = -(-most // rules.block_size) if rules.numbered else 0
        if columns > state.tables.shape[1]:
            tables = np.zeros((rules.seats, max(columns, 2 * state.tables.shape[1])), dtype=np.int32)
            tables[:, : state.tables.shape[1]] = state.tables
            state = state._replace(tables=tables)
        if self._known:
            known = _longer(state.known, self._known_count)
            at = self._known_count - sum(map(len, self._known))
            for numbers in self._known:
                known[at : at + len(numbers)] = 2 * numbers
                at += len(numbers)
            most = 2 * max(int(numbers.max(initial=0)) for numbers in self._known)
            self._known = []
            state = state._replace(known=known, contents=_longer(state.contents, most + 1))
        self.state = state


def columns(rows: RequestTable) -> IntArray:
    """Return the `COMING` columns of requests that come when they arrive, and whose blocks' contents nobody knows."""
    final, nothing = rows.prompt_tokens + rows.output_tokens, np.zeros(len(rows), dtype=np.int64)
    arrival = rows.arrival_ns
    return np.stack(
        (rows.id, arrival, arrival, rows.prompt_tokens, final, rows.output_tokens, nothing, nothing), axis=1
    )


def _made(rules: Rules, tokens: int, samples: int) -> State:
    """Return the state in which nobody has come; `tokens`, `samples`: entries of the tables of prices."""
    seats, stages, flights = rules.seats, rules.stages, rules.places + 1
    told, numbered = MOST_TOLD + 8 * seats, rules.blocks + 1 if rules.numbered else 1
    scalars = _zeros(SCALARS)
    scalars[[ASLEEP, UNUSED_BLOCK, NEXT_CONTENT]] = 1
    scalars[[PENDING, LAST_LAUNCHED]] = NOTHING
    scalars[[FREE_BLOCKS, REPORTED_FREE]] = rules.blocks
    return State(
        scalars=scalars,
        request=_zeros(64, REQUEST_COLUMNS),
        waiting=_zeros(64),
        running=_zeros(seats),
        queue=_zeros(flights),
        flight=_zeros(flights, FLIGHT_COLUMNS),
        rows=_zeros(flights, 6, seats),
        passage=_zeros(flights, 2, stages),
        stage_free=_zeros(stages),
        tables=np.zeros((seats, 1), dtype=np.int32),
        spare_seats=np.arange(seats, dtype=np.int64),
        links=np.zeros((numbered, 6), dtype=np.int32),
        contents=np.zeros((64, 2), dtype=np.int32),
        known=np.zeros(64, dtype=np.int32),
        told=_zeros(MOST_TOLD, TOLD_COLUMNS),
        told_stages=_zeros(MOST_TOLD, 2, stages),
        gaps=_zeros(2 * told, 2),
        begun=_zeros(told, 2),
        finished=_zeros(told, 9),
        token_ns=_zeros(1),
        tokens_used=_zeros(tokens),
        samples_used=_zeros(samples),
        spent=_zeros(2),
        attention_ns=_zeros(KINDS),
        floats=np.zeros((KINDS, 4, seats), dtype=np.float64),
        ints=_zeros(KINDS, 4, seats),
    )


def _zeros(*shape: int) -> IntArray:
    return np.zeros(shape, dtype=np.int64)


def _longer(array: Array, least: int) -> Array:
    """Return the array, or one of twice its rows or more that begins with it: it has `least` rows."""
    if least <= len(array):
        return array
    longer = np.zeros((max(least, 2 * len(array)), *array.shape[1:]), dtype=array.dtype)
    longer[: len(array)] = array
    return longer
