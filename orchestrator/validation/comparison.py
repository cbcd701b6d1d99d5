"""A comparison of a simulation with a recording, whole: errors, state over time, noise; as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, TextIO

from foundation.records import dataclass
from orchestrator.observers.tables import print_table
from orchestrator.statistics import STATISTICS
from orchestrator.validation.errors import COUNTED_STATISTICS, Figure, Name, beyond, figures, origin_of, worst
from orchestrator.validation.matching import Pairs, match
from orchestrator.validation.noise import STANDARD_DEVIATIONS, Jitter, Spread
from orchestrator.validation.over_time import LABELS, UNITS, OverTime, over_time
from orchestrator.validation.recording import Recording

_NONE = "-"


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """See the module's docstring. `origin`: from which moment requests are counted; `noise` by figure, if asked."""

    simulated: Recording
    recorded: Recording
    pairs: Pairs
    origin: str
    figures: Sequence[Figure]
    over_time: OverTime | None
    max_error: float | None = None
    jitter: Jitter | None = None
    noise: Mapping[Name, Spread] = field(default_factory=dict)

    @property
    def beyond(self) -> list[Figure]:
        """The figures with more than the greatest error, the worst first; none where no error was named."""
        return [] if self.max_error is None else beyond(list(self.figures), self.max_error)

    @property
    def notes(self) -> list[str]:
        """What a user should know of it."""
        found = [*self.recorded.notes, *self.simulated.notes, *self.pairs.notes]
        if self.recorded.gaps is None and self.recorded.kind != self.simulated.kind:
            found.append("the recording has no times between tokens, so ITL is not compared")
        return list(dict.fromkeys(found))

    def as_json(self) -> dict[str, Any]:
        """Return what the JSON file holds; docs/validation.md has the fields."""
        found = worst(list(self.figures))
        return {
            "recorded": _described(self.recorded),
            "simulated": _described(self.simulated),
            "requests_compared": len(self.pairs.simulated),
            "counted_from": self.origin,
            "notes": self.notes,
            "errors": [self._figure(one) for one in self.figures],
            "worst": None if found is None else {"metric": found.metric, "statistic": found.statistic},
            "over_time": None if self.over_time is None else _over_time(self.over_time),
            "jitter": None if self.jitter is None else _jitter(self.jitter),
            "max_error_percent": self.max_error,
            "beyond": [list(one.name) for one in self.beyond],
        }

    def _figure(self, one: Figure) -> dict[str, Any]:
        record: dict[str, Any] = {
            "metric": one.metric,
            "statistic": one.statistic,
            "unit": one.unit,
            "simulated": one.simulated,
            "measured": one.measured,
            "error_percent": one.error,
            "counts": one.counts,
        }
        spread = self.noise.get(one.name)
        if spread is not None:
            record["noise"] = {
                "standard_deviation_percent": spread.deviation,
                "least_error_percent": spread.least,
                "greatest_error_percent": spread.greatest,
                "explains_the_error": spread.explains(one.error),
            }
        return record


def compare(simulated: Recording, recorded: Recording, count_from: str | None = None) -> Comparison:
    """Return the comparison of two recordings of one workload, without noise. Raises `UserError`."""
    origin = origin_of(simulated, recorded, count_from)
    pairs = match(simulated, recorded)
    found = figures(simulated, recorded, pairs, origin)
    return Comparison(simulated, recorded, pairs, origin, found, over_time(simulated, recorded))


def error_header(comparison: Comparison) -> tuple[str, ...]:
    """Return the columns of `error_rows`."""
    noise = ("noise sd %", "errors with noise %", "means anything") if comparison.jitter else ()
    return ("", "simulated", "measured", "", "error %", *noise)


def error_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return a row a figure, as text."""
    return [
        (
            one.label,
            f"{one.simulated:.3f}",
            f"{one.measured:.3f}",
            one.unit,
            _percent(one.error),
            *_noise(comparison, one),
        )
        for one in comparison.figures
    ]


def over_time_rows(found: OverTime) -> list[tuple[str, ...]]:
    """Return a row a column: means of both sides, and the mean of the absolute differences."""
    return [
        (
            LABELS[name],
            f"{found.simulated[name].mean():.2f}",
            f"{found.recorded[name].mean():.2f}",
            f"{found.mean_difference(name):.2f}",
            UNITS[name],
        )
        for name in found.recorded
    ]


OVER_TIME_HEADER = ("mean over time", "simulated", "measured", "mean |difference|", "")


def title_of(comparison: Comparison) -> str:
    """Return what the table of errors says of itself."""
    from_when = f"TTFT and end-to-end counted from {comparison.origin}"
    return f"Errors of {len(comparison.pairs.simulated)} requests (simulated / measured - 1), {from_when}"


def print_comparison(comparison: Comparison, stream: TextIO) -> None:
    """Print the tables, the notes, and the verdict where a greatest error was named."""
    print_table(title_of(comparison), error_header(comparison), error_rows(comparison), stream)
    if comparison.over_time is not None:
        print_table("Over time", OVER_TIME_HEADER, over_time_rows(comparison.over_time), stream)
    print(file=stream)
    for line in [f"note: {note}" for note in comparison.notes] + verdict(comparison):
        print(line, file=stream)


def verdict(comparison: Comparison) -> list[str]:
    """Return what noise and the greatest error say, a line each."""
    lines = []
    if comparison.jitter is not None:
        jitter = comparison.jitter
        lines.append(
            f"noise: {jitter.runs} runs with arrivals moved by {jitter.arrivals_ms:g} ms and steps by {jitter.steps:g} "
            f"% (sd); an error of at most {STANDARD_DEVIATIONS:.1f} sd means nothing"
        )
    found = worst(list(comparison.figures))
    if found is not None:
        lines.append(f"worst: {found.label} {_percent(found.error)} %")
    if comparison.max_error is not None:
        most, wrong = f"{comparison.max_error:g} %", comparison.beyond
        metrics, statistics = "TTFT, TPOT, end-to-end", ", ".join(STATISTICS[name] for name in COUNTED_STATISTICS)
        good = f"within {most}: all of {metrics} ({statistics}), throughput"
        listed = ", ".join(f"{one.label} {_percent(one.error)} %" for one in wrong)
        lines.append(f"beyond {most}: {listed}" if wrong else good)
    return lines


def _noise(comparison: Comparison, one: Figure) -> tuple[str, ...]:
    if comparison.jitter is None:
        return ()
    spread = comparison.noise.get(one.name)
    if spread is None:
        return (_NONE, _NONE, _NONE)
    meaning = "no" if spread.explains(one.error) else "yes"
    return (f"{spread.deviation:.2f}", f"{spread.least:+.2f} to {spread.greatest:+.2f}", meaning)


def _percent(error: float | None) -> str:
    return _NONE if error is None else f"{error:+.2f}"


def _described(one: Recording) -> dict[str, Any]:
    return {"path": str(one.path), "kind": one.kind, "requests": len(one), "server": dict(one.facts)}


def _over_time(found: OverTime) -> dict[str, Any]:
    return {
        name: {
            "unit": UNITS[name],
            "mean_simulated": float(found.simulated[name].mean()),
            "mean_measured": float(found.recorded[name].mean()),
            "mean_absolute_difference": found.mean_difference(name),
        }
        for name in found.recorded
    }


def _jitter(jitter: Jitter) -> dict[str, Any]:
    return {
        "runs": jitter.runs,
        "arrivals_ms": jitter.arrivals_ms,
        "steps_percent": jitter.steps,
        "seed": jitter.seed,
    }
