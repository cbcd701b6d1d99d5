"""Streams of collectives on one NPU: the queues they wait in, and their way from phase to phase.

Source: `Sys::insert_stream`, `proceed_to_next_vnet_baseline` and the SchedulerUnit of Sys.cc. A queue runs up to
`concurrency` streams; the others wait behind the running ones, in order of their coming. ASTRA-sim lets a higher
priority (its `scheduling-policy`) overtake; but an NPU holds one communication at a time (`events.rank_run`), so that
whatever waits here belongs to one collective, and priorities decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from analytical.collectives.algorithms import Run
from analytical.collectives.plan import Phase
from analytical.machine.bus import Bus
from analytical.machine.event_queue import LocalEvents
from analytical.machine.messages import Messenger, collective_tag


class Collective:
    """A collective of one rank: how many of its streams are still under way, and whom to tell at the end."""

    __slots__ = ("_done", "_row", "_streams")

    def __init__(self, streams: int, done: Callable[[int], object], row: int) -> None:
        self._streams = streams
        self._done = done
        self._row = row

    def stream_finished(self) -> None:
        """Count one stream; the last one ends the collective."""
        self._streams -= 1
        if not self._streams:
            self._done(self._row)


class Stream:
    """One chunk of a collective on one rank. It is also the endpoint that its phases run at."""

    __slots__ = (
        "_following",
        "_phases",
        "bus",
        "collective",
        "events",
        "index",
        "messenger",
        "number",
        "phase",
        "rank",
        "running",
        "tag",
        "unit",
    )

    def __init__(self, unit: StreamUnit, number: int, phases: list[Phase], collective: Collective) -> None:
        self.unit = unit
        self.rank = unit.rank
        self.events = unit.events
        self.bus = unit.bus
        self.messenger = unit.messenger
        self.number = number
        self.tag = collective_tag(number)
        self.collective = collective
        self.running = False
        self.phase: Phase | None = None
        self.index = -1
        self._phases = phases

    def next_phase(self) -> Phase | None:
        """Move on to the following phase and return it; None after the last."""
        self.index += 1
        self.running = False
        self.phase = self._phases[self.index] if self.index < len(self._phases) else None
        return self.phase

    @property
    def last(self) -> bool:
        """Whether no phase follows."""
        return self.index + 1 == len(self._phases)

    def phase_done(self) -> None:
        """The running phase is over on this rank."""
        self.unit.advance(self)

    def begin(self) -> None:
        """Start the phase: its turn in the queue has come."""
        self.running = True
        assert self.phase is not None
        self.unit.make_run(self, self.phase).start()


class StreamUnit:
    """All streams of one NPU. `make_run` makes what runs a phase."""

    def __init__(
        self,
        rank: int,
        events: LocalEvents,
        bus: Bus,
        messenger: Messenger,
        queues: int,
        concurrency: int,
        make_run: Callable[[Stream, Phase], Run],
    ) -> None:
        self.rank = rank
        self.events = events
        self.bus = bus
        self.messenger = messenger
        self.make_run = make_run
        self._concurrency = concurrency
        self._queues: list[list[Stream]] = [[] for _ in range(queues)]
        self._running = [0] * queues

    def advance(self, stream: Stream) -> None:
        """Take a stream out of the phase that it has finished (or of none) and into its next."""
        previous = stream.phase
        if stream.last:
            # The rank hears of it first: what it issues now queues up behind this stream, which is still here.
            stream.collective.stream_finished()
        if previous is not None:
            self._queues[previous.queue].remove(stream)
        phase = stream.next_phase()
        if phase is not None:
            self._queues[phase.queue].append(stream)
        if previous is not None:
            self._running[previous.queue] -= 1
            self._start(previous.queue)
        if phase is not None:
            self._start(phase.queue)

    def _start(self, queue: int) -> None:
        streams = self._queues[queue]
        running = self._running
        while running[queue] < self._concurrency and running[queue] < len(streams):
            index = running[queue]
            streams[index].begin()
            running[queue] += 1
