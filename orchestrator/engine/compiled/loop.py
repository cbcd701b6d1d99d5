"""The events of one engine in order of time, as `engine.engine` and its `QueueLoop` have them: vLLM's batch queue."""

from __future__ import annotations

from foundation.compiling import compiled, inner
from orchestrator.engine.compiled.deciding import schedule
from orchestrator.engine.compiled.landing import land, report
from orchestrator.engine.compiled.layout import (
    ACTS_NEXT,
    ASKS_PRICE,
    ASLEEP,
    AWAITS,
    ENTERED,
    HEAD,
    IN_QUEUE,
    IN_RUN,
    IS_FULL,
    LACKS_CONTENTS,
    NEXT_CONTENT,
    NOTHING,
    NOW,
    PENDING,
    QUEUED,
    REACHED,
    ROWS,
    SEEN,
    SERIAL,
    SUBMITTED,
    TAIL,
    THERE,
    TOLD,
    TOLD_BEGUN,
    TOLD_FINISHED,
    TOLD_GAPS,
    UNTOLD,
    Attention,
    Prices,
    Rules,
    State,
)
from orchestrator.engine.compiled.passing import launch


@compiled
def run(state: State, rules: Rules, prices: Prices, attention: Attention, until: int) -> int:
    """Let batches end until `until` and decide those before it; return what it came back for (`REACHED` and others).

    It goes on where it stopped when it is called again, with the price worked out, or with room made.
    """
    scalars = state.scalars
    if scalars[PENDING] != NOTHING and not _launch_pending(state, rules, prices, attention):
        return ASKS_PRICE
    while True:
        time = scalars[ACTS_NEXT] = _next_ns(state, rules)
        if time > until or (time == until and not scalars[AWAITS]):
            return REACHED
        if scalars[AWAITS]:
            if _is_full(state, rules):
                return IS_FULL
            scalars[NOW] = time
            scalars[AWAITS] = 0
            land(state, rules, _pop(state))
            continue
        if rules.numbered and _may_lack_contents(state):
            return LACKS_CONTENTS
        scalars[NOW] = time
        if not _decide(state, rules, prices, attention):
            return ASKS_PRICE


@compiled
def next_ns(state: State, rules: Rules) -> int:
    """Return when the engine acts next by what it knows now, `NEVER` if nothing moves it (for use outside of `run`)."""
    return _next_ns(state, rules)


@inner
def _next_ns(state: State, rules: Rules) -> int:
    scalars = state.scalars
    if scalars[AWAITS]:
        return state.passage[state.queue[0], 1, rules.stages - 1]
    if not scalars[ASLEEP]:
        return scalars[NOW]
    if scalars[SEEN] == scalars[SUBMITTED]:
        return 2**63 - 1
    return max(scalars[NOW], state.request[scalars[SEEN], ENTERED])


@inner
def _is_full(state: State, rules: Rules) -> bool:
    """Whether there may be no room to tell of one more batch."""
    scalars, most = state.scalars, rules.seats
    return (
        scalars[TOLD] == len(state.told)
        or scalars[TOLD_GAPS] + most > len(state.gaps)
        or scalars[TOLD_BEGUN] + most > len(state.begun)
        or scalars[TOLD_FINISHED] + most > len(state.finished)
    )


@inner
def _may_lack_contents(state: State) -> bool:
    """Whether requests that lose their place now might need more numbers of contents than there is room for."""
    scalars = state.scalars
    return scalars[NEXT_CONTENT] + 2 * scalars[IN_RUN] * state.tables.shape[1] > len(state.contents)


@inner
def _decide(state: State, rules: Rules, prices: Prices, attention: Attention) -> bool:
    """See who has come and make one decision; False: it waits for its price."""
    scalars, request = state.scalars, state.request
    while scalars[SEEN] < scalars[SUBMITTED] and request[scalars[SEEN], ENTERED] <= scalars[NOW]:
        place = scalars[SEEN]
        if scalars[IN_RUN] == 0 and scalars[HEAD] == scalars[TAIL]:
            scalars[THERE] = request[place, ENTERED]
        state.waiting[scalars[TAIL]] = place
        scalars[TAIL] += 1
        scalars[SEEN] += 1
        request[place, QUEUED] = scalars[NOW]
    if not _has_unfinished(state):
        _nothing_to_decide(state)
        return True
    flight = scalars[SERIAL] % len(state.flight)
    if not schedule(state, rules, flight):
        _decided(state, rules, NOTHING)
        return True
    scalars[PENDING] = flight
    return _launch_pending(state, rules, prices, attention)


@inner
def _launch_pending(state: State, rules: Rules, prices: Prices, attention: Attention) -> bool:
    flight = state.scalars[PENDING]
    if not launch(state, rules, prices, attention, flight):
        return False
    state.scalars[PENDING] = NOTHING
    _decided(state, rules, flight)
    return True


@inner
def _has_unfinished(state: State) -> bool:
    scalars = state.scalars
    return scalars[IN_RUN] > 0 or scalars[HEAD] < scalars[TAIL] or scalars[UNTOLD] > 0


@inner
def _nothing_to_decide(state: State) -> None:
    """See `QueueLoop.nothing_to_decide`."""
    scalars = state.scalars
    if scalars[IN_QUEUE]:
        if state.queue[0] == NOTHING:
            _pop(state)
        else:
            scalars[AWAITS] = 1
    scalars[ASLEEP] = scalars[IN_QUEUE] == 0


@inner
def _decided(state: State, rules: Rules, flight: int) -> None:
    """See `QueueLoop.decided`: the engine decides on while there is a place, else awaits the oldest batch."""
    scalars = state.scalars
    scalars[ASLEEP] = 0
    state.queue[scalars[IN_QUEUE]] = flight
    scalars[IN_QUEUE] += 1
    oldest = state.queue[0]
    goes_on = scalars[IN_QUEUE] < rules.places and flight != NOTHING and oldest != NOTHING
    if goes_on:
        executed = state.flight[flight, ROWS] > 0
        goes_on = executed and state.passage[oldest, 1, rules.stages - 1] > scalars[NOW]
    if not goes_on:
        _await(state)
    if scalars[IN_QUEUE] < rules.places and not scalars[AWAITS]:
        report(state)


@inner
def _await(state: State) -> None:
    """Wait for the oldest batch; a decision for nothing in front of it is done at once."""
    scalars = state.scalars
    if state.queue[0] != NOTHING:
        scalars[AWAITS] = 1
        return
    _pop(state)
    for at in range(scalars[IN_QUEUE]):
        if state.queue[at] != NOTHING:
            return
    if _has_unfinished(state):
        scalars[ASLEEP] = 1


@inner
def _pop(state: State) -> int:
    """Take what is oldest out of the queue."""
    oldest = state.queue[0]
    state.scalars[IN_QUEUE] -= 1
    for at in range(state.scalars[IN_QUEUE]):
        state.queue[at] = state.queue[at + 1]
    return oldest
