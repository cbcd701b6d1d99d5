"""The formulas beside the full simulation of the same requests: per-token latency, token phase and total, and errors.

An error is formula / full simulation - 1. Of one simulation come the phases of every response length up to its own: a
static batch does not know how long its answers get.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.estimating.estimate import Asked, Estimate
from orchestrator.estimating.simulated import SimulatedBatch, simulate_batch
from orchestrator.observers.tables import Row, print_table
from orchestrator.settings.specification import RunSpec

FloatArray = NDArray[np.float64]
QUANTITIES = {"token": "latency of the token", "token_phase": "token phase until then", "total": "total until then"}
_WORST = "worst_error"


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A quantity after each token of the token phase ``[n_t]``, seconds, by the formula and by the full simulation."""

    formula: FloatArray
    simulated: FloatArray

    @property
    def error(self) -> FloatArray:
        """Return formula / simulated - 1."""
        found: FloatArray = self.formula / self.simulated - 1
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """An estimate and the full simulation of the same batch; `engine`: what simulated it, in a few words."""

    estimate: Estimate
    simulated: SimulatedBatch
    engine: str

    @property
    def prompt(self) -> Curve:
        """The prompt phase, one value."""
        return Curve(*(side[:1] for side in self._sides()))

    @property
    def curves(self) -> dict[str, Curve]:
        """The quantities of `QUANTITIES` after each token, by name."""
        sides = self._sides()
        token = Curve(*(side[1:] for side in sides))
        phase = Curve(*(np.cumsum(side[1:]) for side in sides))
        total = Curve(*(np.cumsum(side)[1:] for side in sides))
        return {"token": token, "token_phase": phase, "total": total}

    @property
    def equal_efficiency(self) -> float | None:
        """The part of the GPU's bandwidth with which both have the same token phase; None where there is none."""
        estimate = self.estimate
        if not estimate.asked.response_length:
            return None
        return estimate.efficiency * (1 + float(self.curves["token_phase"].error[-1]))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of either side."""
        late = self.simulated.late
        said = f"{late} of {self.estimate.asked.batch_size} requests were taken up later than the first"
        waited = (f"{said}: the formula takes them for one batch",) if late else ()
        return (*self.estimate.notes, *waited, *self.simulated.notes)

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name, seconds."""
        found: dict[str, Any] = {"formula": self.estimate.as_json(), "engine": self.engine}
        found["simulated_latencys"] = (self.simulated.latencies_ns / 1e9).tolist()
        found["equal_efficiency"] = self.equal_efficiency
        found["prompt_phase_error"] = float(self.prompt.error[0])
        for name, curve in self.curves.items() if self.estimate.asked.response_length else ():
            found[f"{name}_error"] = float(curve.error[-1])
            found[f"{name}_{_WORST}"] = float(np.abs(curve.error).max())
        found["simulated_time_s"] = {name: spent / 1e9 for name, spent in self.simulated.by_class.items() if spent}
        return found

    def _sides(self) -> tuple[FloatArray, FloatArray]:
        return np.array(self.estimate.latencys), self.simulated.latencies_ns / 1e9


def compare(estimate: Estimate, spec: RunSpec) -> Comparison:
    """Simulate the batch of `estimate` with the engine of `spec` and return both; `UserError` as a run raises them."""
    asked: Asked = estimate.asked
    simulated = simulate_batch(spec, asked.batch_size, asked.prompt_length, asked.response_length)
    names = spec.engine.names
    return Comparison(estimate, simulated, f"scheduling {names['scheduling']}, performance model {names['perf_model']}")


HEADER = (
    "after",
    *(f"{what}: {side}" for what in ("token", "phase", "total") for side in ("formula", "full", "error, %")),
)


def shown_tokens(response_length: int) -> list[int]:
    """Return the tokens that a table shows: 1, 2, 4, ... and the last."""
    powers = [1 << power for power in range(response_length.bit_length())]
    return list(dict.fromkeys([*powers, response_length])) if response_length else []


def curve_rows(comparison: Comparison) -> list[Row]:
    """Return a row for each of `shown_tokens`: token, then of each quantity formula and full simulation (ms), error."""
    curves = comparison.curves
    rows = []
    for token in shown_tokens(comparison.estimate.asked.response_length):
        cells = [_cells(curve, token - 1) for curve in curves.values()]
        rows.append((str(token), *(cell for three in cells for cell in three)))
    return rows


def prompt_row(comparison: Comparison) -> Row:
    """Return the prompt phase: formula and full simulation (ms), error."""
    return ("prompt phase", *_cells(comparison.prompt, 0))


def efficiency_line(comparison: Comparison) -> str:
    """Return the efficiency that would make the token phases equal, in a sentence."""
    return f"With an efficiency of {comparison.equal_efficiency:.3f} both token phases would be the same."


def time_rows(comparison: Comparison) -> list[Row]:
    """Return where the full simulation's time went: ms and share, %, the longest first."""
    spent = sorted(comparison.simulated.by_class.items(), key=lambda part: -part[1])
    total = sum(value for _, value in spent)
    return [(name, f"{value / 1e6:.3f}", f"{100 * value / total:.1f}") for name, value in spent if value]


def print_comparison(comparison: Comparison, stream: TextIO) -> None:
    """Print both sides, and where the simulation's time went, as tables."""
    phase = ("", "formula, ms", "full, ms", "error, %")
    print_table(f"Formula beside the full simulation ({comparison.engine})", phase, [prompt_row(comparison)], stream)
    if comparison.estimate.asked.response_length:
        print_table("After so many tokens, ms", HEADER, curve_rows(comparison), stream)
        print(f"\n{efficiency_line(comparison)}", file=stream)
    print_table("Where the full simulation's time went", ("", "ms", "%"), time_rows(comparison), stream)


def csv_lines(comparison: Comparison) -> Iterator[str]:
    """Yield a line a token, after a header: 0 is the prompt phase; times in seconds, errors as fractions."""
    columns = [f"{name}_{side}" for name in QUANTITIES for side in ("s", "simulated_s", "error")]
    yield from (",".join(row) + "\n" for row in (["index", *columns], *_csv_rows(comparison)))


def _csv_rows(comparison: Comparison) -> Iterator[list[str]]:
    prompt = comparison.prompt
    first = [repr(float(side[0])) for side in (prompt.formula, prompt.simulated, prompt.error)]
    yield ["0", *first, "", "", "", *first]
    columns = [side.tolist() for curve in comparison.curves.values() for side in _sides_of(curve)]
    for index, values in enumerate(zip(*columns, strict=True), start=1):
        yield [str(index), *map(repr, values)]


def _sides_of(curve: Curve) -> tuple[FloatArray, FloatArray, FloatArray]:
    return curve.formula, curve.simulated, curve.error


def _cells(curve: Curve, at: int) -> tuple[str, str, str]:
    return f"{1e3 * curve.formula[at]:.3f}", f"{1e3 * curve.simulated[at]:.3f}", f"{100 * curve.error[at]:+.2f}"
