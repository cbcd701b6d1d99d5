"""Who of several compiled engines gets a request, as `cluster.fewest` has it: whoever has the least to do."""

from __future__ import annotations

from foundation.compiling import making
from orchestrator.engine.compiled.handing import KEEPS_TOKEN_TIMES, TOKEN_NS, ints1, ints2, run_described
from orchestrator.engine.compiled.layout import (
    ACTS_NEXT,
    ARRIVAL,
    ENTERED,
    FINAL,
    FIRST_TOKEN,
    FREE_BLOCKS,
    HEAD,
    ID,
    IN_RUN,
    LEFT,
    PROMPT,
    REACHED,
    SCHEDULED,
    SEEN,
    STATUS,
    SUBMITTED,
    TAIL,
    TIMES_USED,
    TOKEN_TIMES,
    TOKENS,
    WAITING,
    IntArray,
)

TURNS, OUTSTANDING, KV = 0, 1, 2
"""What is balanced (`cluster.router.Balances`)."""
LACKS_ROOM = 100
"""What `route` comes back for beside what `loop.run` does: an engine has no room for one request more."""

ROW, LAST, STOPPED = 0, 1, 2
"""Places of `turn`: the next row, the engine that was chosen last, and the one that something is to be done for."""

C_ID, C_ARRIVAL, C_ENTERED, C_PROMPT, C_FINAL, C_LEFT = range(6)
"""Columns of what comes (`memory.COMING`)."""


@making
def route(tables: IntArray, numbers: IntArray, coming: IntArray, turn: IntArray, balances: int, total: int) -> int:
    """Send the rows of `coming` to engines, each at its time; return what it came back for (`REACHED`: all are sent).

    `tables` ``[engines, arrays, 4]`` and `numbers` ``[engines, n]`` describe the engines (`handing.described`);
    `total`: the KV blocks of each. It goes on where it stopped when it is called again.
    """
    engines = len(tables)
    while turn[ROW] < len(coming):
        row = turn[ROW]
        chosen, least = -1, 0.0
        for step in range(engines):
            engine = (turn[LAST] + 1 + step) % engines
            scalars = ints1(tables[engine], 0)
            if balances != TURNS and scalars[ACTS_NEXT] <= coming[row, C_ENTERED]:
                came_for = run_described(tables[engine], numbers[engine], coming[row, C_ENTERED])
                if came_for != REACHED:
                    turn[STOPPED] = engine
                    return came_for
            cost = _cost(scalars, balances, total)
            if chosen < 0 or cost < least:
                chosen, least = engine, cost
            if balances == TURNS:
                break
        if not _submit(tables[chosen], numbers[chosen], coming[row]):
            turn[STOPPED] = chosen
            return LACKS_ROOM
        turn[LAST] = chosen
        turn[ROW] += 1
    return REACHED


@making
def _cost(scalars: IntArray, balances: int, total: int) -> float:
    if balances == OUTSTANDING:
        waiting = scalars[TAIL] - scalars[HEAD] + scalars[SUBMITTED] - scalars[SEEN]
        return float(scalars[IN_RUN] + waiting)
    if balances == KV:
        return 1 - scalars[FREE_BLOCKS] / total
    return 0.0


@making
def _submit(table: IntArray, numbers: IntArray, row: IntArray) -> bool:
    """Write a request down with an engine; False: there is no room."""
    scalars, request = ints1(table, 0), ints2(table, 1)
    place, used = scalars[SUBMITTED], scalars[TIMES_USED]
    keeps = numbers[KEEPS_TOKEN_TIMES]
    if place == len(request) or (keeps and used + row[C_LEFT] > len(ints1(table, TOKEN_NS))):
        return False
    own = request[place]
    own[ID], own[ARRIVAL], own[ENTERED], own[PROMPT] = row[C_ID], row[C_ARRIVAL], row[C_ENTERED], row[C_PROMPT]
    own[FINAL], own[LEFT], own[TOKENS] = row[C_FINAL], row[C_LEFT], row[C_PROMPT]
    own[STATUS], own[SCHEDULED], own[FIRST_TOKEN], own[TOKEN_TIMES] = WAITING, -1, -1, used
    scalars[TIMES_USED] = used + row[C_LEFT]
    scalars[SUBMITTED] = place + 1
    scalars[ACTS_NEXT] = min(scalars[ACTS_NEXT], row[C_ENTERED])
    return True
