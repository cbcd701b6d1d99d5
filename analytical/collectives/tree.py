"""The double binary tree all-reduce, message by message. Sources: DoubleBinaryTreeAllReduce.cc, BinaryTree.cc.

Chunks alternate between two trees over the same ranks. The whole chunk goes up, reduced at every inner rank, and down.
"""

from __future__ import annotations

from analytical.collectives.algorithms import Endpoint
from analytical.collectives.plan import Phase
from analytical.machine.event_queue import Action
from foundation.errors import InternalError
from foundation.records import dataclass


@dataclass(frozen=True, slots=True)
class TreePlace:
    """A rank's neighbours in a tree; None where it has none."""

    parent: int | None
    left: int | None
    right: int | None


def tree_place(ranks: tuple[int, ...], position: int, parity: int) -> TreePlace:
    """Return the neighbours of ``ranks[position]``; a power of two of ranks, in order along the tree.

    The root has one child, a full binary tree numbered in order: tree 0 has its root behind it (the last rank),
    tree 1 before it (the first rank).
    """
    count = len(ranks)
    root = count - 1 if parity == 0 else 0
    shift = 0 if parity == 0 else 1
    if position == root:
        only = ranks[(count - 1) // 2 + shift if parity == 0 else count // 2] if count > 1 else None
        return TreePlace(None, only, None)
    number = position - shift + 1  # 1 .. count - 1, in order
    span = number & -number
    half = span // 2
    left = ranks[number - half - 1 + shift] if half else None
    right = ranks[number + half - 1 + shift] if half else None
    if span == count // 2:
        return TreePlace(ranks[root], left, right)
    parent = number - span if number & (span * 2) else number + span
    return TreePlace(ranks[parent - 1 + shift], left, right)


class TreeRun:
    """A rank's part of one chunk's trip up and down its tree."""

    def __init__(self, endpoint: Endpoint, phase: Phase) -> None:
        self._endpoint = endpoint
        self._size = phase.size
        place = tree_place(phase.ring.ranks, phase.position, phase.parity)
        self._parent = place.parent
        self._children = [child for child in (place.left, place.right) if child is not None]
        self._reduced = 0
        self._arrivals = 0

    def start(self) -> None:
        """A leaf sends its chunk up; others wait for their children's."""
        if not self._children:
            self._bus(True, False, self._send_up)
            return
        for child in self._children:
            self._receive(child, self._child_came)

    def _child_came(self, _: None) -> None:
        self._arrivals += 1
        send_back = self._arrivals == len(self._children)
        self._bus(False, True, self._child_reduced, send_back)

    def _child_reduced(self, _: None) -> None:
        self._reduced += 1
        if self._reduced < len(self._children):
            return
        if self._parent is None:
            self._send_down(None)
        else:
            self._send_up(None)

    def _send_up(self, _: None) -> None:
        parent = self._parent
        if parent is None:
            raise InternalError("the root of a tree has nobody above it")
        self._send(parent)
        self._receive(parent, self._parent_came)

    def _parent_came(self, _: None) -> None:
        if self._children:
            self._bus(False, True, self._send_down, True)
        else:
            self._bus(False, False, self._leaf_done)

    def _leaf_done(self, _: None) -> None:
        self._endpoint.phase_done()

    def _send_down(self, _: None) -> None:
        for child in self._children:
            self._send(child)
        self._endpoint.phase_done()

    def _bus(self, to_network: bool, reduce: bool, done: Action, send_back: bool = False) -> None:
        endpoint = self._endpoint
        endpoint.bus.transfer(endpoint.events, self._size, False, to_network, reduce, send_back, done)

    def _send(self, peer: int) -> None:
        endpoint = self._endpoint
        endpoint.messenger.send(endpoint.tag, endpoint.rank, peer, self._size, None)

    def _receive(self, peer: int, action: Action) -> None:
        endpoint = self._endpoint
        endpoint.messenger.receive(endpoint.tag, peer, endpoint.rank, self._size, (action, None))
