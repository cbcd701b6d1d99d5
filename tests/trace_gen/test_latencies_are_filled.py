"""No performance model hands out memory that it did not write, whatever stood there before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_table_v0 import ATTENTION, small, table
from trace_cases import QWEN, batch, model

from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.mesh import Mesh
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.trace import OperatorClass

GARBAGE = 2**40


class Spied:
    """A performance model that keeps what it was asked and what it answered."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.vocabulary, self.latency_source = inner.vocabulary, inner.latency_source
        self.attention_granularity = inner.attention_granularity
        self.calls: list[tuple[Any, Any]] = []

    def latency_ns(self, operators: Any, *more: Any) -> Any:
        answer = self.inner.latency_ns(operators, *more)
        self.calls.append((operators, answer))
        return answer


def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fresh memory hold garbage, as it may at any time."""
    empty = np.empty

    def filled(*args: Any, **options: Any) -> Any:
        array = empty(*args, **options)
        array.fill(GARBAGE if array.dtype == np.int64 else 100)
        return array

    monkeypatch.setattr(np, "empty", filled)


@pytest.mark.parametrize("kind", ["table_v0", "roofline", "backend"])
def test_every_latency_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    architecture = small() if kind == "table_v0" else model(QWEN)
    device = load_hardware("RTX3090")
    settings = {"perf_table": table(tmp_path / "t.csv", ATTENTION)} if kind == "table_v0" else {}
    spied = Spied(make_perf_model(kind, PerfModelOptions(architecture, device, 4), **settings))
    expert = 1 if kind == "table_v0" else 4
    generator = TraceGenerator(architecture, Mesh(4, 1, expert), spied, attention_placement="requests")
    poison(monkeypatch)
    trace = generator.generate([batch([7, 1], [0, 30])])
    (operators, answer), *more = spied.calls
    assert not more and answer.shape == operators.flops.shape
    exchanges = operators.kinds == OperatorClass.COMMUNICATION
    assert exchanges.sum() >= 2, "the rows that nothing times are there"
    assert (answer[:, exchanges] == 1).all()
    assert ((answer >= 1) & (answer < 10**10)).all()
    assert (trace.latency_ns >= 0).all() and (trace.flops >= 0).all() and (trace.mem_bytes >= 0).all()
