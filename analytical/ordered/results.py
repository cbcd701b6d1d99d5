"""Times of many steps, put together from the orders that prove some of them and from the event queue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analytical.chains.meetings import narrow
from analytical.ordered.evaluating import Timed
from analytical.ordered.structure import Structure
from converters.execution_graph import IntArray, IterationResult


class Results:
    """The times of `steps` steps. `left`: steps that have none yet, ascending."""

    def __init__(self, structure: Structure, steps: int) -> None:
        self.left: IntArray = np.arange(steps)
        self._put_off: list[int] = []
        self._steps = steps
        self._ranks = [own.ranks for own in structure.sets]
        self._pieces: list[tuple[IntArray, Sequence[IntArray], Sequence[IntArray]]] = []

    def put_off(self, step: int) -> None:
        """Leave a step to the fallback."""
        self._put_off.append(step)
        self.left = self.left[self.left != step]

    def unproven(self) -> IntArray:
        """Return the steps that nothing proves."""
        return np.sort(np.concatenate([self.left, np.array(self._put_off, dtype=np.int64)]))

    def take(self, steps: IntArray, timed: Timed) -> None:
        """Take the proven ones of `steps`."""
        proven = timed.proven
        finish = [time[proven] for time in timed.finish]
        self._pieces.append((steps[proven], finish, [time[proven] for time in timed.exposed]))
        self.left = steps[~proven]

    def fill(self, steps: IntArray, answer: IterationResult) -> None:
        """Take the fallback's answer for `steps`."""
        column = {rank: at for at, ranks in enumerate(answer.rank_sets) for rank in ranks}
        places = [[column[rank] for rank in ranks] for ranks in self._ranks]
        finish = [answer.finish_ns[:, place] for place in places]
        self._pieces.append((steps, finish, [answer.exposed_ns[:, place] for place in places]))

    def joined(self) -> IterationResult:
        """Return all of it; a set whose ranks differ becomes one set a rank."""
        rank_sets: list[tuple[int, ...]] = []
        finish, exposed = [], []
        for index, ranks in enumerate(self._ranks):
            time = self._column([(steps, times[index]) for steps, times, _ in self._pieces], len(ranks))
            over = self._column([(steps, times[index]) for steps, _, times in self._pieces], len(ranks))
            if time.shape[1] != over.shape[1]:
                time, over = (np.broadcast_to(one, (self._steps, len(ranks))) for one in (time, over))
            finish.append(time)
            exposed.append(over)
            rank_sets += [ranks] if time.shape[1] == 1 else [(rank,) for rank in ranks]
        return IterationResult(tuple(rank_sets), np.concatenate(finish, axis=1), np.concatenate(exposed, axis=1))

    def _column(self, pieces: Sequence[tuple[IntArray, IntArray]], ranks: int) -> IntArray:
        """Put pieces of ``[steps, 1]`` or ``[steps, ranks]`` together; one column if all ranks agree in all steps."""
        if len(pieces) == 1:
            return narrow(pieces[0][1])
        joined = np.empty((self._steps, ranks), dtype=np.int64)
        for steps, times in pieces:
            joined[steps] = times
        return narrow(joined)
