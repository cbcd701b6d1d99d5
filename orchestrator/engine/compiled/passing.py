"""What a batch takes, and when the stages begin and end it: the sums of `pricing.compiled`, what the host adds to them
(`pricing.host`), and the passage through the stages (`engine.stages`).
"""

from __future__ import annotations

from foundation.compiling import inner
from orchestrator.engine.compiled.layout import (
    DECIDED,
    F_FREE,
    F_RUN,
    F_RUNNING,
    F_SERIAL,
    F_WAITING,
    FREE_BLOCKS,
    GAP_IDLE,
    GAP_WAITING,
    HEAD,
    IN_QUEUE,
    IN_RUN,
    KINDS,
    LAST_LAUNCHED,
    NEW_TOKENS,
    NOTHING,
    NOW,
    PLAIN,
    ROW_CONTEXT,
    ROW_NEW,
    ROW_REQUEST,
    ROW_SAMPLES,
    ROWS,
    RUNS,
    SAMPLED_UNTIL,
    SAMPLES,
    SERIAL,
    STEP,
    TAIL,
    THERE,
    WANTED_SAMPLES,
    WANTED_TOKENS,
    Attention,
    Prices,
    Rules,
    State,
)
from trace_gen.compiled_attention import batch_ns, begin_decodes, decodes_ns

ATTENTION, HOST = 0, 1
"""Places of `State.spent`."""


@inner
def launch(state: State, rules: Rules, prices: Prices, attention: Attention, flight: int) -> bool:
    """Send a decided batch through the stages; False: what it takes is not in the tables yet (WANTED_TOKENS)."""
    scalars, batch = state.scalars, state.flight
    tokens, samples = batch[flight, NEW_TOKENS], batch[flight, SAMPLES]
    rows = batch[flight, ROWS]
    if rows:
        tokens = prices.padded[tokens]
        if prices.tokens_ns[tokens, 0] < 0 or prices.samples_ns[samples, 0] < 0:
            scalars[WANTED_TOKENS], scalars[WANTED_SAMPLES] = tokens, samples
            return False
    batch[flight, DECIDED] = scalars[NOW]
    batch[flight, F_RUNNING], batch[flight, F_WAITING] = scalars[IN_RUN], scalars[TAIL] - scalars[HEAD]
    batch[flight, F_FREE] = scalars[FREE_BLOCKS]
    batch[flight, GAP_WAITING] = batch[flight, GAP_IDLE] = 0
    again = _is_again(state, flight)
    scalars[RUNS] += not again
    batch[flight, F_RUN], batch[flight, F_SERIAL] = scalars[RUNS], scalars[SERIAL]
    scalars[SERIAL] += 1
    scalars[LAST_LAUNCHED] = flight
    if rows:
        _time_attention(state, prices, attention, flight, again)
        _pass_stages(state, rules, prices, flight, tokens, samples)
    else:
        _end_with_others(state, rules, flight)
    return True


@inner
def _is_again(state: State, flight: int) -> bool:
    """Whether a batch has the rows of the one before it, each a token further."""
    batch, before = state.flight, state.scalars[LAST_LAUNCHED]
    rows = batch[flight, ROWS]
    if before < 0 or not (batch[flight, PLAIN] and batch[before, PLAIN] and batch[before, ROWS] == rows and rows):
        return False
    own, other = state.rows[flight], state.rows[before]
    for row in range(rows):
        if own[ROW_REQUEST, row] != other[ROW_REQUEST, row] or own[ROW_CONTEXT, row] != other[ROW_CONTEXT, row] + 1:
            return False
    return True


@inner
def _time_attention(state: State, prices: Prices, attention: Attention, flight: int, again: bool) -> None:
    """Work out one layer's attention of each kind into the space of the batch's stages."""
    batch, rows = state.flight, state.rows[flight]
    count = batch[flight, ROWS]
    new, context = rows[ROW_NEW, :count], rows[ROW_CONTEXT, :count]
    alone = batch[flight, NEW_TOKENS] == count
    state.scalars[STEP] = state.scalars[STEP] + 1 if again else 0
    for kind in range(KINDS):
        if not prices.has_layers[kind]:
            continue
        floats, ints = state.floats[kind], state.ints[kind]
        if not alone:
            state.attention_ns[kind] = batch_ns(attention[kind], new, context, count, floats, ints)
            continue
        if not again:
            begin_decodes(attention[kind], context, count, floats, ints)
        state.attention_ns[kind] = decodes_ns(attention[kind], count, state.scalars[STEP], floats, ints)


@inner
def _pass_stages(state: State, rules: Rules, prices: Prices, flight: int, tokens: int, samples: int) -> None:
    """Let each stage begin a batch when the one before is done with it, and it itself with the batch before."""
    scalars, batch, passage = state.scalars, state.flight, state.passage[flight]
    end = _ready(state, rules, flight)
    last_free = state.stage_free[rules.stages - 1]
    state.tokens_used[tokens] += 1
    state.samples_used[samples] += 1
    for stage in range(rules.stages):
        attending = 0
        for kind in range(KINDS):
            attending += prices.layers[kind, stage] * state.attention_ns[kind]
        takes = prices.tokens_ns[tokens, stage] + prices.samples_ns[samples, stage] + attending
        state.spent[ATTENTION] += attending
        if rules.has_host:
            added = _added_by_host(state, rules, prices, flight, stage, takes)
            state.spent[HOST] += added
            takes += added
        begin = max(end, state.stage_free[stage])
        end = begin + takes
        passage[0, stage], passage[1, stage] = begin, end
        state.stage_free[stage] = end
    if passage[0, 0] > last_free:
        there = max(last_free, scalars[THERE])
        batch[flight, GAP_WAITING], batch[flight, GAP_IDLE] = passage[0, 0] - there, there - last_free
    rows = state.rows[flight]
    for row in range(batch[flight, ROWS]):
        if rows[ROW_SAMPLES, row]:
            state.request[rows[ROW_REQUEST, row], SAMPLED_UNTIL] = end


@inner
def _ready(state: State, rules: Rules, flight: int) -> int:
    """Return when a batch may begin: a token is computed from the one before, which may be in the pipeline."""
    ready = state.scalars[NOW]
    if rules.stages > 1:
        rows = state.rows[flight]
        for row in range(state.flight[flight, ROWS]):
            ready = max(ready, state.request[rows[ROW_REQUEST, row], SAMPLED_UNTIL])
    return ready


@inner
def _added_by_host(state: State, rules: Rules, prices: Prices, flight: int, stage: int, takes: int) -> int:
    """Return what shows of the host's time beside a stage that takes `takes` ns by itself."""
    batch, launches = state.flight, 0
    if batch[flight, NEW_TOKENS] > rules.largest_graph:
        launches = prices.launch_ns[stage]
    added = max(launches - takes, 0)
    if stage:
        return added
    count = batch[flight, ROWS]
    host = rules.host_ns + rules.host_request_ns * count
    if rules.host_hidden:
        rows, prompts = state.rows[flight], False
        for row in range(count):
            prompts |= rows[ROW_NEW, row] > 1
        if not prompts:
            return max(host + launches - takes, 0)
    return added + host


@inner
def _end_with_others(state: State, rules: Rules, flight: int) -> None:
    """Let a decision that only preempts end with all that were decided before it."""
    end = state.scalars[NOW]
    for at in range(state.scalars[IN_QUEUE]):
        other = state.queue[at]
        if other != NOTHING:
            end = max(end, state.passage[other, 1, rules.stages - 1])
    for stage in range(state.passage.shape[2]):
        state.passage[flight, 0, stage] = state.passage[flight, 1, stage] = end
