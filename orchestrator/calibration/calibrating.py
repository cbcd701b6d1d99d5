"""A calibration, whole: terms fitted to a recording, those it cannot tell set back, what is left of the errors.

run as it is -> disturbed runs (noise) -> fit of all terms -> is each of them told?
                                              ^                     | no: back to its start, for good
                                              +---------------------+
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.errors import OrreryError
from foundation.records import dataclass
from orchestrator.calibration.fit import Fit, fit
from orchestrator.calibration.identify import NO_EFFECT, Precision, precision, unidentified
from orchestrator.calibration.residuals import Residuals
from orchestrator.calibration.terms import Term
from orchestrator.observers.interface import Run
from orchestrator.settings.record import repeating
from orchestrator.validation.errors import Figure, figures, origin_of
from orchestrator.validation.matching import match
from orchestrator.validation.noise import Jitter, disturbed
from orchestrator.validation.recording import Recording
from orchestrator.validation.reruns import Rerun

FloatArray = NDArray[np.float64]
Values = tuple[tuple[str, int | float], ...]
Tell = Callable[[str], None]
_BLOCKS = "num_gpu_blocks_override"
SHOWS, BY_CHANCE = 5.0, 1.5
"""A derivative is taken over a change of residuals that is so many times their noise; what two runs differ by in the
mean square without any cause is 1."""
REFUSED = 5.0
"""A factor of 150: what no run that can be is away from a recording."""
WIDEST = 0.2
"""The widest step for a derivative, as a share of a term's range."""


@dataclass(frozen=True, slots=True)
class FittedTerm:
    """A term with its value and standard error; `why` it is not told by the recording (then it keeps its start)."""

    term: Term
    value: int | float
    error: float | None
    why: str = ""
    at_bound: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What came of it. `correlations` are of the terms that are told, in their order; `runs`: simulations it took."""

    recorded: Recording
    origin: str
    terms: Sequence[FittedTerm]
    correlations: FloatArray
    condition: float
    before: Sequence[Figure]
    after: Sequence[Figure]
    runs: int
    jitter: Jitter
    notes: Sequence[str] = field(default_factory=list)

    @property
    def told(self) -> list[FittedTerm]:
        """The terms that the recording tells."""
        return [one for one in self.terms if not one.why]


def starting_values(run: Run) -> dict[str, float]:
    """Return the numbers among a run's decided settings; KV blocks as vLLM counts them, its null block included."""
    found = {
        name: float(value)
        for name, value in repeating(run.spec).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if run.deployments and hasattr(run.spec.engine.scheduling, _BLOCKS):
        found.setdefault(_BLOCKS, float(run.deployments[0].space.total_blocks + 1))
    return found


def calibrate(
    rerun: Rerun,
    recorded: Recording,
    terms: Sequence[Term],
    *,
    count_from: str | None,
    jitter: Jitter,
    most: int,
    tell: Tell = lambda text: None,
) -> Calibration:
    """Fit `terms` by at most `most` steps each time. Raises what a run raises."""
    tell(f"simulation {rerun.runs + 1}: the run as it is")
    first = rerun.simulate()
    origin = origin_of(first, recorded, count_from)
    pairs = match(first, recorded)
    residuals = Residuals.of(first, recorded, pairs, origin)
    runs = disturbed(rerun, jitter, lambda done: tell(f"disturbed run {done} of {jitter.runs} done"))
    noisy = [residuals.logarithms(one) for one in runs]
    sigma = residuals.noise(noisy)
    chance = [(one - np.mean(noisy, axis=0)) / sigma for one in noisy]
    simulations = _Simulations(rerun, residuals, residuals.logarithms(first), tell)
    told, found, known, why = _Search(simulations, sigma, most, chance).run(terms)
    values = _values(told, found.shares)
    last = rerun.simulate(dict(values)) if values else first
    fitted = _fitted(terms, told, found, known, why)
    after = figures(last, recorded, match(last, recorded), origin)
    before = figures(first, recorded, pairs, origin)
    notes = [*recorded.notes, *pairs.notes]
    correlations = known.correlations
    return Calibration(
        recorded, origin, fitted, correlations, known.condition, before, after, rerun.runs, jitter, notes
    )


class _Simulations:
    """Logarithms of a run at values of terms, each worked out once; `as_it_is` are those without any."""

    def __init__(self, rerun: Rerun, residuals: Residuals, as_it_is: FloatArray, tell: Tell) -> None:
        self._rerun = rerun
        self._residuals = residuals
        self._tell = tell
        self._known: dict[Values, FloatArray] = {(): as_it_is}

    def at(self, values: Values) -> FloatArray:
        """Return the logarithms with `values`; where such a run cannot be, all of them are as far off as `REFUSED`."""
        if values not in self._known:
            with_what = ", ".join(f"{name} {value:g}" for name, value in values)
            self._tell(f"simulation {self._rerun.runs + 1}: {with_what}")
            self._known[values] = self._simulated(values)
        return self._known[values]

    def _simulated(self, values: Values) -> FloatArray:
        try:
            return self._residuals.logarithms(self._rerun.simulate(dict(values)))
        except OrreryError as error:
            self._tell(f"cannot be: {error}")
            return np.full_like(self._known[()], REFUSED)


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """Fits again and again, each time without the term that is told least, until all that are left are told."""

    simulations: _Simulations
    sigma: FloatArray
    most: int
    chance: Sequence[FloatArray]

    def run(self, terms: Sequence[Term]) -> tuple[list[Term], Fit, Precision, Mapping[str, str]]:
        """Return the terms that are told, their fit and precision, and why the others are not.

        What has no effect where the run is now is left out from the beginning.
        """
        widths = {one.name: self._width(one) for one in terms}
        free = [one for one in terms if widths[one.name] is not None]
        why = {one.name: NO_EFFECT for one in terms if widths[one.name] is None}
        start = np.array([one.share(one.start) for one in free])
        while True:
            found = self._fit(free, start, widths)
            known = precision(found, self.chance) if free else _NOTHING
            lost = unidentified(found, known, [one.name for one in free]) if free else None
            if lost is None:
                return free, found, known, why
            why[free[lost.place].name] = lost.why
            del free[lost.place]
            start = np.delete(found.shares, lost.place)

    def _fit(self, free: Sequence[Term], start: FloatArray, widths: Mapping[str, int | None]) -> Fit:
        def model(shares: FloatArray) -> FloatArray:
            return self._at(free, shares)

        shares = start.tolist()
        wide = [abs(one.step_share(at, widths[one.name] or 1)) for one, at in zip(free, shares, strict=True)]
        least = [abs(one.step_share(at)) for one, at in zip(free, shares, strict=True)]
        return fit(model, np.array(wide), np.array(least), start, most=self.most)

    def _width(self, one: Term) -> int | None:
        """Return how many steps of a term show, to either side of chance; None where even a wide one does not."""
        start = one.share(one.start)
        before = self._at([one], np.array([start]))
        times = 1
        while True:
            step = one.step_share(start, times)
            change = self._at([one], np.array([start + step])) - before
            seen = float(np.sqrt((change**2).mean()))
            if seen >= SHOWS:
                return times
            if abs(step) >= WIDEST or times * one.step > one.high - one.low:
                return times if seen >= BY_CHANCE else None
            times *= 2

    def _at(self, free: Sequence[Term], shares: FloatArray) -> FloatArray:
        return self.simulations.at(_values(free, shares)) / self.sigma


_NOTHING = Precision(np.zeros(0), np.zeros((0, 0)), 1.0)


def _values(terms: Sequence[Term], shares: FloatArray) -> Values:
    """Return what a run is given; a term at its start is not given, so that the run as it is stays what it is."""
    given = ((one, one.given(share)) for one, share in zip(terms, shares.tolist(), strict=True))
    return tuple((one.name, value) for one, value in given if value != one.given(one.share(one.start)))


def _fitted(
    terms: Sequence[Term], told: Sequence[Term], found: Fit, known: Precision, why: Mapping[str, str]
) -> list[FittedTerm]:
    place = {one.name: number for number, one in enumerate(told)}
    fitted = []
    for one in terms:
        if one.name in why:
            fitted.append(FittedTerm(one, one.given(one.share(one.start)), None, why[one.name]))
            continue
        share = float(found.shares[place[one.name]])
        error = one.error(share, float(known.errors[place[one.name]]))
        fitted.append(FittedTerm(one, one.given(share), error, at_bound=not 0 < share < 1))
    return fitted


def as_json(one: Calibration) -> dict[str, Any]:
    """Return what the JSON file holds; docs/validation.md has the fields."""
    return {
        "recorded": {"path": str(one.recorded.path), "kind": one.recorded.kind, "requests": len(one.recorded)},
        "counted_from": one.origin,
        "terms": [
            {
                "name": each.term.name,
                "unit": each.term.unit,
                "start": each.term.start,
                "low": each.term.low,
                "high": each.term.high,
                "value": each.value,
                "standard_error": each.error,
                "identified": not each.why,
                "why_not": each.why or None,
                "at_bound": each.at_bound,
            }
            for each in one.terms
        ],
        "correlations": {"terms": [each.term.name for each in one.told], "matrix": one.correlations.tolist()},
        "condition_number": one.condition,
        "errors": [
            {
                "metric": after.metric,
                "statistic": after.statistic,
                "before_percent": before.error,
                "after_percent": after.error,
            }
            for before, after in zip(one.before, one.after, strict=True)
        ],
        "runs": one.runs,
        "notes": list(one.notes),
    }
