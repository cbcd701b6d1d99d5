"""Where simulated time went: what the engines computed and moved, by class of work, and when they had nothing to do.

    busy      an iteration is under way           by class of work, as pricing tells it (`Cost.busy_ns`)
              or a dummy pass, for members of a wave that have something to run: one class, `DUMMIES`
    waiting   requests are there, nothing runs    they wait for memory, or for a batch to fill
    idle      no request is there
    asleep    the instance had not been started, where instances are started and dropped

The classes of a batch are summed over its pipeline stages, which work at the same time on different batches; so in a
pipeline the classes may add up to more than the time in which the engine was busy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from foundation.records import dataclass
from orchestrator.engine.iterations import Iterations
from orchestrator.engine.records import CompletedBatch, DummyPass
from orchestrator.observers.interface import Observer

DUMMIES = "dummy passes"


@dataclass(frozen=True, slots=True)
class TimeAccount:
    """Simulated ns, summed over `engines` engines of a run of `makespan_ns`; the four parts make their product."""

    engines: int
    makespan_ns: int
    busy_ns: int
    waiting_ns: int
    idle_ns: int
    by_class: dict[str, int]
    asleep_ns: int | None = None

    def parts(self) -> dict[str, int]:
        """Return ns by what they went to.

        Classes of work (``busy`` where pricing tells none apart), waiting, idle, and asleep where instances may be.
        """
        work = self.by_class if self.by_class else {"busy": self.busy_ns}
        rest = {} if self.asleep_ns is None else {"asleep": self.asleep_ns}
        return {**work, "waiting": self.waiting_ns, "idle": self.idle_ns, **rest}


@dataclass(slots=True)
class _EngineTime:
    """One engine: until when it is known what it did."""

    told_ns: int = 0
    waiting_ns: int = 0
    idle_ns: int = 0
    dummy_ns: int = 0
    by_class: list[int] = field(default_factory=list)
    dummies: list[DummyPass] = field(default_factory=list)
    """Those since the last batch."""

    @property
    def busy_ns(self) -> int:
        """Time in which an iteration was under way."""
        return self.told_ns - self.waiting_ns - self.idle_ns

    def count_dummies(self, until_ns: int) -> None:
        """Count the dummy passes that began before `until_ns`, as far as that; nobody asks for those after it."""
        for dummy in self.dummies:
            if dummy.start_ns < until_ns:
                self.told_ns = min(dummy.end_ns, until_ns)
                self.dummy_ns += self.told_ns - dummy.start_ns
                self.waiting_ns += dummy.gap.waiting_ns
                self.idle_ns += dummy.gap.idle_ns
        self.dummies = [dummy for dummy in self.dummies if dummy.start_ns >= until_ns]


class TimeRecorder(Observer):
    """Adds up the account of a run; `classes` are those of each engine's pricing, by its number."""

    def __init__(self, classes: Sequence[tuple[str, ...]]) -> None:
        self._classes = classes
        self._engines: dict[int, _EngineTime] = {}

    def batch(self, done: CompletedBatch) -> None:
        """Take a completed batch; those that take turns are told in any order."""
        engine = self._engine(done.engine)
        if not done.batch.requests:
            return
        if engine.dummies:
            engine.count_dummies(done.start_ns)
        engine.told_ns = max(engine.told_ns, done.end_ns)
        engine.waiting_ns += done.gap.waiting_ns
        engine.idle_ns += done.gap.idle_ns
        for place, spent in enumerate(done.busy_ns.tolist()):
            engine.by_class[place] += spent

    def iterations(self, told: Iterations) -> None:
        """Take many iterations of an engine that is in no wave, so makes no dummy passes."""
        engine = self._engine(told.engine)
        there = told.requests > 0
        engine.told_ns = max(engine.told_ns, int(told.end_ns[there].max(initial=0)))
        engine.waiting_ns += int(told.waiting_ns[there].sum())
        engine.idle_ns += int(told.idle_ns[there].sum())
        for place, spent in enumerate(told.busy_ns.tolist()):
            engine.by_class[place] += spent

    def dummy(self, record: DummyPass) -> None:
        """Take a dummy pass; whether the run is over by then is not known yet."""
        self._engine(record.engine).dummies.append(record)

    def account(self, makespan_ns: int, asleep_ns: int | None = None) -> TimeAccount:
        """Return the account of the whole run; what is left after an engine's last pass was idle, or asleep."""
        known, engines = list(self._engines.values()), len(self._classes)
        for engine in known:
            engine.count_dummies(makespan_ns)
        rest = sum(makespan_ns - engine.told_ns for engine in known) + makespan_ns * (engines - len(known))
        sums = dict.fromkeys((name for classes in self._classes for name in classes), 0)
        for number, engine in self._engines.items():
            for name, spent in zip(self._classes[number], engine.by_class, strict=True):
                sums[name] += spent
        dummies = sum(engine.dummy_ns for engine in known)
        if dummies:
            sums[DUMMIES] = dummies
        return TimeAccount(
            engines=engines,
            makespan_ns=makespan_ns,
            busy_ns=sum(engine.busy_ns for engine in known),
            waiting_ns=sum(engine.waiting_ns for engine in known),
            idle_ns=sum(engine.idle_ns for engine in known) + rest - (asleep_ns or 0),
            by_class=sums,
            asleep_ns=asleep_ns,
        )

    def _engine(self, number: int) -> _EngineTime:
        engine = self._engines.get(number)
        if engine is None:
            engine = self._engines[number] = _EngineTime(by_class=[0] * len(self._classes[number]))
        return engine
