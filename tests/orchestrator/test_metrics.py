"""Figures of a run against their definitions, worked out independently."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.reached import Reached, reaches
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.observers.files import REQUEST_COLUMNS, request_lines
from orchestrator.observers.interface import FinishedRows
from orchestrator.statistics import WeightedValues, distribution
from tests.orchestrator.serving import Run, scheduler

ROWS = [(10, 4, 0), (20, 1, 500), (3, 7, 900), (8, 2, 40_000)]


@pytest.fixture
def run() -> Run:
    return Run(scheduler("orca", 100), ROWS)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 6)), min_size=1, max_size=40).filter(
        lambda pairs: any(weight for _, weight in pairs)
    )
)
def test_percentiles_interpolate_linearly_over_repeated_values(pairs: list[tuple[int, int]]) -> None:
    collected = WeightedValues()
    for value, weight in pairs:
        collected.add(np.array([value]), np.array([weight]))
    figures = collected.distribution()
    flat = np.repeat([value for value, _ in pairs], [weight for _, weight in pairs])
    assert figures is not None and figures.count == len(flat)
    expected = [flat.mean(), *np.percentile(flat, [50, 90, 95, 99, 99.9])]
    named = [figures.mean, figures.p50, figures.p90, figures.p95, figures.p99, figures.p99_9]
    assert named == pytest.approx(expected, rel=1e-12, abs=1e-6)


def test_many_values_are_merged_without_loss() -> None:
    collected, rng = WeightedValues(), np.random.default_rng(1)
    values, weights = rng.integers(0, 50, 10_000), rng.integers(1, 4, 10_000)
    for value, weight in zip(values, weights, strict=True):
        collected.add(np.array([value]), np.array([weight]))
    assert collected.distribution() == distribution(values, weights)


@reaches(0.3, lots=st.lists(st.lists(st.integers(0, 60), max_size=12), max_size=40), every=st.integers(1, 6))
def test_values_are_counted_in_whatever_lots_they_come(reached: Reached, lots: list[list[int]], every: int) -> None:
    """Also where they are put in order again and again, and looked at in between."""
    collected, flat = WeightedValues(kept_apart=every), Counter[int]()
    for place, lot in enumerate(lots):
        if len(lot) == 1:
            collected.count(lot[0], 2)
        else:
            collected.add(np.array(lot, dtype=np.int64), np.full(len(lot), 2))
        flat.update({value: 2 * times for value, times in Counter(lot).items()})
        if place % 7 == 3:
            assert collected.columns()[0].tolist() == sorted(flat)
    values, times = collected.columns()
    assert list(zip(values.tolist(), times.tolist(), strict=True)) == sorted(flat.items())
    if len(lots) > every:
        reached()


def test_nothing_has_no_distribution() -> None:
    assert distribution(np.array([], dtype=np.int64)) is None
    assert WeightedValues().distribution() is None


def test_inter_token_latencies_are_the_gaps_between_a_requests_tokens(run: Run) -> None:
    gaps = run.gaps
    for row, own in zip(run.rows(), gaps, strict=True):
        assert len(own) == row["output"] - 1
        assert row["first_token"] + sum(own.tolist()) == row["end"]
    pooled = np.concatenate(gaps)
    figures = run.metrics.itl.distribution()
    assert figures is not None and figures.count == len(pooled)
    assert figures.p90 == pytest.approx(np.percentile(pooled, 90))


def test_the_csv_has_the_fields_columns_in_completion_order(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    rows = FinishedRows(run.metrics.columns(), run.gaps)
    path.write_text(",".join(REQUEST_COLUMNS) + "\n" + "".join(request_lines(rows, ["some/model"], itl=True)))
    table = pd.read_csv(path)
    assert table["end_time"].is_monotonic_increasing
    assert set(table["model"]) == {"some/model"}
    by_id = table.set_index("request id")
    for identity, (prompt, output, arrival) in enumerate(ROWS):
        row = by_id.loc[identity]
        assert (row["input"], row["output"], row["arrival"]) == (prompt, output, arrival)
        assert row["latency"] == row["end_time"] - arrival
        assert row["queuing_delay"] == row["scheduled"] - arrival
        assert row["TTFT"] == row["first_token"] - arrival
        assert arrival <= row["queued"] <= row["scheduled"] < row["first_token"] <= row["end_time"]
    assert by_id.loc[2, "TPOT"] == pytest.approx((by_id.loc[2, "end_time"] - by_id.loc[2, "first_token"]) / 6, abs=1e-3)
    assert np.isnan(by_id.loc[1, "TPOT"]) and pd.isna(by_id.loc[1, "ITL"]), "one token has no time per further token"
    assert len(str(by_id.loc[2, "ITL"]).split(",")) == 6
    path.write_text(",".join(REQUEST_COLUMNS) + "\n" + "".join(request_lines(rows, ["some/model"], itl=False)))
    assert pd.read_csv(path)["ITL"].isna().all()


def test_ties_go_by_id(tmp_path: Path) -> None:
    run = Run(scheduler("none", 100), [(4, 3, 0), (4, 1, 0), (4, 2, 0)])
    assert [row["id"] for row in run.rows()] == [0, 1, 2]


def test_intervals_add_up_and_say_what_runs(run: Run) -> None:
    seconds = 10_000 / 1e9
    assert sum(i.generation_per_s for i in run.intervals) * seconds == pytest.approx(sum(r[1] for r in ROWS))
    assert sum(i.prompt_per_s for i in run.intervals) * seconds == pytest.approx(sum(r[0] for r in ROWS))
    ends = [interval.end_ns for interval in run.intervals]
    assert ends == sorted(set(ends))
    assert 30_000 not in ends, "nothing happens between 20 and 40 us"
    last = run.intervals[-1]
    assert (last.running, last.waiting, last.kv_used) == (0, 0, 0.0)


def test_an_intervals_state_is_that_of_the_batch_in_flight_at_its_end() -> None:
    # Steps of a little over 1000 ns; one request of 4 blocks: at 2000 ns it runs, at 10000 it is long done.
    run = Run(scheduler("orca", 10), [(13, 3, 0)], interval_ns=2000)
    first = run.intervals[0]
    assert (first.end_ns, first.running, first.waiting, first.kv_used) == (2000, 1, 0, 0.4)


def test_the_summary_has_no_figures_of_what_there_is_not(run: Run) -> None:
    summary = run.summary()
    assert summary.complete and summary.finished_requests == 4 and summary.ttft_ms is not None
    assert summary.makespan_s == run.metrics.totals.end_ns / 1e9
    waits = [row["first_token"] - row["arrival"] for row in run.rows()]
    assert summary.ttft_ms["mean"] == pytest.approx(np.mean(waits) / 1e6)
    lonely = Run(scheduler("orca", 100), [(5, 1, 0)]).summary()
    assert lonely.tpot_ms is None and lonely.itl_ms is None
    assert lonely.as_json()["tpot_ms"] is None and lonely.latency("ttft_ms") is not None


def test_a_run_without_any_finished_request_still_has_a_summary() -> None:
    summary = Run(scheduler("orca", 100), []).summary(error="backend died")
    assert summary.complete is False and summary.error == "backend died"
    assert summary.requests_per_s is None
    assert summary.simulated_time_s == dict.fromkeys(("compute", "attention", "waiting", "idle"), 0.0)


def test_where_simulated_time_went_adds_up(run: Run) -> None:
    spent = run.summary().simulated_time_s
    assert sum(spent.values()) == pytest.approx(run.metrics.totals.end_ns / 1e9)
    assert spent["idle"] > 0.01e-3 and spent["compute"] > spent["attention"] > 0
