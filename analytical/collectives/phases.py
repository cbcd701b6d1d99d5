"""Whole phases solved at once, where the network has no contention.

Without contention a rank's way through a ring, direct or halving-doubling phase depends on the others only through when
their messages arrive: ``arrival = max(sent + delay, posted)``, ``next = arrival + bus``. From the times at which the
ranks enter a phase follow the times at which they leave it. No rank leaves before the last has entered, so a phase is
solved when its last rank enters; equal phases entered with equal offsets are solved once.

What the caller needs of the solution is, for every rank, when the phase's last message arrives: crossing the bus (and
reducing) from there on is done event by event, so that it keeps its place among the rank's other events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analytical.collectives.algorithms import (
    PacketToggle,
    direct_window,
    halving_doubling_steps,
    message_bytes,
    ring_steps,
)
from analytical.collectives.plan import AR, Kind, Phase
from analytical.machine.bus import FAST_NS, endpoint_ns, reduction_ns
from analytical.machine.limits import LONGEST_RUN_NS
from analytical.machine.network import DelayModel
from astra_files.system import SystemConfig
from converters.execution_graph import IntArray

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
    """One exchange: position i receives from ``sources[i]`` after ``delays[i]`` ns, then takes `bus` ns."""

    sources: NDArray[np.int64]
    delays: IntArray
    bus: int


@dataclass(slots=True, kw_only=True)
class SteppedPhase(PhaseModel):
    """Ring and halving-doubling: one message at a time, step after step."""

    steps: list[Exchange]
    uniform_ns: int | None = None
    """Entry to last arrival where all ranks are alike and enter together; None where their delays differ."""

    def _arrivals(self, entries: IntArray) -> IntArray:
        if self.uniform_ns is not None and not entries.any():
            return np.full(len(entries), self.uniform_ns)
        ready = entries + self.bus
        arrival = ready
        for step in self.steps:
            arrival = np.maximum(ready[step.sources] + step.delays, ready)
            ready = arrival + step.bus
        return arrival

    def _rank_order(self, entries: IntArray) -> IntArray:
        order = np.empty(len(entries), dtype=np.int64)
        order[np.argsort(entries, kind="stable")] = np.arange(len(entries))
        for step in self.steps:
            order = order[step.sources]
        return order


@dataclass(slots=True, eq=False, kw_only=True)
class DirectPhase(PhaseModel):
    """Direct with all peers at once. ``delays[i, k]``: from the k-th rank before position i, counted from 0.

    An all-reduce sends the second half's messages as the first half's are reduced, but none before all have come.
    """

    delays: IntArray
    sources: NDArray[np.int64]
    reduction: int
    halves: int

    def _arrivals(self, entries: IntArray) -> IntArray:
        sent = entries + self.bus
        first = np.maximum(sent[self.sources] + self.delays, sent[:, None])
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
        received = np.maximum(second[self.sources, columns] + self.delays, second)
        if (received.min(axis=1) + self.bus <= ready[:, -1]).any():
            # What comes in the second half would set off what the first half still holds back.
            raise AmbiguousOrderError
        latest: IntArray = received.max(axis=1)
        return latest

    def _rank_order(self, entries: IntArray) -> IntArray:
        first = int(np.argmin(entries))
        return (np.arange(len(entries)) - first - 1) % len(entries)


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

    def _ring_messages(self, phase: Phase) -> list[tuple[NDArray[np.int64], int]]:
        count = len(phase.ring.ranks)
        sources = (np.arange(count) - (1 if phase.clockwise else -1)) % count
        return [(sources, message_bytes(phase))] * (ring_steps(phase) + 1)

    def _halving_messages(self, phase: Phase) -> list[tuple[NDArray[np.int64], int]]:
        count = len(phase.ring.ranks)
        positions = np.arange(count)
        steps = halving_doubling_steps(phase)
        return [((positions ^ distance) % count, size) for distance, size in steps]

    def _stepped(self, phase: Phase, messages: list[tuple[NDArray[np.int64], int]]) -> PhaseModel | None:
        """Return the model of (source of each position, bytes) a packet; the last packet is not sent any more."""
        count = len(phase.ring.ranks)
        later = count - 1 if phase.algorithm.kind is Kind.RING else count.bit_length() - 2
        toggle = PacketToggle(1, later, phase)
        reductions = [reduction_ns(self._system, size) if toggle.next()[1] else None for _, size in messages]
        bus = self._bus(phase)
        steps, volume, longest = [], [0] * len(self._delays.counts), 0
        known: dict[tuple[bytes, int], tuple[IntArray, list[int], int]] = {}
        for (sources, size), reduction in zip(messages[:-1], reductions[1:], strict=True):
            if size < 1:
                return None
            key = (sources.tobytes(), size)
            if key not in known:
                known[key] = self._charge(phase.ring.ranks, sources, size)
            delays, charged, latest = known[key]
            volume = [total + more for total, more in zip(volume, charged, strict=True)]
            steps.append(Exchange(sources, delays, bus + (reduction or 0)))
            longest += latest + steps[-1].bus
        if longest > LONGEST_RUN_NS // 2:
            return None  # message by message, in integers of any size
        model = SteppedPhase(bus, reductions[-1], tuple(volume), steps=steps)
        if all((delays == delays[0]).all() for delays, *_ in known.values()):
            model.uniform_ns = bus + sum(int(step.delays[0]) + step.bus for step in steps) - steps[-1].bus
        return model

    def _charge(self, ranks: tuple[int, ...], sources: NDArray[np.int64], size: int) -> tuple[IntArray, list[int], int]:
        """Return the delay into each position, the bytes charged on each dimension, and the longest delay."""
        volume = [0] * len(self._delays.counts)
        delays = []
        for position, source in enumerate(sources.tolist()):
            dim, distance = self._delays.dimension(ranks[source], ranks[position])
            volume[dim] += size
            delays.append(self._delays.charge(dim, distance, size))
        return np.array(delays, dtype=np.int64), volume, max(delays)

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
        sources = (np.arange(count)[:, None] - direction * (1 + np.arange(others))) % count
        columns = [self._charge(ranks, sources[:, at], size) for at in range(others)]
        volume = np.sum([charged for _, charged, _ in columns], axis=0) * halves
        return DirectPhase(
            self._bus(phase),
            reduction if reduced[-1] else None,
            tuple(int(total) for total in volume),
            delays=np.stack([delays for delays, *_ in columns], axis=1),
            sources=sources,
            reduction=reduction if reduced[others] else 0,
            halves=halves,
        )
