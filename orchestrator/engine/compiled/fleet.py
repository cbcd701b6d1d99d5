"""Compiled engines behind a router that balances load: requests are routed without coming back to Python for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.cluster.router import Balances
from orchestrator.engine.compiled.engine import CompiledEngine
from orchestrator.engine.compiled.layout import REACHED, IntArray
from orchestrator.engine.compiled.memory import columns
from orchestrator.engine.compiled.routing import KV, LACKS_ROOM, OUTSTANDING, ROW, STOPPED, TURNS, route
from orchestrator.engine.interface import AnyEngine
from orchestrator.request_table import RequestTable

KINDS: dict[Balances, int] = {"turns": TURNS, "outstanding": OUTSTANDING, "kv": KV}


class Fleet:
    """`engines`, in the order of their numbers, behind a router that balances `balances`.

    They have as many KV blocks each; no request has more than `longest` tokens.
    """

    def __init__(self, engines: Sequence[CompiledEngine], balances: Balances, longest: int) -> None:
        self._engines = engines
        self._balances = KINDS[balances]
        self._longest = longest
        self._turn = np.array([0, -1, 0], dtype=np.int64)
        self._total = engines[0].usage().total_blocks
        self._described: tuple[IntArray, IntArray] | None = None

    def take(self, rows: RequestTable) -> None:
        """Take requests in, each when it arrives, in order of arrival; see `TakesMany`."""
        coming, turn = columns(rows), self._turn
        turn[ROW] = 0
        self._describe(range(len(self._engines)))
        assert self._described is not None
        while (came_for := route(*self._described, coming, turn, self._balances, self._total)) != REACHED:
            stopped = int(turn[STOPPED])
            engine = self._engines[stopped]
            if came_for == LACKS_ROOM:
                engine.make_room(self._longest, int(rows.output_tokens[turn[ROW]]))
            else:
                engine.catch_up(int(coming[turn[ROW], 2]))
            self._describe([stopped])
        for engine in self._engines:
            engine.behind(int(rows.arrival_ns[-1]))

    def _describe(self, places: Sequence[int]) -> None:
        """Note where the arrays of engines are now."""
        if self._described is None:
            for engine in self._engines:
                engine.make_room(self._longest, 0)
            whole = [engine.described() for engine in self._engines]
            self._described = np.stack([one for one, _ in whole]), np.stack([numbers for _, numbers in whole])
            return
        tables, numbers = self._described
        for place in places:
            tables[place], numbers[place] = self._engines[place].described()


def fleet_of(engines: Sequence[AnyEngine], balances: Balances, table: RequestTable) -> Fleet | None:
    """Return `engines` as one, to which the requests of `table` come; None where they have too little in common."""
    loops = [engine for engine in engines if isinstance(engine, CompiledEngine)]
    if len(loops) < len(engines) or len({engine.usage().total_blocks for engine in loops}) > 1:
        return None
    if table.prompt_ids is not None and any(engine.finds_prefixes for engine in loops):
        return None
    longest = table.longest()
    return Fleet(loops, balances, longest.prompt_tokens + longest.output_tokens)
