"""Completed batches retold as `Iterations`: worked out step by step and token by token, as no observer does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.cluster.clock import Told
from orchestrator.cluster.cluster import Cluster
from orchestrator.engine.iterations import Iterations
from orchestrator.engine.records import CompletedBatch

IntArray = NDArray[np.int64]


class Step(NamedTuple):
    """Step `place` of the batch `done`, which is the engine's `batch`-th; sorts in order of ends."""

    end: int
    serial: int
    batch: int
    place: int
    done: CompletedBatch

    @property
    def last(self) -> bool:
        return self.place + 1 == self.done.batch.steps

    @property
    def start(self) -> int:
        if self.place and len(self.done.stages_ns) > 1:
            return int(self.done.stages_ns[self.place, 0, 0])
        return int(self.done.ends_ns[self.place - 1]) if self.place else self.done.start_ns

    def stages(self) -> list[list[int]]:
        stages = self.done.stages_ns
        if not self.done.batch.requests or len(stages) == self.done.batch.steps:
            return [[int(x) for x in row] for row in stages[self.place]]
        return [[self.start], [self.end]]


@dataclass
class Known:
    """A request that is under way."""

    row: list[int]
    times: list[int]


class Retold:
    """Retells the batches of one engine, in which nobody is given up or handed over."""

    def __init__(self, batches: Sequence[CompletedBatch], *, itl: bool) -> None:
        steps = [
            Step(end, serial, batch, place, done)
            for batch, done in enumerate(batches)
            for place, (end, serial) in enumerate(zip(done.ends_ns.tolist(), done.serials.tolist(), strict=True))
        ]
        self.steps = sorted(steps, key=lambda step: step[:4])
        self._itl = itl
        self._known: dict[int, Known] = {}
        self._seen = {seen.request.id: seen.queued_ns for done in batches for seen in done.seen}

    def cuts(self) -> list[int]:
        """Where what is told may end: batches of one stage are not torn apart."""
        return [
            place + 1
            for place, (one, after) in enumerate(pairwise(self.steps))
            if one.batch != after.batch or len(one.done.stages_ns) > 1
        ]

    def told(self, cuts: Iterable[int]) -> Iterator[Iterations]:
        """Yield all steps, a record from each of the `cuts` to the next."""
        bounds = [0, *sorted(set(cuts)), len(self.steps)]
        for first, end in pairwise(bounds):
            if first < end:
                yield self._record(self.steps[first:end])

    def _record(self, steps: Sequence[Step]) -> Iterations:
        gaps: list[int] = []
        begun: list[tuple[int, int]] = []
        over: list[Known] = []
        for step in steps:
            self._advance(step, gaps, begun, over)
        under_way = np.array([known.row for known in self._known.values()], dtype=np.int64).reshape(-1, 9)
        usages, works = [s.done.usages.at(s.place) for s in steps], [s.done.batch.prompt_work() for s in steps]
        firsts, last = [step.place == 0 for step in steps], steps[-1].done
        ended = [step.done.busy_ns for step in steps if step.last]

        def column(values: Iterable[int]) -> IntArray:
            return np.array(list(values), dtype=np.int64)

        return Iterations(
            engine=last.engine,
            serial=column(step.serial for step in steps),
            run=column(step.batch for step in steps),
            decided_ns=column(step.done.decided_ns for step in steps),
            start_ns=column(step.start for step in steps),
            end_ns=column(step.end for step in steps),
            stage_ns=np.array([step.stages() for step in steps], dtype=np.int64),
            requests=column(len(step.done.batch.requests) for step in steps),
            prefills=column(work[0] * first for work, first in zip(works, firsts, strict=True)),
            prompt_tokens=column(work[1] * first for work, first in zip(works, firsts, strict=True)),
            tokens=column(step.done.outcome.step_tokens for step in steps),
            running=column(usage.running for usage in usages),
            waiting=column(usage.waiting for usage in usages),
            free_blocks=column(usage.free_blocks for usage in usages),
            preempted=column(len(s.done.batch.preempted) * first for s, first in zip(steps, firsts, strict=True)),
            waiting_ns=column(s.done.gap.waiting_ns * first for s, first in zip(steps, firsts, strict=True)),
            idle_ns=column(s.done.gap.idle_ns * first for s, first in zip(steps, firsts, strict=True)),
            total_blocks=last.after.total_blocks,
            after=last.after,
            busy_ns=np.sum([np.zeros_like(last.busy_ns), *ended], axis=0),
            gaps_ns=column(gaps),
            gap_counts=np.ones(len(gaps), dtype=np.int64),
            begun=column(identity for identity, _ in begun),
            begun_ns=column(when for _, when in begun),
            finished=np.array([known.row for known in over], dtype=np.int64).reshape(-1, 9),
            token_gaps=[np.diff(known.times) for known in over] if self._itl else None,
            unfinished=lambda: under_way,
        )

    def _advance(self, step: Step, gaps: list[int], begun: list[tuple[int, int]], over: list[Known]) -> None:
        done, known = step.done, self._known
        if step.place == 0:
            for seen in done.seen:
                one = seen.request
                row = [one.id, one.prompt_tokens, 0, one.arrival_ns, seen.queued_ns, -1, -1, -1, done.engine]
                known.setdefault(one.id, Known(row, []))
            for request, _ in done.batch.admitted:
                if known[request.id].row[5] < 0:
                    known[request.id].row[5] = done.start_ns
                    begun.append((request.id, done.start_ns))
        for request in done.outcome.emitted:
            one_known = known[request.id]
            one_known.times.append(step.end)
            one_known.row[2] += 1
            if len(one_known.times) == 1:
                one_known.row[6] = step.end
            else:
                gaps.append(one_known.times[-1] - one_known.times[-2])
        for request in done.outcome.finished if step.last else ():
            one_known = known.pop(request.id)
            one_known.row[7] = step.end
            over.append(one_known)


class RetellingCluster(Cluster):
    """A cluster that tells of iterations in columns: some `every` of an engine at a time, when all have happened."""

    every = 7
    itl = True
    _begins: list[int]

    def run(self) -> Iterator[Told]:
        """Yield what observers are told, in the order in which it ended."""
        batches: dict[int, list[CompletedBatch]] = {}
        for told in super().run():
            assert isinstance(told, CompletedBatch)
            batches.setdefault(told.engine, []).append(told)
        records = []
        for done in batches.values():
            retold = Retold(done, itl=self.itl)
            cuts, chosen = retold.cuts(), [0]
            for cut in cuts:
                if cut >= chosen[-1] + self.every:
                    chosen.append(cut)
            records += list(retold.told(chosen))
        records.sort(key=lambda record: int(record.end_ns[-1]))
        self._begins = [int(record.start_ns.min()) for record in records]
        for record in records:
            self._begins.pop(0)
            yield record

    @property
    def now(self) -> int:
        """The time (ns)."""
        return self.told_until() if hasattr(self, "_begins") else super().now

    def told_until(self) -> int:
        """Return the moment (ns) before which everything has been told."""
        return min(self._begins, default=super().now)
