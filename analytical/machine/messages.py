"""Matching of sends and receives: by (tag, source, destination, size), first in first out within equal keys.

A send completes when its message has arrived, a receive when the message has arrived and the receive is posted.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from analytical.machine.event_queue import Action, EventQueue
from analytical.machine.network import Transport
from foundation.errors import SimulationError

COLLECTIVE_TAGS = 500_000_000
"""Tags of point-to-point nodes lie below, those of collectives from here on; both wrap within their range."""

RENDEZVOUS_TAGS = 1_000_000_000
RENDEZVOUS_BYTES = 8192
"""Size of the message by which a receiver says that it is ready."""

WRAPPING_GROUPS = 500
"""From this group id on the tags of groups' streams wrap around, and may meet those of others."""

_INT_MAX = 2**31 - 1

Key = tuple[int, int, int, int]


def point_to_point_tag(tag: int) -> int:
    """Return the tag that a SEND or RECV node's `comm_tag` becomes."""
    return tag % COLLECTIVE_TAGS


def collective_tag(stream: int) -> int:
    """Return the tag of a stream of a collective."""
    return stream % COLLECTIVE_TAGS + COLLECTIVE_TAGS


class _Transfer:
    """A message under way: what to call at its arrival, and whether that was before its receive was posted."""

    __slots__ = ("arrived", "on_received", "on_sent")

    def __init__(self, on_sent: tuple[Action, Any] | None, on_received: tuple[Action, Any] | None) -> None:
        self.on_sent = on_sent
        self.on_received = on_received
        self.arrived = False


class Messenger:
    """Sends and receives over a transport."""

    def __init__(self, transport: Transport, queue: EventQueue, npus: int) -> None:
        self._transport = transport
        self._queue = queue
        self._npus = npus
        self._sends: dict[Key, deque[_Transfer]] = {}
        self._receives: dict[Key, deque[tuple[Action, Any]]] = {}

    def send(self, tag: int, src: int, dst: int, size: int, on_sent: tuple[Action, Any] | None) -> None:
        """Start a message; ``on_sent`` (action, argument) is called at its arrival."""
        if size <= 0 or src == dst or not 0 <= dst < self._npus:
            raise SimulationError(
                f"rank {src} sends {size} bytes to rank {dst}: a message needs at least 1 byte and another rank of "
                f"0..{self._npus - 1} to go to; make the collective larger, or correct the node"
            )
        key = (tag, src, dst, size)
        receives = self._receives.get(key)
        if receives is None:
            transfer = _Transfer(on_sent, None)
            self._sends.setdefault(key, deque()).append(transfer)
        else:
            transfer = _Transfer(on_sent, receives.popleft())
            if not receives:
                del self._receives[key]
        self._transport.transmit(src, dst, size, self._arrived, transfer)

    def receive(self, tag: int, src: int, dst: int, size: int, on_received: tuple[Action, Any]) -> None:
        """Post a receive; ``on_received`` (action, argument) is called when the message is there."""
        key = (tag, src, dst, size)
        sends = self._sends.get(key)
        if sends is None:
            self._receives.setdefault(key, deque()).append(on_received)
            return
        transfer = sends.popleft()
        if not sends:
            del self._sends[key]
        if transfer.arrived:
            self._queue.schedule(self._queue.now, *on_received)
        else:
            transfer.on_received = on_received

    def _arrived(self, transfer: _Transfer) -> None:
        receive = transfer.on_received
        if transfer.on_sent is not None:
            action, argument = transfer.on_sent
            action(argument)
        if receive is None:
            transfer.arrived = True
        else:
            action, argument = receive
            action(argument)


class RendezvousMessenger(Messenger):
    """The rendezvous protocol: the receiver first sends 8192 bytes; the message starts when those have arrived."""

    def send(self, tag: int, src: int, dst: int, size: int, on_sent: tuple[Action, Any] | None) -> None:
        """Wait for the receiver's word, then send."""
        if size > _INT_MAX:
            raise SimulationError(
                f"rank {src} sends {size} bytes to rank {dst}: a rendezvous message holds at most {_INT_MAX} bytes; "
                "send it in parts or switch the rendezvous protocol off"
            )
        word = (self._send_message, (tag, src, dst, size, on_sent))
        super().receive(tag + RENDEZVOUS_TAGS, dst, src, RENDEZVOUS_BYTES, word)

    def receive(self, tag: int, src: int, dst: int, size: int, on_received: tuple[Action, Any]) -> None:
        """Send word to the sender; the receive is posted when that has arrived."""
        post = (self._post_receive, (tag, src, dst, size, on_received))
        super().send(tag + RENDEZVOUS_TAGS, dst, src, RENDEZVOUS_BYTES, post)

    def _send_message(self, message: tuple[int, int, int, int, tuple[Action, Any] | None]) -> None:
        super().send(*message)

    def _post_receive(self, message: tuple[int, int, int, int, tuple[Action, Any]]) -> None:
        super().receive(*message)
