"""The state of a compiled engine: arrays, and what stands where in them. Everything is int64 unless said otherwise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trace_gen.attention_numbers import CompiledAttention

IntArray = NDArray[np.int64]
SmallArray = NDArray[np.int32]
FloatArray = NDArray[np.float64]

NEVER = 2**63 - 1
NOTHING = -1
"""In place of a flight: a decision for nothing."""

# What `run` comes back for.
REACHED, ASKS_PRICE, IS_FULL, LACKS_CONTENTS = 0, 1, 2, 3

# Where a request is.
WAITING, RUNNING, PREEMPTED, FINISHED = 0, 1, 2, 3

# Columns of `State.request`: what came with it (ENTERED: when it came to the engine), then counters as
# `schedulers.vllm.entry.Entry` has them, then times. CONTENTS: where its blocks' contents stand in `State.known`, KNOWN
# of them; PRIVATE: the number of the content of its first block, if it were known to itself only (0: none was given).
# Contents that others may know of have even numbers, private ones odd.
(
    ID, ARRIVAL, ENTERED, PROMPT, FINAL, CONTENTS, KNOWN, TOKEN_TIMES,
    STATUS, TOKENS, COMPUTED, PLACEHOLDERS, IN_FLIGHT, LEFT, PREEMPTIONS,
    SEAT, BLOCKS, REGISTERED, PRIVATE,
    QUEUED, SCHEDULED, FIRST_TOKEN, LAST_TOKEN, GENERATED, SAMPLED_UNTIL,
    REQUEST_COLUMNS,
) = range(26)  # fmt: skip

# Places of `State.scalars`; ACTS_NEXT is when it acts next, as far as was known when `run` stopped; TIMES_USED
# how much of `State.token_ns` is some request's.
(
    NOW, AWAITS, ASLEEP, UNTOLD, SERIAL, RUNS, SUBMITTED, SEEN, HEAD, TAIL, IN_RUN, IN_QUEUE,
    THERE, FREE_BLOCKS, UNUSED_BLOCK, FREED_FIRST, FREED_LAST, NEXT_CONTENT,
    PENDING, WANTED_TOKENS, WANTED_SAMPLES, STEP, LAST_LAUNCHED,
    TOLD, TOLD_GAPS, TOLD_BEGUN, TOLD_FINISHED,
    REPORTED_RUNNING, REPORTED_WAITING, REPORTED_FREE, ACTS_NEXT, TIMES_USED,
    SCALARS,
) = range(33)  # fmt: skip

# Columns of `State.flight`: of the batch, then the state as it was decided, then what was before it.
(
    ROWS, F_SERIAL, F_RUN, DECIDED, PREFILLS, PROMPT_TOKENS, F_RUNNING, F_WAITING, F_FREE, LOST, GAP_WAITING, GAP_IDLE,
    NEW_TOKENS, SAMPLES, ADMITTED, PLAIN,
    FLIGHT_COLUMNS,
) = range(17)  # fmt: skip

# Columns of `State.rows`.
ROW_REQUEST, ROW_NEW, ROW_CONTEXT, ROW_SAMPLES, ROW_ENTERS, ROW_DONE = range(6)

# Columns of `State.links`: of a block's neighbours in the free list, its owners, its content (0: none), and its
# neighbours among the blocks of the same content.
NEXT, PREVIOUS, OWNERS, CONTENT, NEXT_SAME, PREVIOUS_SAME = range(6)

# Columns of `State.told`, as `orchestrator.engine.iterations.Iterations` names them; the last two decide its price.
(
    T_SERIAL, T_RUN, T_DECIDED, T_REQUESTS, T_PREFILLS, T_PROMPT_TOKENS, T_TOKENS, T_RUNNING, T_WAITING, T_FREE,
    T_LOST, T_GAP_WAITING, T_GAP_IDLE, T_NEW_TOKENS, T_SAMPLES,
    TOLD_COLUMNS,
) = range(16)  # fmt: skip


class Rules(NamedTuple):
    """What never changes: the policy's settings, sizes, and the host's terms (`orchestrator.pricing.host`).

    Flags are 0 or 1. `block_size` in tokens, `blocks` that can be used; `numbered`: blocks have numbers and contents.
    `keeps_token_times`: of every token. `largest_graph`: tokens of the largest captured graph, 0 where there is none.
    """

    places: int
    stages: int
    ahead: int
    seats: int
    budget: int
    threshold: int
    chunked: int
    reserves: int
    longest: int
    block_size: int
    blocks: int
    numbered: int
    keeps_token_times: int
    host_ns: int
    host_request_ns: int
    host_hidden: int
    has_host: int
    largest_graph: int


class Prices(NamedTuple):
    """What batches take (see `orchestrator.pricing.compiled`); -1 ns where it has not been worked out.

    `tokens_ns` ``[tokens + 1, stages]``, `samples_ns` ``[samples + 1, stages]``; `padded` ``[tokens + 1]``; `layers`
    ``[kinds, stages]`` of each of the kinds of `attention`, `has_layers` ``[kinds]`` whether there are any;
    `launch_ns` ``[stages]`` where no graph was captured.
    """

    tokens_ns: IntArray
    samples_ns: IntArray
    padded: IntArray
    layers: IntArray
    has_layers: IntArray
    launch_ns: IntArray


class State(NamedTuple):
    """See the columns above.

    - `waiting` holds requests' places from scalar HEAD to TAIL, `running` the first IN_RUN of it;
    - `queue`: the flights in the engine's loop, oldest first, IN_QUEUE of them, `NOTHING` for decisions for nothing;
      batch after batch has the next of them;
    - `rows` ``[flights, 6, seats]``, `passage` ``[flights, 2, stages]``: when each stage begins and ends it;
    - `tables` ``[seats, blocks of the longest request]``: numbers of blocks, `spare_seats` those that nobody has;
    - `contents` ``[contents, 2]``: the first and the last block that has a content; `known`: contents of requests'
      blocks;
    - `told`, `told_stages`, `gaps`, `begun`, `finished`: what has not been told yet; `token_ns`: times of tokens;
    - `tokens_used`, `samples_used`: how often each entry of the tables was a batch's; `spent` ``[2]``: ns of attention,
      and what the host added;
    - `attention_ns` ``[kinds]``: of the batch being launched; `floats`, `ints`: space for it, ``[kinds, 4, seats]``.
    """

    scalars: IntArray
    request: IntArray
    waiting: IntArray
    running: IntArray
    queue: IntArray
    flight: IntArray
    rows: IntArray
    passage: IntArray
    stage_free: IntArray
    tables: SmallArray
    spare_seats: IntArray
    links: SmallArray
    contents: SmallArray
    known: SmallArray
    told: IntArray
    told_stages: IntArray
    gaps: IntArray
    begun: IntArray
    finished: IntArray
    token_ns: IntArray
    tokens_used: IntArray
    samples_used: IntArray
    spent: IntArray
    attention_ns: IntArray
    floats: FloatArray
    ints: IntArray


Attention = tuple[CompiledAttention, CompiledAttention, CompiledAttention, CompiledAttention]
"""As many kinds as there may be: compiled code has one form for all models. Those that a model lacks have no layers."""
KINDS = 4
