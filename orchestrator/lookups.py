"""What was looked up in tables of measured times, over all performance models of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from orchestrator.observers.interface import Run
from orchestrator.summary import LookupFigures
from trace_gen.measured.lookups import LookupCounts, TellsOfLookups


def looked_up(run: Run) -> list[TellsOfLookups]:
    """Return the performance models of `run` that look times up, each once."""
    found: dict[int, TellsOfLookups] = {}
    for kind in run.kinds():
        for generator in filter(None, (kind.generator, kind.drafter)):
            if isinstance(generator.perf_model, TellsOfLookups):
                found[id(generator.perf_model)] = generator.perf_model
    return list(found.values())


def lookup_figures(run: Run) -> LookupFigures | None:
    """Return how many lookups were made until now; None where no table is looked up."""
    models = looked_up(run)
    if not models:
        return None
    total, operators = LookupCounts(), dict[str, LookupCounts]()
    for model in models:
        for name, counts in model.lookups.counts().items():
            total.add(counts)
            operators.setdefault(name, LookupCounts()).add(counts)
    by_name = {name: asdict(operators[name]) for name in sorted(operators)}
    return LookupFigures(**asdict(total), operators=by_name, off_percent=_off(models))


def _off(models: Sequence[TellsOfLookups]) -> dict[str, dict[str, float]] | None:
    """Return how far tables say that times between their sizes are off, of several the greater."""
    found: dict[str, dict[str, float]] = {}
    for model in models:
        for name, (mean, most) in model.lookups.off.items():
            known = found.get(name, {"mean": 0.0, "most": 0.0})
            found[name] = {"mean": max(mean, known["mean"]), "most": max(most, known["most"])}
    return found or None
