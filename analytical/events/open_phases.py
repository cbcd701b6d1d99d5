"""Running a simulation with its phases solved as a whole: ranks meet at a phase's entry and get its end from there.

The rest of the simulation (nodes, queues, chunks, memory, point-to-point messages) is unchanged. Where the order of two
events of one rank at one time would depend on messages that were never simulated, `AmbiguousOrderError` is raised and
the step has to be run message by message.
"""

from __future__ import annotations

from typing import Any

from analytical.collectives.phases import AmbiguousOrderError, PhaseModel, PhaseModels
from analytical.collectives.plan import Phase
from analytical.collectives.streams import Stream
from analytical.machine.event_queue import Action, EventQueue, LocalEvents
from analytical.machine.network import DelayModel, UnawareTransport

_FORGET_FROM = 64
"""So many announced ends an NPU keeps before it drops those that are past."""

Registration = tuple[int, int]
"""When an event was scheduled and for when, in ns."""


class GuardedEvents(LocalEvents):
    """The events of one NPU, watching for others scheduled at and for the same times as the end of a solved phase."""

    __slots__ = ("_solved",)

    def __init__(self, queue: EventQueue) -> None:
        super().__init__(queue)
        self._solved: dict[Registration, tuple[Stream, PhaseModel]] = {}

    def after(self, delay: int, action: Action, argument: Any) -> None:
        """Schedule an ordinary event."""
        if self._solved:
            self.check(self.queue.now, self.queue.now + delay)
        super().after(delay, action, argument)

    def after_solved(self, delay: int, action: Action, argument: Any) -> None:
        """Schedule an event announced with `expect`."""
        super().after(delay, action, argument)

    def check(self, scheduled: int, time: int) -> None:
        """Raise if an event scheduled then for `time` would tie with a solved one."""
        if (scheduled, time) in self._solved:
            raise AmbiguousOrderError

    def expect(self, scheduled: int, time: int, stream: Stream, model: PhaseModel) -> None:
        """Announce an event of a solved phase. Chunks of one collective in step keep their order; others tie."""
        known = self._solved.get((scheduled, time))
        if known is not None:
            before, before_model = known
            if before.collective is not stream.collective or before_model is not model:
                raise AmbiguousOrderError
        if len(self._solved) > _FORGET_FROM:
            now = self.queue.now
            self._solved = {pair: end for pair, end in self._solved.items() if pair[0] >= now}
        self._solved[scheduled, time] = stream, model


class GuardedTransport(UnawareTransport):
    """The congestion-unaware network, watching for messages that tie with the end of a solved phase."""

    def __init__(self, model: DelayModel, queue: EventQueue, events: list[GuardedEvents]) -> None:
        super().__init__(model, queue)
        self._events = events

    def transmit(self, src: int, dst: int, size: int, action: Action, argument: Any) -> None:
        """Schedule the arrival."""
        now, arrival = self._queue.now, self._queue.now + self.delay(src, dst, size)
        self._events[src].check(now, arrival)
        self._events[dst].check(now, arrival)
        super().transmit(src, dst, size, action, argument)


class _OpenPhase:
    """A phase that some of its ranks have entered. `streams` by ring position."""

    __slots__ = ("entries", "missing", "phase", "streams")

    def __init__(self, phase: Phase) -> None:
        count = len(phase.ring.ranks)
        self.phase = phase
        self.missing = count
        self.entries = [0] * count
        self.streams: list[Stream | None] = [None] * count


class SolvedRun:
    """A rank's entry into a phase that is solved as a whole."""

    __slots__ = ("_meetings", "_model", "_phase", "_stream")

    def __init__(self, meetings: OpenPhases, model: PhaseModel, stream: Stream, phase: Phase) -> None:
        self._meetings = meetings
        self._model = model
        self._stream = stream
        self._phase = phase

    def start(self) -> None:
        """Enter the phase now."""
        self._meetings.enter(self._stream, self._phase, self._model)


class OpenPhases:
    """Where the ranks of each phase meet."""

    def __init__(self, models: PhaseModels, queue: EventQueue, transport: UnawareTransport) -> None:
        self._models = models
        self._queue = queue
        self._transport = transport
        self._open: dict[tuple[int, int, int], _OpenPhase] = {}

    def make_run(self, stream: Stream, phase: Phase) -> SolvedRun | None:
        """Return the run of a phase, or None where it has to go message by message."""
        model = self._models.model(phase)
        return None if model is None else SolvedRun(self, model, stream, phase)

    def enter(self, stream: Stream, phase: Phase, model: PhaseModel) -> None:
        """Note a rank's entry; the last one solves the phase."""
        key = (stream.tag, stream.index, id(phase.ring))
        meeting = self._open.get(key)
        if meeting is None:
            meeting = self._open[key] = _OpenPhase(phase)
        elif not _alike(meeting.phase, phase) or meeting.streams[phase.position] is not None:
            raise AmbiguousOrderError  # ranks disagree on the collective: run it message by message
        meeting.entries[phase.position] = self._queue.now
        meeting.streams[phase.position] = stream
        meeting.missing -= 1
        if not meeting.missing:
            del self._open[key]
            self._solve(meeting, model)

    def _solve(self, meeting: _OpenPhase, model: PhaseModel) -> None:
        first = min(meeting.entries)
        solution = model.solve([entry - first for entry in meeting.entries])
        for dim, charged in enumerate(model.volume):
            self._transport.volume[dim] += charged
        for position in solution.order:
            stream = meeting.streams[position]
            assert stream is not None and isinstance(stream.events, GuardedEvents)
            arrival = first + solution.arrivals[position]
            crossed = arrival + model.bus
            stream.events.expect(arrival, crossed, stream, model)
            if model.last_reduction is not None:
                stream.events.expect(crossed, crossed + model.last_reduction, stream, model)
            self._queue.schedule(arrival, _arrived, (stream, model))


def _arrived(end: tuple[Stream, PhaseModel]) -> None:
    """The last message of a phase is there: take it over the bus, and reduce it if it is one to reduce."""
    stream, model = end
    action = _done if model.last_reduction is None else _reduce
    _guarded(stream).after_solved(model.bus, action, end)


def _reduce(end: tuple[Stream, PhaseModel]) -> None:
    stream, model = end
    _guarded(stream).after_solved(model.last_reduction or 0, _done, end)


def _done(end: tuple[Stream, PhaseModel]) -> None:
    end[0].phase_done()


def _guarded(stream: Stream) -> GuardedEvents:
    assert isinstance(stream.events, GuardedEvents)
    return stream.events


def _alike(one: Phase, other: Phase) -> bool:
    return (one.algorithm, one.collective, one.size, one.clockwise) == (
        other.algorithm,
        other.collective,
        other.size,
        other.clockwise,
    )
