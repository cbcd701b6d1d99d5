"""What engines share in time: each says when it is free, and whoever wants it next waits until then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from foundation.records import dataclass

SECOND = 10**9


@dataclass(slots=True)
class Port:
    """One direction of an engine's network cards, which work as one: bytes/s, and when it is free (ns)."""

    bytes_per_s: int
    free_ns: int = 0


class Passage(NamedTuple):
    """When bytes began to leave, had all left, and had all come (ns)."""

    began_ns: int
    left_ns: int
    came_ns: int


def send(ports: Sequence[Port], amount: int, ready_ns: int, latency_ns: int) -> Passage:
    """Send `amount` bytes through all `ports` at once, from `ready_ns` on at the earliest, at the slowest one's pace.

    Each is taken for as long: what was asked for before goes first. `latency_ns` takes no port.
    """
    began = max([ready_ns, *(port.free_ns for port in ports)])
    left = began - -amount * SECOND // min(port.bytes_per_s for port in ports)
    for port in ports:
        port.free_ns = left
    return Passage(began, left, left + latency_ns)
