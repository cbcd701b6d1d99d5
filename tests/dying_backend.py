"""A backend that fails in mid-run, for tests of what a run then still leaves behind."""

from __future__ import annotations

from dataclasses import make_dataclass

import pytest

from foundation.errors import SimulationError
from orchestrator.backends import backends


class DyingBackend:
    """Works for a while, then fails as a process would that was killed. `left`: graphs until then."""

    message = "the process was killed"
    lifetime = 20
    closed = False

    def __init__(self, **files: object) -> None:
        self.inner = backends.get("embedded")().start(**files)  # type: ignore[arg-type]
        self.left = self.lifetime

    def simulate(self, graph: object) -> object:
        self.left -= 1
        if self.left < 0:
            raise SimulationError(self.message)
        return self.inner.simulate(graph)  # type: ignore[arg-type]

    def close(self) -> None:
        type(self).closed = True


def register(monkeypatch: pytest.MonkeyPatch, name: str, backend: type[DyingBackend]) -> None:
    """Make `--backend name` start a `backend`, for one test."""
    record = make_dataclass(
        "DyingSettings", [], frozen=True, namespace={"external": False, "start": lambda self, **files: backend(**files)}
    )
    monkeypatch.setitem(backends._choices, name, record)
