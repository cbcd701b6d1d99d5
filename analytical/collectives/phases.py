"""Whole phases solved at once, where the network has no contention.

Without contention a rank's way through a ring, direct or halving-doubling phase depends on the others only through when
their messages arrive: ``arrival = max(sent + delay, posted)``, ``next = arrival + bus``. From the times at which the
ranks enter a phase follow the times at which they leave it. No rank leaves before the last has entered, so a phase is
solved when its last rank enters; equal phases entered with equal offsets are solved once.

What the caller needs of the solution is, for every rank, when the phase's last message arrives: crossing the bus (and
reducing) from there on is done event by event, so that it keeps its place among the rank's other events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analytical.collectives.algorithms import (
    PacketToggle,
    direct_window,
    halving_doubling_steps,
    message_bytes,
    reduced_packets,
    ring_steps,
)
from analytical.collectives.plan import AR, Kind, Phase
from analytical.machine.bus import FAST_NS, endpoint_ns, reduction_ns
from analytical.machine.limits import LONGEST_RUN_NS
from analytical.machine.network import DelayModel
from astra_files.system import SystemConfig
from converters.execution_graph import IntArray
from foundation.records import dataclass

SOLUTIONS_KEPT = 4096
"""So many solutions a phase keeps: ranks that are not in step may enter in ever other ways."""


@dataclass(frozen=True, slots=True)
class Solution:
    """When each rank's last message arrives (ns, by ring position, relative to the first entry), and in which order."""

    arrivals: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(slots=True)
class PhaseModel:
    """A phase over a ring, ready to be solved for any entry times.

    `bus` is the delay of a packet on the bus, `last_reduction` the reduction of a rank's last packet (None: not
    reduced), `volume` the bytes charged on each network dimension.
    """

    bus: int
    last_reduction: int | None
    volume: tuple[int, ...]
    solutions: dict[tuple[int, ...], Solution] = field(default_factory=dict)

    def solve(self, entries: Sequence[int]) -> Solution:
        """Return the solution for `entries` (by ring position, the earliest 0)."""
        key = tuple(entries)
        found = self.solutions.get(key)
        if found is None:
            first = np.array(key, dtype=np.int64)
            arrivals = self._arrivals(first)
            order = np.lexsort((self._rank_order(first), arrivals))
            if len(self.solutions) >= SOLUTIONS_KEPT:
                self.solutions.clear()
            found = self.solutions[key] = Solution(tuple(arrivals.tolist()), tuple(order.tolist()))
        return found

    def _arrivals(self, entries: IntArray) -> IntArray:
        raise NotImplementedError

    def _rank_order(self, entries: IntArray) -> IntArray:
        """Return a number a position by which ranks whose last messages arrive together are told apart."""
        raise NotImplementedError


@dataclass(slots=True, eq=False)
class Exchange:
    """So many exchanges alike, one after the other: position i receives from ``sources[i]`` after ``delays[i]`` ns.

    `bus` is what all of them take on the bus, together.
    """

    sources: NDArray[np.int64]
    delays: IntArray
    bus: int
    times: int = 1
    _jumps: list[tuple[NDArray[np.int64], IntArray]] = field(default_factory=list)

    def after(self, ready: IntArray) -> IntArray:
        """Return when each position is ready after all exchanges, from when it is before them.

        An exchange brings what the source had, or keeps what was there: after n of them a position has the latest of
        what lay 0 to n sources behind it. With 0 to m in hand a look h <= m + 1 sources back makes it 0 to m + h.
        """
        latest = ready
        for sources, delays in self._looks():
            latest = np.maximum(latest[sources] + delays, latest)
        return latest + self.bus

    def carried(self, order: IntArray) -> IntArray:
        """Return the number that has come to each position, from those that set out."""
        for sources, _ in self._looks():
            order = order[sources]
        return order

    def _looks(self) -> Iterator[tuple[NDArray[np.int64], IntArray]]:
        """Yield looks back 1, 2, 4, ... exchanges, and those that are left: (source, delay on the way) by position."""
        doublings = (self.times + 1).bit_length() - 1
        if not self._jumps:
            self._jumps.append((self.sources, self.delays))
        while len(self._jumps) < doublings:
            sources, delays = self._jumps[-1]
            self._jumps.append((sources[sources], delays + delays[sources]))
        yield from self._jumps[:doublings]
        left = self.times + 1 - (1 << doublings)
        yield from (self._jumps[bit] for bit in range(left.bit_length()) if left >> bit & 1)


@dataclass(slots=True, kw_only=True)
class SteppedPhase(PhaseModel):
    """Ring and halving-doubling: one message at a time, step after step."""

    steps: list[Exchange]
    last_bus: int
    """What of the last step's bus lies behind the last arrival."""

    uniform_ns: int | None = None
    """Entry to last arrival where all ranks are alike and enter together; None where their delays differ."""

    def _arrivals(self, entries: IntArray) -> IntArray:
        if self.uniform_ns is not None and not entries.any():
            return np.full(len(entries), self.uniform_ns)
        ready = entries + self.bus
        for step in self.steps:
            ready = step.after(ready)
        return ready - self.last_bus

    def _rank_order(self, entries: IntArray) -> IntArray:
        order = np.empty(len(entries), dtype=np.int64)
        order[np.argsort(entries, kind="stable")] = np.arange(len(entries))
        for step in self.steps:
            order = step.carried(order)
        return order


@dataclass(slots=True, eq=False, kw_only=True)
class DirectPhase(PhaseModel):
    """Direct with all peers at once. ``delays[i, k]``: from the k-th rank before position i, counted from 0; one row
    where all positions are alike. `direction`: 1 where a rank sends to those after it, else -1.

    An all-reduce sends the second half's messages as the first half's are reduced, but none before all have come.
    """

    delays: IntArray
    direction: int
    reduction: int
    halves: int

    def _arrivals(self, entries: IntArray) -> IntArray:
        if len(self.delays) == 1 and not entries.any():
            # What one position hears is what all hear.
            return np.repeat(self._heard(entries[:1], np.zeros(self.delays.shape, dtype=np.int64)), len(entries))
        behind = self.direction * (1 + np.arange(self.delays.shape[1]))
        return self._heard(entries, (np.arange(len(entries))[:, None] - behind) % len(entries))

    def _heard(self, entries: IntArray, sources: NDArray[np.int64]) -> IntArray:
        """Return the last arrival at each of some positions; ``sources[i, k]``: which of them is k-th before i."""
        sent = entries + self.bus
        first = np.maximum(sent[sources] + self.delays, sent[:, None])
        complete: IntArray = first.max(axis=1)
        if self.halves == 1:
            return complete
        ready = np.sort(first, axis=1) + self.bus + self.reduction
        if (ready == complete[:, None]).any():
            raise AmbiguousOrderError
        after = np.where(ready > complete[:, None], ready, np.iinfo(np.int64).max)
        second = np.maximum(ready, after.min(axis=1)[:, None])
        # second[j, k]: when j sends to the k-th rank after it, which receives it as from the k-th rank before.
        columns = np.arange(second.shape[1])
        received = np.maximum(second[sources, columns] + self.delays, second)
        if (received.min(axis=1) + self.bus <= ready[:, -1]).any():
            # What comes in the second half would set off what the first half still holds back.
            raise AmbiguousOrderError
        latest: IntArray = received.max(axis=1)
        return latest

    def _rank_order(self, entries: IntArray) -> IntArray:
        first = int(np.argmin(entries))
        return (np.arange(len(entries)) - first - 1) % len(entries)


class _Messages(NamedTuple):
    """So many messages of every rank, one after the other, and the bytes of the packets that they become."""

    sources: NDArray[np.int64]
    size: int
    times: int
    following: int


class AmbiguousOrderError(Exception):
    """Events at one time whose order the solution does not know: the step has to be run message by message."""


class PhaseModels:
    """Makes and keeps the models of phases. Rings are told apart by identity: their owner keeps them alive."""

    def __init__(self, delays: DelayModel, system: SystemConfig, injection_scale: float) -> None:
        self._delays = delays
        self._system = system
        self._endpoint = endpoint_ns(system, injection_scale)
        self._models: dict[tuple[object, ...], PhaseModel | None] = {}

    def model(self, phase: Phase) -> PhaseModel | None:
        """Return the model of `phase`; None where it has to run message by message."""
        algorithm = phase.algorithm
        key = (id(phase.ring), algorithm, phase.collective, phase.size, phase.clockwise)
        if key not in self._models:
            self._models[key] = self._make(phase)
        return self._models[key]

    def _make(self, phase: Phase) -> PhaseModel | None:
        if not self._endpoint or self._system.model_shared_bus:
            return None
        kind = phase.algorithm.kind
        if kind is Kind.RING:
            return self._stepped(phase, self._ring_messages(phase))
        count = len(phase.ring.ranks)
        if kind is Kind.HALVING_DOUBLING and not count & (count - 1):
            return self._stepped(phase, self._halving_messages(phase))
        if kind is Kind.DIRECT and direct_window(phase) == count - 1:
            return self._direct(phase)
        return None

    def _bus(self, phase: Phase) -> int:
        return FAST_NS if phase.ring.fast else self._endpoint

    def _ring_messages(self, phase: Phase) -> list[_Messages]:
        count, size = len(phase.ring.ranks), message_bytes(phase)
        sources = (np.arange(count) - (1 if phase.clockwise else -1)) % count
        return [_Messages(sources, size, ring_steps(phase), size)]

    def _halving_messages(self, phase: Phase) -> list[_Messages]:
        count = len(phase.ring.ranks)
        positions = np.arange(count)
        steps = halving_doubling_steps(phase)
        return [
            _Messages((positions ^ distance) % count, size, 1, following)
            for (distance, size), (_, following) in pairwise(steps)
        ]

    def _stepped(self, phase: Phase, messages: list[_Messages]) -> PhaseModel | None:
        """Return the model of so many messages."""
        count = len(phase.ring.ranks)
        later = count - 1 if phase.algorithm.kind is Kind.RING else count.bit_length() - 2
        places = np.array(phase.ring.ranks)
        bus, packets, last_reduction = self._bus(phase), 1, None
        steps, volume, longest = [], [0] * len(self._delays.counts), 0
        for sent in messages:
            if sent.size < 1:
                return None
            packets += sent.times
            reduced = reduced_packets(phase, later, packets) - reduced_packets(phase, later, packets - sent.times)
            reduction = reduction_ns(self._system, sent.following) if reduced else 0
            last = reduced_packets(phase, later, packets) - reduced_packets(phase, later, packets - 1)
            last_reduction = reduction if last else None
            delays, charged, latest = self._charge(places[sent.sources], places, sent.size)
            volume = [total + more * sent.times for total, more in zip(volume, charged, strict=True)]
            steps.append(Exchange(sent.sources, delays, sent.times * bus + reduced * reduction, sent.times))
            longest += sent.times * latest + steps[-1].bus
        if longest > LONGEST_RUN_NS // 2:
            return None  # message by message, in integers of any size
        last_bus = bus + (last_reduction or 0)
        model = SteppedPhase(bus, last_reduction, tuple(volume), steps=steps, last_bus=last_bus)
        if all((step.delays == step.delays[0]).all() for step in steps):
            model.uniform_ns = bus + sum(int(step.delays[0]) * step.times + step.bus for step in steps) - last_bus
        return model

    def _charge(self, senders: IntArray, receivers: IntArray, size: int) -> tuple[IntArray, list[int], int]:
        """Return the delay of each message, the bytes charged on each dimension, and the longest delay."""
        dims, distances = self._delays.dimensions(senders, receivers)
        width = len(self._delays.counts)
        ways, which, often = np.unique(distances * width + dims, return_inverse=True, return_counts=True)
        volume, delays = [0] * width, []
        for way, messages in zip(ways.tolist(), often.tolist(), strict=True):
            distance, dim = divmod(way, width)
            volume[dim] += size * messages
            delays.append(self._delays.charge(dim, distance, size))
        return np.array(delays, dtype=np.int64)[which], volume, max(delays)

    def _direct(self, phase: Phase) -> PhaseModel | None:
        ranks, count, size = phase.ring.ranks, len(phase.ring.ranks), message_bytes(phase)
        if size < 1:
            return None
        halves = 2 if phase.collective is AR else 1
        others = count - 1
        toggle = PacketToggle(others, others * others if phase.ring.fast else others, phase)
        reduced = [toggle.next()[1] for _ in range((1 + halves) * others)]
        reduction = reduction_ns(self._system, size) if any(reduced) else 0
        direction = 1 if phase.clockwise else -1
        receivers = np.array(ranks[:1] if self._delays.is_dimension(ranks) else ranks)
        positions = np.arange(len(receivers))
        behind = direction * np.arange(1, count)
        senders = np.array(ranks)[(positions[:, None] - behind) % count]
        delays, charged, _ = self._charge(senders.ravel(), np.repeat(receivers, others), size)
        volume = np.array(charged) * (halves * count // len(receivers))
        return DirectPhase(
            self._bus(phase),
            reduction if reduced[-1] else None,
            tuple(int(total) for total in volume),
            delays=delays.reshape(senders.shape),
            direction=direction,
            reduction=reduction if reduced[others] else 0,
            halves=halves,
        )
