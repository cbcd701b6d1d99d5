"""The bytes that collectives send over each dimension of the network, counted without sending them."""

from __future__ import annotations

from dataclasses import replace

from analytical.chains.meetings import Meeting
from analytical.chains.solver import CollectiveSolver
from analytical.collectives.models import Models
from analytical.collectives.plan import Kind, Phase


class CollectiveVolume:
    """The bytes of collectives, each kind and size worked out once."""

    def __init__(self, models: Models, solver: CollectiveSolver) -> None:
        self._models = models
        self._solver = solver
        self._known: dict[tuple[int, int], list[int] | None] = {}

    def of(self, meeting: Meeting, size: int) -> list[int] | None:
        """Return the bytes by dimension of a collective; None where its messages are only known by running them."""
        key = (id(meeting), size)
        if key not in self._known:
            self._known[key] = self._all_components(meeting, size)
        return self._known[key]

    def _all_components(self, meeting: Meeting, size: int) -> list[int] | None:
        """A component's rings along a dimension carry the same: those of one member, times their number."""
        total = [0] * len(self._models.delays.counts)
        for component in meeting.components:
            streams = self._solver.streams(
                component.ranks[0], meeting.collective, size, meeting.involved, meeting.group
            )
            for phase in (phase for phases in streams for phase in phases):
                model = self._models.phases.model(_all_peers(phase))
                if model is None:
                    return None
                rings = len(component.ranks) // len(phase.ring.ranks)
                total = [before + rings * sent for before, sent in zip(total, model.volume, strict=True)]
        return total


def _all_peers(phase: Phase) -> Phase:
    """A window delays the messages of a direct phase; it does not change them."""
    if phase.algorithm.kind is not Kind.DIRECT:
        return phase
    return replace(phase, algorithm=replace(phase.algorithm, window=None))
