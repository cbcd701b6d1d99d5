"""How long a message takes: the congestion-unaware network, and links that queue (congestion-aware).

Sources: BasicTopology.cpp, MultiDimTopology.cpp (unaware) and Link.cpp, Ring.cpp, Switch.cpp (aware) of the analytical
network backend of ASTRA-sim.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np

from analytical.machine.event_queue import Action, EventQueue
from analytical.machine.limits import LONGEST_NS
from astra_files.network import NetworkConfig
from converters.execution_graph import IntArray
from foundation.errors import InternalError, SimulationError, UserError


class Transport(Protocol):
    """Carries a message of `size` bytes from `src` to `dst` and calls ``action(argument)`` when it has arrived."""

    def transmit(self, src: int, dst: int, size: int, action: Action, argument: Any) -> None:
        """Start now."""


class DelayModel:
    """Delays without contention: ``trunc(hops * latency + size / bandwidth)``, on the first differing dimension.

    Ranks are mixed-radix numbers over the dimensions, dimension 0 least significant. Hops: FullyConnected 1, Switch 2,
    Ring the shorter way round. Serialisation is paid once, whatever the hops.
    """

    def __init__(self, network: NetworkConfig) -> None:
        self.npus = network.npus
        self.counts = network.npus_count
        self._dims = tuple(
            zip(network.topology, network.npus_count, network.bytes_per_ns, network.latency, strict=True)
        )

    def dimension(self, src: int, dst: int) -> tuple[int, int]:
        """Return the dimension that a message is charged on and its distance along it, dst coordinate minus src."""
        for dim, count in enumerate(self.counts):
            distance = dst % count - src % count
            if distance:
                return dim, distance
            src //= count
            dst //= count
        raise InternalError("a rank has no distance to itself")

    def dimensions(self, src: IntArray, dst: IntArray) -> tuple[IntArray, IntArray]:
        """Return the same of many messages at once, none of them to its own sender."""
        dims, distances = np.full(src.shape, -1), np.zeros(src.shape, dtype=np.int64)
        stride = 1
        for dim, count in enumerate(self.counts):
            distance = dst // stride % count - src // stride % count
            here = (dims < 0) & (distance != 0)
            dims[here], distances[here] = dim, distance[here]
            stride *= count
        return dims, distances

    def is_dimension(self, ranks: tuple[int, ...]) -> bool:
        """Whether `ranks` are all those along one dimension, in order: then a delay depends on how far it is only."""
        stride = 1
        for count in self.counts:
            first = ranks[0]
            if first // stride % count == 0 and ranks == tuple(range(first, first + count * stride, stride)):
                return True
            stride *= count
        return False

    def delay(self, src: int, dst: int, size: int) -> int:
        """Return ns from sending to arrival."""
        dim, distance = self.dimension(src, dst)
        return self.charge(dim, distance, size)

    def charge(self, dim: int, distance: int, size: int) -> int:
        """Return ns of a message of `size` bytes over `distance` (dst minus src coordinate) along `dim`.

        Raises `SimulationError` for a message that takes longer than times are counted.
        """
        topology, count, bytes_per_ns, latency = self._dims[dim]
        if topology == "Ring":
            hops = min(distance % count, -distance % count)
        else:
            hops = 1 if topology == "FullyConnected" else 2
        ns = int(hops * latency + float(size) / bytes_per_ns)
        if ns > LONGEST_NS:
            raise SimulationError(
                f"a message of {size} bytes over dimension {dim} takes longer than 104 days; correct its bandwidth"
            )
        return ns


class UnawareTransport:
    """Messages that never wait for each other; `volume` counts the bytes charged on each dimension."""

    def __init__(self, model: DelayModel, queue: EventQueue) -> None:
        self.volume = [0] * len(model.counts)
        self._model = model
        self._queue = queue
        self._routes: dict[tuple[int, int], tuple[int, int]] = {}
        self._delays: dict[tuple[int, int, int], int] = {}

    def transmit(self, src: int, dst: int, size: int, action: Action, argument: Any) -> None:
        """Schedule the arrival."""
        delay = self.delay(src, dst, size)
        self.volume[self._routes[src, dst][0]] += size
        self._queue.schedule(self._queue.now + delay, action, argument)

    def delay(self, src: int, dst: int, size: int) -> int:
        """Return ns from sending to arrival."""
        route = self._routes.get((src, dst))
        if route is None:
            route = self._routes[src, dst] = self._model.dimension(src, dst)
        dim, distance = route
        key = (dim, distance, size)
        delay = self._delays.get(key)
        if delay is None:
            delay = self._delays[key] = self._model.charge(dim, distance, size)
        return delay


class _Link:
    """One direction of a link: a message at a time, the others wait in order of their coming."""

    __slots__ = ("_busy", "_bytes_per_ns", "_latency", "_queue", "_waiting")

    def __init__(self, bytes_per_ns: float, latency: float, queue: EventQueue) -> None:
        self._bytes_per_ns = bytes_per_ns
        self._latency = latency
        self._queue = queue
        self._busy = False
        self._waiting: deque[_Hop] = deque()

    def send(self, hop: _Hop) -> None:
        if self._busy:
            self._waiting.append(hop)
        else:
            self._start(hop)

    def _start(self, hop: _Hop) -> None:
        self._busy = True
        serialisation = float(hop.size) / self._bytes_per_ns
        now = self._queue.now
        self._queue.schedule(now + int(self._latency + serialisation), hop.arrived, None)
        self._queue.schedule(now + int(serialisation), self._free, None)

    def _free(self, _: None) -> None:
        self._busy = False
        if self._waiting:
            self._start(self._waiting.popleft())


class _Hop:
    """A message on its way through `route`."""

    __slots__ = ("action", "argument", "position", "route", "size", "transport")

    def __init__(
        self, size: int, route: tuple[int, ...], transport: AwareTransport, action: Action, argument: Any
    ) -> None:
        self.size = size
        self.route = route
        self.position = 0
        self.transport = transport
        self.action = action
        self.argument = argument

    def arrived(self, _: None) -> None:
        self.position += 1
        if self.position == len(self.route) - 1:
            self.action(self.argument)
        else:
            self.transport.forward(self)


class AwareTransport:
    """Store and forward over links that serve one message at a time; one dimension only, as upstream.

    A switch is two links, each of the full latency and serialisation. Rings go the shorter way, ties clockwise.
    """

    def __init__(self, network: NetworkConfig, queue: EventQueue) -> None:
        """`network` is one that `check_aware` lets pass."""
        self.volume = [0]
        self._topology = network.topology[0]
        self._count = network.npus
        self._link = (network.bytes_per_ns[0], network.latency[0], queue)
        self._links: dict[tuple[int, int], _Link] = {}

    def transmit(self, src: int, dst: int, size: int, action: Action, argument: Any) -> None:
        """Put the message on its first link."""
        self.volume[0] += size
        self.forward(_Hop(size, self._route(src, dst), self, action, argument))

    def forward(self, hop: _Hop) -> None:
        """Put a message on the link out of where it is."""
        ends = hop.route[hop.position], hop.route[hop.position + 1]
        link = self._links.get(ends)
        if link is None:
            link = self._links[ends] = _Link(*self._link)
        link.send(hop)

    def _route(self, src: int, dst: int) -> tuple[int, ...]:
        if self._topology == "FullyConnected":
            return src, dst
        if self._topology == "Switch":
            return src, self._count, dst
        clockwise = (dst - src) % self._count
        step = -1 if self._count - clockwise < clockwise else 1
        hops = min(clockwise, self._count - clockwise)
        return tuple((src + step * hop) % self._count for hop in range(hops + 1))


def check_aware(network: NetworkConfig) -> None:
    """Refuse networks that the congestion-aware variant cannot hold, as upstream does."""
    if len(network.topology) != 1:
        raise UserError(
            f"the congestion-aware network has one dimension, not {len(network.topology)}",
            field="topology",
            fix="use one dimension, or the congestion-unaware network",
        )
    if network.topology[0] == "Ring" and network.npus == 2:
        raise UserError(
            "a congestion-aware Ring of 2 NPUs would connect them twice",
            field="npus_count",
            fix="use FullyConnected or Switch for 2 NPUs",
        )
