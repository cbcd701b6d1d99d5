"""Executes decode iterations before they are decided, where batches alternate and so cannot run on as one.

In a pipeline every batch is decided anew each iteration, yet mostly its next iteration is the same with one token
more a request. So a few like iterations are executed at once and kept; a batch that turns out to be one of them costs
nothing. How many is doubled each time all were used, and begins again when a guess was wrong. Results are those of the
executor within, since an iteration's time depends on nothing but the iteration.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.batch import Batch
from orchestrator.executor import Executor

IntArray = NDArray[np.int64]
MOST_AHEAD = 64


@dataclass(slots=True)
class _Guess:
    """Finish times ``[steps, stages]`` of a batch with `context` ``[n]`` tokens a request before the first step."""

    context: IntArray
    finishes: IntArray

    def step_of(self, context: IntArray) -> int | None:
        """Return which of the steps has `context` tokens in the cache, if any has."""
        ahead = context - self.context
        step = int(ahead[0])
        return step if 0 <= step < len(self.finishes) and bool((ahead == step).all()) else None


class Foresight:
    """An executor around another; see the module's docstring. It keeps guesses for as many batches as `keep`."""

    def __init__(self, inner: Executor, keep: int) -> None:
        self.stages = inner.stages
        self.max_steps = inner.max_steps
        self._inner = inner
        self._keep = keep
        self._guesses: OrderedDict[tuple[int, ...], _Guess] = OrderedDict()

    def run(self, batch: Batch) -> IntArray:
        """See `orchestrator.executor.Executor.run`."""
        if batch.steps > 1 or not _decodes_only(batch):
            return self._inner.run(batch)
        members = tuple(request.id for request in batch.requests)
        context = np.array(batch.context_tokens, dtype=np.int64)
        guess = self._guesses.pop(members, None)
        step = guess.step_of(context) if guess is not None else None
        if guess is None or step is None:
            ahead = 1
            if guess is not None and bool((context - guess.context == len(guess.finishes)).all()):
                ahead = min(2 * len(guess.finishes), MOST_AHEAD, self.max_steps)
            guess, step = _Guess(context, self._inner.run(replace(batch, steps=ahead))), 0
        self._guesses[members] = guess
        if len(self._guesses) > self._keep:
            self._guesses.popitem(last=False)
        return guess.finishes[step : step + 1]


def _decodes_only(batch: Batch) -> bool:
    """Whether like iterations may follow: every request decodes one token, and no KV blocks move."""
    if batch.kv_loads or batch.kv_evictions:
        return False
    return sum(batch.new_tokens) == len(batch.new_tokens) and all(batch.samples)
