"""A batch that has ended: its tokens have arrived, requests that are done release their blocks, and it is told."""

from __future__ import annotations

from foundation.compiling import inner
from orchestrator.engine.compiled.blocks import register, release
from orchestrator.engine.compiled.deciding import leave_seat
from orchestrator.engine.compiled.layout import (
    ARRIVAL,
    COMPUTED,
    DECIDED,
    F_FREE,
    F_RUN,
    F_RUNNING,
    F_SERIAL,
    F_WAITING,
    FINAL,
    FINISHED,
    FIRST_TOKEN,
    FREE_BLOCKS,
    GAP_IDLE,
    GAP_WAITING,
    GENERATED,
    HEAD,
    ID,
    IN_FLIGHT,
    IN_RUN,
    LAST_TOKEN,
    LEFT,
    LOST,
    NEW_TOKENS,
    PLACEHOLDERS,
    PREFILLS,
    PROMPT,
    PROMPT_TOKENS,
    QUEUED,
    REPORTED_FREE,
    REPORTED_RUNNING,
    REPORTED_WAITING,
    ROW_DONE,
    ROW_ENTERS,
    ROW_NEW,
    ROW_REQUEST,
    ROW_SAMPLES,
    ROWS,
    RUNNING,
    SAMPLES,
    SCHEDULED,
    STATUS,
    T_DECIDED,
    T_FREE,
    T_GAP_IDLE,
    T_GAP_WAITING,
    T_LOST,
    T_NEW_TOKENS,
    T_PREFILLS,
    T_PROMPT_TOKENS,
    T_REQUESTS,
    T_RUN,
    T_RUNNING,
    T_SAMPLES,
    T_SERIAL,
    T_TOKENS,
    T_WAITING,
    TAIL,
    TOKEN_TIMES,
    TOKENS,
    TOLD,
    TOLD_BEGUN,
    TOLD_FINISHED,
    TOLD_GAPS,
    UNTOLD,
    Rules,
    State,
)


@inner
def land(state: State, rules: Rules, flight: int) -> None:
    """Account for the oldest batch, which has been taken out of the queue."""
    end = state.passage[flight, 1, rules.stages - 1]
    _begin_told(state, flight)
    tokens = _bring_tokens(state, rules, flight, end)
    rows = state.rows[flight]
    for row in range(state.flight[flight, ROWS]):
        if rows[ROW_DONE, row]:
            _finish(state, rules, rows[ROW_REQUEST, row], end)
    _tell(state, flight, tokens)
    report(state)


@inner
def report(state: State) -> None:
    """Let the engine's loop say what the state is now, as vLLM's does each time that it comes round."""
    scalars = state.scalars
    scalars[REPORTED_RUNNING] = scalars[IN_RUN]
    scalars[REPORTED_WAITING] = scalars[TAIL] - scalars[HEAD]
    scalars[REPORTED_FREE] = scalars[FREE_BLOCKS]


@inner
def _begin_told(state: State, flight: int) -> None:
    """Note which requests' first tokens began to be computed with the batch."""
    scalars, rows, begin = state.scalars, state.rows[flight], state.passage[flight, 0, 0]
    for row in range(state.flight[flight, ROWS]):
        place = rows[ROW_REQUEST, row]
        if rows[ROW_ENTERS, row] and state.request[place, SCHEDULED] < 0:
            state.request[place, SCHEDULED] = begin
            told = scalars[TOLD_BEGUN]
            state.begun[told, 0], state.begun[told, 1] = state.request[place, ID], begin
            scalars[TOLD_BEGUN] = told + 1


@inner
def _bring_tokens(state: State, rules: Rules, flight: int, end: int) -> int:
    """Let the tokens of a batch arrive and mark the rows of requests that are done; return how many tokens came out."""
    request, rows = state.request, state.rows[flight]
    brought, gap, times = 0, -1, 0
    for row in range(state.flight[flight, ROWS]):
        rows[ROW_DONE, row] = 0
        place = rows[ROW_REQUEST, row]
        request[place, IN_FLIGHT] -= rows[ROW_NEW, row]
        if not rows[ROW_SAMPLES, row] or request[place, STATUS] == FINISHED:
            continue
        brought += 1
        request[place, TOKENS] += 1
        request[place, LEFT] -= 1
        if request[place, PLACEHOLDERS]:
            request[place, PLACEHOLDERS] -= 1
            if request[place, STATUS] == RUNNING:
                register(state, rules, place, request[place, COMPUTED] - request[place, PLACEHOLDERS])
        tokens = request[place, TOKENS]
        if tokens >= request[place, FINAL] or tokens >= rules.longest or request[place, LEFT] <= 0:
            rows[ROW_DONE, row] = 1
        own = _emit(state, rules, place, end)
        if own != gap:
            _add_gap(state, gap, times)
            gap, times = own, 0
        times += 1
    _add_gap(state, gap, times)
    return brought


@inner
def _emit(state: State, rules: Rules, place: int, end: int) -> int:
    """Note that a request has a token at `end`; return the time since the one before, -1 where it is the first."""
    request = state.request
    gap = end - request[place, LAST_TOKEN] if request[place, FIRST_TOKEN] >= 0 else -1
    if gap < 0:
        request[place, FIRST_TOKEN] = end
    request[place, LAST_TOKEN] = end
    if rules.keeps_token_times:
        state.token_ns[request[place, TOKEN_TIMES] + request[place, GENERATED]] = end
    request[place, GENERATED] += 1
    return gap


@inner
def _add_gap(state: State, gap: int, times: int) -> None:
    if gap < 0 or times == 0:
        return
    told = state.scalars[TOLD_GAPS]
    state.gaps[told, 0], state.gaps[told, 1] = gap, times
    state.scalars[TOLD_GAPS] = told + 1


@inner
def _finish(state: State, rules: Rules, place: int, end: int) -> None:
    """Take a request that is done out of wherever it is, and tell its row."""
    scalars, request = state.scalars, state.request
    release(state, rules, place, False)
    if request[place, STATUS] == RUNNING:
        at = 0
        while state.running[at] != place:
            at += 1
        scalars[IN_RUN] -= 1
        for after in range(at, scalars[IN_RUN]):
            state.running[after] = state.running[after + 1]
        leave_seat(state, rules, place)
    else:  # its last token was in flight when it lost its place
        at = scalars[HEAD]
        while state.waiting[at] != place:
            at += 1
        for after in range(at, scalars[HEAD], -1):
            state.waiting[after] = state.waiting[after - 1]
        scalars[HEAD] += 1
    request[place, STATUS] = FINISHED
    scalars[UNTOLD] = 1
    row = state.finished[scalars[TOLD_FINISHED]]
    row[0], row[1], row[2] = request[place, ID], request[place, PROMPT], request[place, GENERATED]
    row[3], row[4], row[5] = request[place, ARRIVAL], request[place, QUEUED], request[place, SCHEDULED]
    row[6], row[7], row[8] = request[place, FIRST_TOKEN], end, place
    scalars[TOLD_FINISHED] += 1


@inner
def _tell(state: State, flight: int, tokens: int) -> None:
    """Write the batch's row of what is told."""
    batch, at = state.flight, state.scalars[TOLD]
    told = state.told[at]
    told[T_SERIAL], told[T_RUN], told[T_DECIDED] = batch[flight, F_SERIAL], batch[flight, F_RUN], batch[flight, DECIDED]
    told[T_REQUESTS], told[T_PREFILLS] = batch[flight, ROWS], batch[flight, PREFILLS]
    told[T_PROMPT_TOKENS], told[T_TOKENS] = batch[flight, PROMPT_TOKENS], tokens
    told[T_RUNNING], told[T_WAITING] = batch[flight, F_RUNNING], batch[flight, F_WAITING]
    told[T_FREE], told[T_LOST] = batch[flight, F_FREE], batch[flight, LOST]
    told[T_GAP_WAITING], told[T_GAP_IDLE] = batch[flight, GAP_WAITING], batch[flight, GAP_IDLE]
    told[T_NEW_TOKENS], told[T_SAMPLES] = batch[flight, NEW_TOKENS], batch[flight, SAMPLES]
    for stage in range(state.passage.shape[2]):
        state.told_stages[at, 0, stage] = state.passage[flight, 0, stage]
        state.told_stages[at, 1, stage] = state.passage[flight, 1, stage]
    state.scalars[TOLD] = at + 1
