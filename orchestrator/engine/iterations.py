"""What observers are told of many iterations of one engine at once: columns, in the order in which they ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.schedulers.interface import KVUsage

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Iterations:
    """Iterations of one engine that have ended since it told of some last; times in ns, columns ``[n]``.

    Who is told may keep the columns: they are not written to again.

    - `serial`: the number among the engine's iterations; `run`: iterations of the same requests that all decode, none
      of which came or went between them, follow each other with the same number, any other has one of its own;
    - `decided_ns`, `start_ns`, `end_ns`; `stage_ns` ``[n, 2, stages]``: when each stage began and ended;
    - `requests` in it, of which `prefills` computed `prompt_tokens` of their prompts; `tokens` that came out of it. One
      of no requests only preempted some: it took no time and counts as no iteration;
    - `running`, `waiting`, `free_blocks`: the state as it was decided, `after`: when the last of them had been
      accounted for;
    - `waiting_ns`, `idle_ns`: the gap before it (`orchestrator.engine.records.Gap`); `preempted`: how many lost their
      place;
    - `busy_ns` ``[classes]``: simulated time of them all by class of work, over all stages;
    - `gaps_ns`, `gap_counts` ``[g]``: times between two tokens of a request, and how often each occurred (a value may
      stand in several rows);
    - `begun`, `begun_ns` ``[b]``: ids of requests whose first token began to be computed, and when;
    - `finished` ``[f, 9]``: rows of requests that are done, the columns of `orchestrator.observers.finished.COLUMNS`,
      in order of their ends; `token_gaps`: the times between each one's tokens, None unless they were asked for;
    - `unfinished`: returns, when called, such rows of the requests that are under way, -1 for what has not been
      reached.
    """

    engine: int
    serial: IntArray
    run: IntArray
    decided_ns: IntArray
    start_ns: IntArray
    end_ns: IntArray
    stage_ns: IntArray
    requests: IntArray
    prefills: IntArray
    prompt_tokens: IntArray
    tokens: IntArray
    running: IntArray
    waiting: IntArray
    free_blocks: IntArray
    preempted: IntArray
    waiting_ns: IntArray
    idle_ns: IntArray
    total_blocks: int
    after: KVUsage
    busy_ns: IntArray
    gaps_ns: IntArray
    gap_counts: IntArray
    begun: IntArray
    begun_ns: IntArray
    finished: IntArray
    token_gaps: Sequence[IntArray] | None
    unfinished: Callable[[], IntArray]

    def __len__(self) -> int:
        return len(self.serial)
