"""Continuous batching as ReaLLM tells its kinds apart: prompts alone, or in chunks beside the decodes.

`PromptsFirstScheduler` (`--scheduling continuous`): the prompts that fit are computed in an iteration of their own, and
all that decode wait for it; where there are none, everybody decodes.

`ChunkedScheduler` (`--scheduling chunked-mixed-continuous`): every iteration decodes for all and computes `chunk`
tokens of prompts beside that, one prompt after the other. Prompts are taken in rounds: all that wait, when those taken
before are computed. So the last chunk of a round may be a short one::

    chunk 4, prompts of 5 and 4, later one of 6      5: 0 1 2 3 | 5: 4  4: 0 1 2 | 4: 3 | 6: 0 1 2 3 | 6: 4 5

Whole prompts mixed with decodes (`--scheduling mixed-continuous`) are what `OrcaScheduler` does. Its rules of memory
hold for all: the longest prefix of the pool that fits is computed; where the first does not fit, those that began last
are evicted to host memory.

Source: `simulator/system/scheduler.py` of ReaLLM (branch reallm_v2, 4c550c3), which has no limit of memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

from orchestrator.engine.batch import Batch
from orchestrator.requests.admission import Admission
from orchestrator.schedulers.ledger import Ledger
from orchestrator.schedulers.orca import NOT_STARTED, OrcaScheduler
from orchestrator.schedulers.orders import Order, fcfs, line_up
from orchestrator.schedulers.tracked import Tracked


class PromptsFirstScheduler(OrcaScheduler):
    """See the module's docstring. Who decodes counts against `max_batch` and memory while prompts are chosen."""

    def _choose(self) -> list[tuple[Tracked, int]]:
        """Return the prompts of the prefix that fits, or the decodes where it has none."""
        prefix = super()._choose()
        return [(member, tokens) for member, tokens in prefix if prompt_left(member)] or prefix


class ChunkedScheduler(OrcaScheduler):
    """See the module's docstring. `_waiting` is the round, in which `_coming` have no part yet."""

    def __init__(
        self,
        ledger: Ledger[Tracked],
        *,
        chunk: int,
        max_batch: int = 0,
        pipeline: int = 1,
        order: Order = fcfs,
    ) -> None:
        super().__init__(ledger, max_batch=max_batch, pipeline=pipeline, order=order)
        self._chunk = chunk
        self._coming: deque[Tracked] = deque()

    def add(self, admission: Admission, now: int) -> None:
        """Take a request into the queue for the next round."""
        line_up(self._coming, Tracked(admission, NOT_STARTED), self._order)

    def schedule(self, now: int) -> Batch | None:
        """Return the decodes and the chunk that fit; None when nothing can run now."""
        if not self._waiting and not self._unfinished_prompt():
            self._waiting, self._coming = self._coming, self._waiting
        return super().schedule(now)

    def _unfinished_prompt(self) -> bool:
        """Whether somebody who has started lacks prompt tokens that no batch in flight computes."""
        flying = (member for flight in self._ledger.flights for member in flight.members)
        return any(map(prompt_left, self._started)) or any(prompt_left(member) for member in flying if not member.gone)

    def _queues(self) -> Sequence[list[Tracked] | deque[Tracked]]:
        return *super()._queues(), self._coming

    def _pool(self) -> Iterator[tuple[Tracked, int]]:
        """Yield who decodes and whom the chunk reaches; in the round nobody overtakes one whom it does not."""
        chunk = self._chunk
        for member in chain(self._started, self._waiting):
            lacking = prompt_left(member)
            if not lacking:
                yield member, member.tokens
            elif chunk:
                new = min(lacking, chunk)
                chunk -= new
                yield member, member.computed + new
            elif member.serial == NOT_STARTED:
                return


def prompt_left(member: Tracked) -> int:
    """Return the prompt tokens of a request that no batch has computed yet; 0: it decodes."""
    return max(0, member.request.prompt_tokens - member.computed)
