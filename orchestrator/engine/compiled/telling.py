"""What a compiled engine has to tell, from its arrays: columns for observers, and requests that are under way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.engine.compiled.layout import (
    ARRIVAL,
    FINISHED,
    FIRST_TOKEN,
    GENERATED,
    ID,
    PROMPT,
    QUEUED,
    SCHEDULED,
    SEEN,
    STATUS,
    T_DECIDED,
    T_FREE,
    T_GAP_IDLE,
    T_GAP_WAITING,
    T_LOST,
    T_PREFILLS,
    T_PROMPT_TOKENS,
    T_REQUESTS,
    T_RUN,
    T_RUNNING,
    T_SERIAL,
    T_TOKENS,
    T_WAITING,
    TOKEN_TIMES,
    TOLD,
    TOLD_BEGUN,
    TOLD_FINISHED,
    TOLD_GAPS,
    IntArray,
    Rules,
    State,
)

ENGINE, PLACE = 8, 8
"""Where a finished row says the engine; in the arrays it is the request's place."""


def taken(state: State, engine: int) -> dict[str, IntArray]:
    """Return the columns of `orchestrator.engine.iterations.Iterations` since the last time, and make room for more."""
    scalars = state.scalars
    count, gaps = int(scalars[TOLD]), state.gaps[: scalars[TOLD_GAPS]].copy()
    begun = state.begun[: scalars[TOLD_BEGUN]].copy()
    told = np.ascontiguousarray(state.told[:count].T)
    stages = state.told_stages[:count].copy()
    finished = state.finished[: scalars[TOLD_FINISHED]].copy()
    finished[:, ENGINE] = engine
    scalars[[TOLD, TOLD_GAPS, TOLD_BEGUN, TOLD_FINISHED]] = 0
    return {
        "serial": told[T_SERIAL],
        "run": told[T_RUN],
        "decided_ns": told[T_DECIDED],
        "start_ns": stages[:, 0, 0],
        "end_ns": stages[:, 1, -1],
        "stage_ns": stages,
        "requests": told[T_REQUESTS],
        "prefills": told[T_PREFILLS],
        "prompt_tokens": told[T_PROMPT_TOKENS],
        "tokens": told[T_TOKENS],
        "running": told[T_RUNNING],
        "waiting": told[T_WAITING],
        "free_blocks": told[T_FREE],
        "preempted": told[T_LOST],
        "waiting_ns": told[T_GAP_WAITING],
        "idle_ns": told[T_GAP_IDLE],
        "gaps_ns": gaps[:, 0],
        "gap_counts": gaps[:, 1],
        "begun": begun[:, 0],
        "begun_ns": begun[:, 1],
        "finished": finished,
    }


def token_gaps(state: State, rules: Rules) -> Sequence[IntArray] | None:
    """Return the times between the tokens of each request that is told as finished; None unless they are kept."""
    if not rules.keeps_token_times:
        return None
    places = state.finished[: state.scalars[TOLD_FINISHED], PLACE]
    begins, counts = state.request[places, TOKEN_TIMES], state.request[places, GENERATED]
    return [
        np.diff(state.token_ns[begin : begin + count])
        for begin, count in zip(begins.tolist(), counts.tolist(), strict=True)
    ]


def unfinished(state: State, engine: int) -> IntArray:
    """Return rows of the requests that were seen and are not done; -1 is a moment not reached."""
    seen = state.request[: state.scalars[SEEN]]
    going = seen[seen[:, STATUS] != FINISHED]
    rows = np.full((len(going), ENGINE + 1), -1, dtype=np.int64)
    rows[:, :7] = going[:, (ID, PROMPT, GENERATED, ARRIVAL, QUEUED, SCHEDULED, FIRST_TOKEN)]
    rows[:, ENGINE] = engine
    return rows
