"""The bus between an NPU and its network endpoint: a fixed delay, and the reduction of what arrives.

Sources: MemBus.cc, PacketBundle.cc. `loggp.SharedBus` is the other variant (`model-shared-bus`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from analytical.machine.event_queue import LocalEvents
from analytical.machine.limits import LONGEST_NS
from astra_files.system import SystemConfig
from foundation.errors import SimulationError

Done = Callable[[None], object]

FAST_NS = 10
"""Delay of the bus for the ring of a sub-group, whatever the endpoint delay."""

DEFAULT_ENDPOINT_NS = 10


def endpoint_ns(system: SystemConfig, injection_scale: float) -> int:
    """Return the bus delay: endpoint-delay scaled and truncated; 10 ns, unscaled, where the key is absent."""
    if system.endpoint_delay is None:
        return DEFAULT_ENDPOINT_NS
    return int(system.endpoint_delay * injection_scale)


def reduction_ns(system: SystemConfig, size: int) -> int:
    """Return the ns of reducing `size` bytes: two reads and a write at the local memory's bandwidth.

    Raises `SimulationError` where that takes longer than times are counted.
    """
    ns = 3 * int(float(size) / (system.local_mem_bw * 1_000_000_000) * 1e9)
    if ns > LONGEST_NS:
        raise SimulationError(f"reducing {size} bytes takes longer than 104 days; correct local-mem-bw")
    return ns


class Bus(Protocol):
    """Takes packets between NPU and endpoint."""

    def transfer(
        self, events: LocalEvents, size: int, fast: bool, to_network: bool, reduce: bool, send_back: bool, done: Done
    ) -> None:
        """Take a packet of `size` bytes over, reduce it if asked, and call ``done(None)``."""


class EndpointBus:
    """A bus that any number of packets cross at once."""

    def __init__(self, system: SystemConfig, injection_scale: float) -> None:
        self._system = system
        self._delay = endpoint_ns(system, injection_scale)
        self._reductions: dict[int, int] = {}

    def transfer(
        self, events: LocalEvents, size: int, fast: bool, to_network: bool, reduce: bool, send_back: bool, done: Done
    ) -> None:
        """Wait the delay, then the reduction."""
        delay = FAST_NS if fast else self._delay
        if reduce:
            events.after(delay, self._reduce, (events, size, done))
        else:
            events.after(delay, done, None)

    def _reduce(self, packet: tuple[LocalEvents, int, Done]) -> None:
        events, size, done = packet
        delay = self._reductions.get(size)
        if delay is None:
            delay = self._reductions[size] = reduction_ns(self._system, size)
        events.after(delay, done, None)
