"""A run that is simulated again with other settings: what noise and calibration ask of a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError
from foundation.settings.reading import Layers, read
from orchestrator.observers.files import companions
from orchestrator.observers.interface import FinishedRows, Observer, Run
from orchestrator.settings.places import located_in
from orchestrator.settings.specification import RunCommand, given_by
from orchestrator.simulation import Simulation, prepare
from orchestrator.validation.recording import ARRIVAL, QUEUED, Recording

IntArray = NDArray[np.int64]


class Rerun:
    """The run that the file `settings` describes (a run file, or the record of a run)."""

    def __init__(self, settings: Path) -> None:
        self.settings = settings
        self.runs = 0

    def simulate(self, values: Mapping[str, object] | None = None, *, gaps: bool = False) -> Recording:
        """Simulate the run with `values` in place of its own, by the names of settings; raises as a run does.

        `gaps`: keep the times between tokens, too.
        """
        layers = self._layers(values or {})
        kept = _Gaps()
        self.runs += 1
        with located_in(layers):
            columns = Simulation(read(RunCommand, layers).run, [kept] if gaps else []).run().columns
        if not len(columns["id"]):
            raise UserError("the run finished no requests", path=self.settings, fix="name one that does")
        moments = {ARRIVAL: columns["arrival"], QUEUED: columns["queued"], "first_token": columns["first_token"]}
        return Recording(
            self.settings,
            "Orrery",
            columns["id"],
            columns["input"],
            columns["output"],
            {**moments, "end": columns["end"]},
            (ARRIVAL, QUEUED),
            gaps=kept.lists if gaps else None,
        )

    def prepared(self) -> Run:
        """Return the run checked and decided, without simulating it. Raises `UserError`."""
        layers = self._layers({})
        with located_in(layers):
            return prepare(read(RunCommand, layers).run)

    def _layers(self, values: Mapping[str, object]) -> Layers:
        flags = [word for name, value in values.items() for word in (f"--{name}", _text(value))]
        return given_by(["--settings", str(self.settings), *flags])


class _Gaps(Observer):
    """Keeps the times between the tokens of every request, in the order of the result's rows."""

    wants_itl = True

    def __init__(self) -> None:
        self.lists: list[IntArray] = []

    def finished(self, rows: FinishedRows) -> None:
        """Keep what comes."""
        self.lists += rows.itl or []


def settings_of(simulated: Path) -> Path:
    """Return the record of the settings that a simulated CSV came from; a `UserError` where it is not beside it."""
    path = companions(simulated)["settings"]
    if not path.is_file():
        raise UserError(
            "the settings of the run are not beside its CSV", path=path, fix="simulate it again with --output"
        )
    return path


def _text(value: object) -> str:
    return repr(value) if isinstance(value, float) else str(value)
