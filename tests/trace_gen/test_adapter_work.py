"""LoRA adapters by hand: parameters, what their kernels compute and move, and their shares on ranks."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trace_gen.trace_cases import LLAMA, MIXTRAL, model
from trace_gen.adapters import AdapterWork
from trace_gen.hardware import load_hardware
from trace_gen.mesh import Mesh
from trace_gen.perf_model import IntArray, OperatorTable, PerfModelOptions, make_perf_model
from trace_gen.precision import Precision

HIDDEN, KV, INNER = 4096, 1024, 14336
RANK = 16


class Told:
    """Takes as many nanoseconds as an operator has FLOPs, or bytes, in thousands."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.tables: list[OperatorTable] = []

    def __getattr__(self, name: str) -> object:
        raise AttributeError(name)

    def latency_ns(self, operators: OperatorTable) -> IntArray:
        self.tables.append(operators)
        values: IntArray = getattr(operators, self.column)
        return values


def work(column: str = "flops", mesh: Mesh | None = None, name: str = LLAMA) -> AdapterWork:
    told = Told(column)
    return AdapterWork(model(name), mesh or Mesh(), told, Precision(), RANK)  # type: ignore[arg-type]


def sides(tensor: int) -> list[tuple[int, list[int]]]:
    """Each input on one rank, and the projections of it."""
    return [
        (HIDDEN, [HIDDEN // tensor, KV // tensor, KV // tensor]),
        (HIDDEN // tensor, [HIDDEN]),
        (HIDDEN, [INNER // tensor] * 2),
        (INNER // tensor, [HIDDEN]),
    ]


def test_parameters_are_those_that_are_published() -> None:
    """Rank 16 on all linear layers of Llama-3-8B: 41,943,040 trainable parameters, as the field's notebooks print."""
    assert work().slot_bytes(0) == 2 * 41_943_040


@pytest.mark.parametrize("tensor", [1, 2, 8])
def test_slots_are_divided_on_one_side(tensor: int) -> None:
    layer = sum(RANK * (len(outputs) * inputs + sum(outputs)) for inputs, outputs in sides(tensor))
    assert work(mesh=Mesh(tensor)).slot_bytes(0) == 2 * 32 * layer


@pytest.mark.parametrize("tensor", [1, 4])
@pytest.mark.parametrize(("tokens", "adapters"), [(1, 1), (70, 3)])
def test_what_the_kernels_compute_and_move(tensor: int, tokens: int, adapters: int) -> None:
    flops = moved = 0
    for inputs, outputs in sides(tensor):
        inner, out = RANK * len(outputs), sum(outputs)
        flops += 2 * tokens * (inputs * inner + RANK * out)
        weights = adapters * 2 * (inputs * inner + RANK * out)
        moved += weights + 2 * tokens * inputs + 2 * 4 * tokens * inner + 2 * 2 * tokens * out
    assert work("flops", Mesh(tensor)).stage_ns(tokens, adapters).tolist() == [32 * flops]
    assert work("mem_bytes", Mesh(tensor)).stage_ns(tokens, adapters).tolist() == [32 * moved]


def test_stages_have_their_own_layers() -> None:
    whole, parts = work(), work(mesh=Mesh(1, 3))
    times = parts.stage_ns(5, 2).tolist()
    assert [time * 32 for time in times] == [layers * int(whole.stage_ns(5, 2)[0]) for layers in (11, 11, 10)]
    assert sum(parts.slot_bytes(stage) for stage in range(3)) == whole.slot_bytes(0)


def test_experts_are_not_adapted() -> None:
    layer = RANK * (3 * HIDDEN + HIDDEN + 2 * KV + 2 * HIDDEN)
    assert work(name=MIXTRAL).slot_bytes(0) == 2 * 32 * layer


def test_nobody_has_an_adapter() -> None:
    assert work(mesh=Mesh(1, 2)).stage_ns(0, 0).tolist() == [0, 0]


def test_more_adapters_read_more_and_the_roofline_says_so() -> None:
    options = PerfModelOptions(architecture=model(), hardware=load_hardware("H100"))
    timed = AdapterWork(model(), Mesh(), make_perf_model("roofline", options), Precision(), RANK)
    one, four, long = (int(timed.stage_ns(*batch)[0]) for batch in ((64, 1), (64, 4), (6400, 4)))
    assert one < four < long
    assert one > 32 * 8 * 1000, "eight kernels a layer, each with its overhead"
    assert np.array_equal(timed.stage_ns(64, 1), [one]), "asked again"
