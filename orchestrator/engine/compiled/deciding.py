"""One pass of vLLM's scheduler over arrays: decision for decision what `schedulers.vllm` does (0.19, fcfs)."""

from __future__ import annotations

from foundation.compiling import inner
from orchestrator.engine.compiled.blocks import (
    admit,
    columns_of,
    found_columns,
    grow,
    missing_blocks,
    register,
    release,
)
from orchestrator.engine.compiled.layout import (
    ADMITTED,
    COMPUTED,
    FINAL,
    FREE_BLOCKS,
    HEAD,
    IN_FLIGHT,
    IN_RUN,
    LOST,
    NEW_TOKENS,
    PLACEHOLDERS,
    PLAIN,
    PREEMPTED,
    PREEMPTIONS,
    PREFILLS,
    PROMPT,
    PROMPT_TOKENS,
    ROW_CONTEXT,
    ROW_ENTERS,
    ROW_NEW,
    ROW_REQUEST,
    ROW_SAMPLES,
    ROWS,
    RUNNING,
    SAMPLES,
    SEAT,
    STATUS,
    TAIL,
    TOKENS,
    UNTOLD,
    Rules,
    State,
)


@inner
def schedule(state: State, rules: Rules, flight: int) -> bool:
    """Decide one step into `flight`; False: it neither computes nor preempts anything, and leaves no trace."""
    scalars, batch = state.scalars, state.flight
    scalars[UNTOLD] = 0
    for column in (ROWS, PREFILLS, PROMPT_TOKENS, LOST, NEW_TOKENS, SAMPLES, ADMITTED):
        batch[flight, column] = 0
    _serve_running(state, rules, flight)
    if not batch[flight, LOST]:
        _admit_waiting(state, rules, flight)
    rows = batch[flight, ROWS]
    alone = batch[flight, ADMITTED] == 0 and batch[flight, LOST] == 0
    batch[flight, PLAIN] = alone and batch[flight, NEW_TOKENS] == rows and batch[flight, SAMPLES] == rows
    return rows > 0 or batch[flight, LOST] > 0


@inner
def _serve_running(state: State, rules: Rules, flight: int) -> None:
    """Give running requests tokens in their order; where KV blocks run out, the last of them loses its own."""
    scalars, request, batch = state.scalars, state.request, state.flight
    index = 0
    while index < scalars[IN_RUN] and batch[flight, NEW_TOKENS] < rules.budget:
        place = state.running[index]
        tokens = _wanted(state, rules, place)
        if tokens <= 0:
            index += 1
            continue
        if 0 < rules.threshold < tokens:
            tokens = rules.threshold
        tokens = min(tokens, rules.budget - batch[flight, NEW_TOKENS])
        while not grow(state, rules, place, request[place, COMPUTED] + tokens):
            scalars[IN_RUN] -= 1
            victim = state.running[scalars[IN_RUN]]
            _preempt(state, rules, victim)
            batch[flight, LOST] += 1
            if victim == place:
                return
        _compute(state, rules, flight, place, tokens, 0)
        index += 1


@inner
def _wanted(state: State, rules: Rules, place: int) -> int:
    """Return the tokens that a running request could compute now; 0 when its last step is in flight."""
    request = state.request
    computed, coming = request[place, COMPUTED], request[place, PLACEHOLDERS]
    if coming and computed + 2 - coming >= request[place, FINAL]:
        return 0
    return min(request[place, TOKENS] + coming - computed, rules.longest - 1 - computed)


@inner
def _preempt(state: State, rules: Rules, place: int) -> None:
    """Send a running request back to the front of the waiting queue, without KV blocks."""
    scalars, request = state.scalars, state.request
    release(state, rules, place, True)
    leave_seat(state, rules, place)
    request[place, COMPUTED] = 0
    request[place, STATUS] = PREEMPTED
    request[place, PREEMPTIONS] += 1
    scalars[HEAD] -= 1
    state.waiting[scalars[HEAD]] = place


@inner
def leave_seat(state: State, rules: Rules, place: int) -> None:
    """Let others have the block table of a request that holds nothing any more."""
    state.spare_seats[rules.seats - state.scalars[IN_RUN] - 1] = state.request[place, SEAT]


@inner
def _admit_waiting(state: State, rules: Rules, flight: int) -> None:
    """Admit waiting requests from the head until the first that finds no seat, tokens or KV blocks."""
    scalars, request, batch = state.scalars, state.request, state.flight
    while scalars[HEAD] < scalars[TAIL]:
        left = rules.budget - batch[flight, NEW_TOKENS]
        if left <= 0 or scalars[IN_RUN] >= rules.seats:
            return
        place = state.waiting[scalars[HEAD]]
        found = found_columns(state, rules, place)
        there = found * rules.block_size
        tokens = request[place, TOKENS] - there
        if 0 < rules.threshold < tokens:
            tokens = rules.threshold
        if tokens > left:
            if not rules.chunked:
                return
            tokens = left
        if rules.reserves and not _fits(state, rules, place, found):
            return
        request[place, SEAT] = state.spare_seats[rules.seats - scalars[IN_RUN] - 1]
        if not admit(state, rules, place, found, there + tokens):
            return
        scalars[HEAD] += 1
        state.running[scalars[IN_RUN]] = place
        scalars[IN_RUN] += 1
        request[place, STATUS] = RUNNING
        request[place, COMPUTED] = there
        batch[flight, ADMITTED] += 1
        _compute(state, rules, flight, place, tokens, 1)


@inner
def _fits(state: State, rules: Rules, place: int, found: int) -> bool:
    """Whether there is room for all known tokens of a request."""
    tokens = min(state.request[place, TOKENS], rules.longest)
    if not rules.numbered:
        return columns_of(rules, tokens) <= state.scalars[FREE_BLOCKS]
    return missing_blocks(state, rules, place, found, tokens) <= state.scalars[FREE_BLOCKS]


@inner
def _compute(state: State, rules: Rules, flight: int, place: int, tokens: int, enters: int) -> None:
    """Add a row and count its tokens; blocks it fills can be found from now on, even in this step."""
    request, batch = state.request, state.flight
    computed = request[place, COMPUTED]
    after = computed + tokens
    register(state, rules, place, min(after, request[place, TOKENS]))
    samples = 1 if after >= request[place, TOKENS] + request[place, PLACEHOLDERS] else 0
    row = batch[flight, ROWS]
    state.rows[flight, ROW_REQUEST, row] = place
    state.rows[flight, ROW_NEW, row] = tokens
    state.rows[flight, ROW_CONTEXT, row] = computed
    state.rows[flight, ROW_SAMPLES, row] = samples
    state.rows[flight, ROW_ENTERS, row] = enters
    batch[flight, ROWS] = row + 1
    batch[flight, NEW_TOKENS] += tokens
    batch[flight, SAMPLES] += samples
    prompt = min(tokens, request[place, PROMPT] - computed)
    if prompt > 0:
        batch[flight, PREFILLS] += 1
        batch[flight, PROMPT_TOKENS] += prompt
    request[place, COMPUTED] = after
    request[place, IN_FLIGHT] += tokens
    if rules.ahead:
        request[place, PLACEHOLDERS] += samples
