"""Where wall-clock time goes: what components take adds up, and the rest has a name of its own."""

from __future__ import annotations

import pytest

from orchestrator.stopwatch import Stopwatch


def test_components_and_what_none_of_them_took(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0, 1_000_000, 3_000_000, 10_000_000, 14_500_000, 20_000_000, 21_000_000, 100_000_000])
    monkeypatch.setattr("orchestrator.stopwatch.perf_counter_ns", lambda: next(moments))
    watch = Stopwatch()
    with watch.measure("traces"):
        pass
    with watch.measure("backend"):
        pass
    with pytest.raises(KeyError), watch.measure("traces"):
        raise KeyError
    expected = {"traces": 2 + 1.0, "backend": 4.5, "scheduling and metrics": 100 - 7.5, "total": 100}
    assert watch.milliseconds() == pytest.approx(expected)
