"""The shared bus (`model-shared-bus`): packets queue for a LogGP pipe, and for the memory behind it.

Sources: LogGP.cc, MemMovRequest.cc, MemBus.cc. A bus has two sides; a side sends one request at a time to the other
(o and g ns between sends, G ns a byte, L ns on the way), which works on it and passes it on. The NPU's side has a
memory bus of its own, built alike, that every request crosses too.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

from analytical.machine.bus import Done, EndpointBus
from analytical.machine.event_queue import LocalEvents
from astra_files.system import SystemConfig
from foundation.records import dataclass

MEMORY_G = 0.0038
"""ns a byte of the memory bus, whatever the system configuration says."""

TURNS = 8
"""After more sends than this in a row a side gives way to the other."""

PROCESSING_NS = 50
"""Fixed part of working on a request; every 100 bytes add local-reduction-delay ns."""

_FREE, _SENDING, _RECEIVING = range(3)


@dataclass(slots=True)
class Packet:
    """A packet on the bus: what still has to be done with it, and whom to tell."""

    size: int
    process: bool
    send_back: bool
    done: Done


@dataclass(frozen=True, slots=True)
class Timing:
    """L, o and g in ns, G in ns a byte, and the ns of working on 100 bytes."""

    latency: int
    overhead: int
    gap: int
    per_byte: float
    reduction: int


class Side:
    """One end of a bus. `memory` is the bus behind it; only the NPU's side of the outer bus has one."""

    def __init__(self, events: LocalEvents, timing: Timing) -> None:
        self.partner: Side = self
        self.memory: MemoryBus | None = None
        self._events = events
        self._timing = timing
        self._state = self._previous = _FREE
        self._last_transfer = 0
        self._in_a_row = 0
        self._sends: deque[Packet] = deque()
        self._receives: deque[Packet] = deque()
        self._work: deque[Packet] = deque()
        self._working = False

    def packet(self, packet: Packet) -> None:
        """Send `packet` to the other side, after fetching it from the memory where there is one."""
        if self.memory is not None:
            self.memory.fetch(packet.size, lambda _: self._queue(packet))
            return
        self._sends.append(packet)
        if self._state == _FREE:
            self._next()

    def _next(self) -> None:
        """Send the oldest request, or let the other side go first after many in a row."""
        partner = self.partner
        if self._in_a_row > TURNS and partner._sends and partner._in_a_row <= TURNS:
            if partner._state == _FREE:
                partner._continue()
            return
        timing = self._timing
        wait = timing.overhead
        if self._previous == _SENDING:
            elapsed = self._events.queue.now - self._last_transfer
            wait = timing.overhead if timing.overhead + elapsed > timing.gap else timing.gap - elapsed
        packet = self._sends.popleft()
        partner._receive(packet, wait)
        self._state = _SENDING
        self._events.after(int(wait + timing.per_byte * (packet.size - 1)), self._sent, None)

    def _receive(self, packet: Packet, wait: int) -> None:
        self._receives.append(packet)
        self._previous, self._state = self._state, _RECEIVING
        self._in_a_row = 0
        timing = self._timing
        duration = wait + (packet.size - 1) * timing.per_byte + timing.latency + timing.overhead
        self._events.after(int(duration), self._received, None)

    def _sent(self, _: None) -> None:
        self._last_transfer = self._events.queue.now
        self._previous, self._state = self._state, _FREE
        self._in_a_row += 1
        self._continue()

    def _received(self, _: None) -> None:
        self._last_transfer = self._events.queue.now
        self._previous = self._state
        if len(self._receives) < 2:
            self._state = _FREE
        packet = self._receives[0]
        if packet.process:
            packet.process = False
            self._receives.popleft()
            if self.memory is not None:
                self.memory.round_trip(packet.size, lambda _: self._start_work(packet))
            else:
                self._work.append(packet)
            self._work_on()
        else:
            self._pass_on(packet)
            self._receives.popleft()
        self._continue()

    def _pass_on(self, packet: Packet) -> None:
        """Send a request back, or hand it over: by way of the memory where there is one."""
        if packet.send_back:
            packet.send_back = False
            if self.memory is not None:
                self.memory.round_trip(packet.size, lambda _: self._queue(packet))
            else:
                self._sends.append(packet)
        elif self.memory is not None:
            self.memory.store(packet.size, packet.done)
        else:
            packet.done(None)

    def _start_work(self, packet: Packet) -> None:
        self._work.append(packet)
        self._work_on()
        self._continue()

    def _work_on(self) -> None:
        if not self._working and self._work:
            self._working = True
            duration = self._work[0].size // 100 * self._timing.reduction + PROCESSING_NS
            self._events.after(duration, self._worked, None)

    def _worked(self, _: None) -> None:
        self._working = False
        self._pass_on(self._work[0])
        self._work.popleft()
        self._work_on()
        self._continue()

    def _queue(self, packet: Packet) -> None:
        self._sends.append(packet)
        self._continue()

    def _continue(self) -> None:
        if self._state == _FREE and self._sends:
            self._next()


class MemoryBus:
    """The bus between the NPU's side and its memory."""

    def __init__(self, events: LocalEvents, timing: Timing) -> None:
        self._near, self._far = _pair(events, timing)

    def fetch(self, size: int, done: Done) -> None:
        """Move `size` bytes from the memory."""
        self._far.packet(Packet(size, False, False, done))

    def store(self, size: int, done: Done) -> None:
        """Move `size` bytes to the memory."""
        self._near.packet(Packet(size, False, False, done))

    def round_trip(self, size: int, done: Done) -> None:
        """Move `size` bytes to the memory and back."""
        self._near.packet(Packet(size, False, True, done))


class SharedBus(EndpointBus):
    """The bus of one NPU under `model-shared-bus`. A sub-group's packets bypass it."""

    def __init__(self, events: LocalEvents, system: SystemConfig, injection_scale: float) -> None:
        super().__init__(system, injection_scale)
        per_byte: float = struct.unpack("f", struct.pack("f", system.G))[0]  # upstream reads G as a 32-bit float
        outer = Timing(int(system.L), int(system.o), int(system.g), per_byte, system.local_reduction_delay)
        inner = Timing(outer.latency, outer.overhead, outer.gap, MEMORY_G, outer.reduction)
        self._npu, self._network = _pair(events, outer)
        self._npu.memory = MemoryBus(events, inner)

    def transfer(
        self, events: LocalEvents, size: int, fast: bool, to_network: bool, reduce: bool, send_back: bool, done: Done
    ) -> None:
        """Queue the packet; a reduction takes the bus's own time for it and then the local memory's."""
        if fast:
            super().transfer(events, size, fast, to_network, reduce, send_back, done)
            return
        crossed: Callable[[None], object] = done
        if reduce:
            crossed = lambda _: self._reduce((events, size, done))  # noqa: E731
        side = self._npu if to_network else self._network
        side.packet(Packet(size, reduce, send_back, crossed))


def _pair(events: LocalEvents, timing: Timing) -> tuple[Side, Side]:
    first, second = Side(events, timing), Side(events, timing)
    first.partner, second.partner = second, first
    return first, second
