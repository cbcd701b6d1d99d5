"""Phases of a collective, message by message: ring, direct and halving-doubling.

A packet crosses the bus and then becomes a send and a receive with the same peers; what arrives inserts the next
packet. Sources: Ring.cc, AllToAll.cc, HalvingDoubling.cc. `phases` solves the same phases as a whole.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

from analytical.collectives.plan import A2A, AG, AR, RS, Kind, Phase
from analytical.machine.bus import Bus
from analytical.machine.event_queue import LocalEvents
from analytical.machine.messages import Messenger


class Endpoint(Protocol):
    """What a running phase needs of its stream: where it is, and whom to tell when it is over."""

    rank: int
    tag: int
    events: LocalEvents
    bus: Bus
    messenger: Messenger

    def phase_done(self) -> None:
        """The phase is over on this rank."""


class Run(Protocol):
    """A phase that one rank is in."""

    def start(self) -> None:
        """Begin: the phase's turn in its queue has come."""


class PacketToggle:
    """Which packets are reduced: of every round of first and later packets, the later ones of a reducing round."""

    __slots__ = ("_first", "_later", "_left_first", "_left_later", "_odd", "_reduce_all", "_reduce_odd")

    def __init__(self, first: int, later: int, phase: Phase) -> None:
        self._first = first
        self._later = later
        self._left_first = self._left_later = 0
        self._odd = False
        self._reduce_all = phase.collective is RS
        self._reduce_odd = phase.collective is AR

    def next(self) -> tuple[bool, bool, bool]:
        """Return (towards the network, reduced, sent back) of the next packet."""
        if not self._left_first and not self._left_later:
            self._left_first, self._left_later = self._first, self._later
            self._odd = not self._odd
        if self._left_first:
            self._left_first -= 1
            return True, False, False
        reduced = self._reduce_all or (self._reduce_odd and self._odd)
        send_back = self._left_later > self._first
        self._left_later -= 1
        return False, reduced, send_back


def reduced_packets(phase: Phase, later: int, packets: int) -> int:
    """Return how many of so many packets `PacketToggle` has reduced, of rounds with one first packet."""
    rounds, left = divmod(packets, 1 + later)
    partial = max(left - 1, 0)
    if phase.collective is RS:
        return rounds * later + partial
    return (rounds + 1) // 2 * later + partial * (rounds % 2 == 0) if phase.collective is AR else 0


class PacketRun:
    """The part that ring, direct and halving-doubling share: packets over the bus, sends and receives, the end."""

    def __init__(self, endpoint: Endpoint, phase: Phase, window: int, later: int, steps: int) -> None:
        self._endpoint = endpoint
        self._phase = phase
        self._window = window
        self._toggle = PacketToggle(window, later, phase)
        self._packets: deque[tuple[int, int, int]] = deque()
        self._free = 0
        self._sends_left = steps

    def start(self) -> None:
        """Insert the first packets."""
        for _ in range(self._window):
            self._insert()

    def _next_peers(self) -> tuple[int, int, int]:
        """Return (receiver, sender, bytes) of the next packet."""
        raise NotImplementedError

    def _insert(self) -> None:
        packet = self._next_peers()
        self._packets.append(packet)
        endpoint = self._endpoint
        to_network, reduced, send_back = self._toggle.next()
        endpoint.bus.transfer(
            endpoint.events, packet[2], self._phase.ring.fast, to_network, reduced, send_back, self._crossed
        )

    def _crossed(self, _: None) -> None:
        self._free += 1
        self._send()
        self._end_if_done()

    def _send(self) -> None:
        if not self._packets or not self._sends_left or not self._free:
            return
        receiver, sender, size = self._packets.popleft()
        endpoint = self._endpoint
        endpoint.messenger.send(endpoint.tag, endpoint.rank, receiver, size, None)
        endpoint.messenger.receive(endpoint.tag, sender, endpoint.rank, size, (self._received, None))
        self._sends_left -= 1
        self._free -= 1

    def _received(self, _: None) -> None:
        self._insert()

    def _end_if_done(self) -> None:
        if not self._sends_left and self._free == self._window:
            self._endpoint.phase_done()


class RingRun(PacketRun):
    """Every step sends to the next rank of the ring and receives from the one before."""

    def __init__(self, endpoint: Endpoint, phase: Phase) -> None:
        count = len(phase.ring.ranks)
        super().__init__(endpoint, phase, 1, count - 1, ring_steps(phase))
        ahead = 1 if phase.clockwise else -1
        receiver = phase.ring.ranks[(phase.position + ahead) % count]
        sender = phase.ring.ranks[(phase.position - ahead) % count]
        self._peers = receiver, sender, message_bytes(phase)

    def _next_peers(self) -> tuple[int, int, int]:
        return self._peers


class DirectRun(PacketRun):
    """Sends to every other rank, `window` at once; an all-reduce gathers only after all shards have come."""

    def __init__(self, endpoint: Endpoint, phase: Phase) -> None:
        count = len(phase.ring.ranks)
        window = direct_window(phase)
        later = (count - 1) * window if phase.ring.fast else window
        steps = 2 * (count - 1) if phase.collective is AR else count - 1
        super().__init__(endpoint, phase, window, later, steps)
        self._half = count - 1
        self._distance = 0
        self._received_count = 0
        self._size = message_bytes(phase)

    def _next_peers(self) -> tuple[int, int, int]:
        ranks = self._phase.ring.ranks
        count = len(ranks)
        ahead = self._distance + 1
        self._distance = ahead % (count - 1)
        if not self._phase.clockwise:
            ahead = -ahead
        position = self._phase.position
        return ranks[(position + ahead) % count], ranks[(position - ahead) % count], self._size

    def _received(self, _: None) -> None:
        self._received_count += 1
        self._insert()

    def _crossed(self, _: None) -> None:
        self._free += 1
        if self._phase.collective is AR and self._sends_left <= self._half:
            if self._received_count < self._half:
                return
            for _packet in range(self._window):
                self._send()
        else:
            self._send()
        self._end_if_done()


class HalvingDoublingRun(PacketRun):
    """Exchanges with the rank 1, 2, 4, ... away, halving the message (all-gather: from half the ring, doubling)."""

    def __init__(self, endpoint: Endpoint, phase: Phase) -> None:
        self._plan = halving_doubling_steps(phase)
        self._step = 0
        later = int(math.log2(len(phase.ring.ranks)) - 1)
        super().__init__(endpoint, phase, 1, later, halving_doubling_rounds(phase))

    def _next_peers(self) -> tuple[int, int, int]:
        distance, size = self._plan[self._step]
        self._step += 1
        ranks, position = self._phase.ring.ranks, self._phase.position
        ahead = -distance if distance and position // distance % 2 else distance
        peer = ranks[(position + ahead) % len(ranks)]
        return peer, peer, size


def message_bytes(phase: Phase) -> int:
    """Return the bytes of a message of a ring or direct phase."""
    return phase.size if phase.collective is AG else phase.size // len(phase.ring.ranks)


def ring_steps(phase: Phase) -> int:
    """Return how many messages a rank sends in a ring phase."""
    count = len(phase.ring.ranks)
    if phase.collective is AR:
        return 2 * (count - 1)
    return count * (count - 1) // 2 if phase.collective is A2A else count - 1


def direct_window(phase: Phase) -> int:
    """Return how many peers a direct phase sends to at once."""
    others = len(phase.ring.ranks) - 1
    return others if phase.algorithm.window is None else min(phase.algorithm.window, others)


def halving_doubling_rounds(phase: Phase) -> int:
    """Return how many messages a rank sends in a halving-doubling phase."""
    return int((2 if phase.collective is AR else 1) * math.log2(len(phase.ring.ranks)))


def halving_doubling_steps(phase: Phase) -> list[tuple[int, int]]:
    """Return (distance, bytes) of each packet of a halving-doubling phase, the unsent last one included.

    Sizes are truncated as upstream's are: an odd size halved and doubled again is one byte less. A ring that is no
    power of two is run as upstream runs it; few such phases end.
    """
    count = len(phase.ring.ranks)
    halving = phase.collective is not AG
    distance, size = (1, phase.size // 2) if halving else (count // 2, phase.size)
    steps = []
    for _ in range(halving_doubling_rounds(phase) + 1):
        steps.append((distance, size))
        if halving:
            distance, size = distance * 2, size // 2
            if distance == count and phase.collective is AR:
                halving, distance, size = False, distance // 2, size * 2
        else:
            distance, size = distance // 2, size * 2
    return steps


RUNS: dict[Kind, Callable[[Endpoint, Phase], Run]] = {
    Kind.RING: RingRun,
    Kind.DIRECT: DirectRun,
    Kind.HALVING_DOUBLING: HalvingDoublingRun,
}
"""The message-level run of each algorithm; `tree` and `custom` add theirs where streams are made."""
