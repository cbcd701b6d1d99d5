"""Judge what tells times between measured ones: ``python -m benchmarks.predictor_accuracy PROFILE... [--tensor N]``.

PROFILE is a folder of LLMServingSim's profiler (``meta.yaml``, ``tp<N>/*.csv``). One size after another is left out of
a table, and its time is told by the others: by straight lines (lookup), and by each predictor of
`--profile_predictor`. Of attention all rows with one chunk, context or number of decodes are left out together. The
first and the last size stay: nothing is extrapolated. Prints the mean and the 90th percentile of the absolute relative
error, by operator.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from foundation.commands import run_command
from trace_gen.measured.curve import Curve
from trace_gen.measured.lines import Lines
from trace_gen.measured.reading import MeasuredTable
from trace_gen.perf_models.profile.attention import AttentionTable, UnequalAttention
from trace_gen.perf_models.profile.formats.llmservingsim import read_meta, read_rank
from trace_gen.perf_models.profile.learning.interface import Predictor
from trace_gen.perf_models.profile.learning.learned import LearnedCurve, LearnedLines, LearnedTable
from trace_gen.perf_models.profile.predictors import predictors

Errors = dict[str, dict[str, list[float]]]
"""By operator, then by predictor."""
AXES = ("chunk", "prompt's context", "decodes", "decodes' context")


def bundle_errors(folder: Path, tensor: int, every: int, rows: int) -> Errors:
    """Return the relative errors at sizes left out, each `every`-th of them, and at most `rows` rows of attention."""
    measured = read_rank(folder, read_meta(folder), tensor, experts=(folder / "tp1" / "moe.csv").is_file())
    chosen = {name: predictors.get(name)().predictor() for name in predictors}
    errors: Errors = defaultdict(lambda: defaultdict(list))
    for name, curve in measured.curves.items():
        for own, found in _curve_errors(curve, chosen, every):
            errors[name][own].append(found)
    if measured.experts is not None:
        for own, found in _expert_errors(measured.experts, chosen, every):
            errors["experts"][own].append(found)
    assert isinstance(measured.attention, UnequalAttention)
    for kind, own, found in _attention_errors(measured.attention.table.rows, chosen, every, rows):
        errors[kind][own].append(found)
    return errors


def _curve_errors(curve: Curve, chosen: Mapping[str, Predictor | None], every: int) -> Iterator[tuple[str, float]]:
    points = {int(size): float(value) for size, value in zip(curve.sizes, curve.values, strict=True)}
    for size in list(points)[1:-1:every]:
        rest = Curve({other: value for other, value in points.items() if other != size})
        for name, predictor in chosen.items():
            made = rest if predictor is None else LearnedCurve(rest, predictor)
            yield name, abs(float(made.at(np.array([size]))[0]) / points[size] - 1)


def _expert_errors(lines: Lines, chosen: Mapping[str, Predictor | None], every: int) -> Iterator[tuple[str, float]]:
    sizes, times = lines.points()
    inside = ((sizes > sizes.min(axis=0)) & (sizes < sizes.max(axis=0))).all(axis=1)
    for row in np.flatnonzero(inside)[::every].tolist():
        rest = Lines(np.delete(sizes, row, axis=0), np.delete(times, row))
        for name, predictor in chosen.items():
            made = rest if predictor is None else LearnedLines(rest, predictor)
            yield name, abs(float(made.at(sizes[row, :1], sizes[row, 1:])[0]) / times[row] - 1)


def _attention_errors(
    table: MeasuredTable, chosen: Mapping[str, Predictor | None], every: int, rows: int
) -> Iterator[tuple[str, str, float]]:
    sizes, draw = table.sizes, np.random.default_rng(0)
    for axis, said in enumerate(AXES):
        for value in np.unique(sizes[sizes[:, axis] > 0, axis])[1:-1:every].tolist():
            out = sizes[:, axis] == value
            rest = AttentionTable(MeasuredTable(table.path, sizes[~out], table.times[~out]))
            told = np.flatnonzero(out)
            told = told[np.sort(draw.permutation(len(told))[:rows])]
            for name, predictor in chosen.items():
                tell = rest_ns(rest) if predictor is None else LearnedTable(rest, predictor).one_ns
                for row in told.tolist():
                    chunk, past, count, context = sizes[row].tolist()
                    found = float(tell(chunk, float(past), count, np.array([float(context)]))[0])
                    yield f"attention, a {said} less", name, abs(found / float(table.times[row]) - 1)


def rest_ns(table: AttentionTable) -> Callable[[int, float, int, NDArray[np.float64]], NDArray[np.float64]]:
    """Return the lookup of one chunk (0: none) beside decodes."""

    def tell(chunk: int, past: float, count: int, decode: NDArray[np.float64]) -> NDArray[np.float64]:
        prompts = np.full(int(chunk > 0), chunk), np.full(int(chunk > 0), int(past))
        return table.equal_ns(*prompts, count, decode)

    return tell


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0], allow_abbrev=False)
    parser.add_argument("profile", nargs="+", type=Path)
    parser.add_argument("--tensor", type=int, nargs="+", default=[1], help="tensor-parallel degrees (default: 1)")
    parser.add_argument("--every", type=int, default=5, help="leave out every N-th size (default: 5)")
    parser.add_argument("--rows", type=int, default=100, help="rows of attention a size left out (default: 100)")
    given = parser.parse_args()
    errors: Errors = defaultdict(lambda: defaultdict(list))
    with TemporaryDirectory() as cache:  # what is learned without a size is of no use to runs
        os.environ["XDG_CACHE_HOME"] = cache
        for folder in given.profile:
            for tensor in given.tensor:
                print(f"{folder}, tp{tensor} ...", file=sys.stderr, flush=True)
                for name, by in bundle_errors(folder, tensor, given.every, given.rows).items():
                    for own, found in by.items():
                        errors[name][own] += found
    print(f"{'operator':36}{'rows':>7}" + "".join(f"{name:>20}" for name in predictors))
    for name in sorted(errors):
        cells = [errors[name][own] for own in predictors]
        shown = "".join(f"{np.mean(one):12.1%}{np.quantile(one, 0.9):8.1%}" for one in cells)
        print(f"{name:36}{len(cells[0]):7}{shown}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
