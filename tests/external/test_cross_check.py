"""Two backends on every graph: equal answers pass through, the first difference stops with both and the files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_graphs import configuration, pipeline, tensor_parallel

from analytical.embedded import create
from converters.chakra.graph_reader import read_graph
from converters.execution_graph import ExecutionGraph, IterationResult
from external.cross_check import CrossCheckedBackend
from foundation.errors import SimulationError


class Skewed:
    """The embedded backend, off by one in the exposed time of one rank from one step on; or failing."""

    def __init__(self, *, rank: int | None = None, step: int = 0, message: str | None = None) -> None:
        self.inner = create(**configuration(), options={})
        self.rank, self.step, self.message, self.closed = rank, step, message, False

    def simulate(self, graph: ExecutionGraph) -> IterationResult:
        if self.message is not None:
            raise SimulationError(self.message)
        answer = self.inner.simulate(graph)
        sets = tuple((rank,) for ranks in answer.rank_sets for rank in ranks)
        sizes = [len(ranks) for ranks in answer.rank_sets]
        finish, exposed = (np.repeat(table, sizes, axis=1) for table in (answer.finish_ns, answer.exposed_ns))
        if self.rank is not None:
            exposed[self.step :, sets.index((self.rank,))] += 1
        return IterationResult(sets, finish, exposed)

    def close(self) -> None:
        self.closed = True


def checked(first: Any, second: Any, tmp_path: Path) -> CrossCheckedBackend:
    files = {"network.yml": configuration()["network"]}
    return CrossCheckedBackend(first, second, names=("one", "two"), files=files, work_dir=str(tmp_path))


def test_equal_answers_pass_through_whatever_their_rank_sets(tmp_path: Path) -> None:
    class Grouped(Skewed):
        def simulate(self, graph: ExecutionGraph) -> IterationResult:
            answer = self.inner.simulate(graph)
            return IterationResult(((1, 0),), answer.finish_ns[:, :1], answer.exposed_ns[:, :1])  # all ranks are alike

    used = checked(Skewed(), Grouped(), tmp_path)
    graph = tensor_parallel(steps=3)
    answer = used.simulate(graph)
    assert np.array_equal(answer.finish_ns, Skewed().simulate(graph).finish_ns)
    assert used.statistics() == {"steps_cross_checked": 3}
    assert list(tmp_path.iterdir()) == []


def test_the_first_difference_stops_it(tmp_path: Path) -> None:
    used = checked(Skewed(), Skewed(rank=1, step=2), tmp_path / "made when needed")
    used.simulate(pipeline_without_difference())
    with pytest.raises(SimulationError) as info:
        used.simulate(tensor_parallel(steps=4))
    text = str(info.value)
    assert text.startswith("cross-check: iteration 4 differs: rank 1: one finished after ")
    assert "two after" in text
    kept = Path(text.rpartition(" kept in ")[2])
    assert read_graph(kept / "graph").rank_graphs[0].num_ops[0, 0] == 1000 * 1002 + 500
    assert (kept / "network.yml").read_text() == configuration()["network"]


def pipeline_without_difference() -> ExecutionGraph:
    """One step: the skew begins at step 2."""
    return pipeline()


def test_one_that_fails_alone_is_a_difference(tmp_path: Path) -> None:
    for pair, expected in (
        ((Skewed(), Skewed(message="boom")), "one answered; two boom"),
        ((Skewed(message="boom"), Skewed()), "one boom; two answered"),
    ):
        with pytest.raises(SimulationError, match=rf"cross-check: iteration 1: {expected}; inputs kept in"):
            checked(*pair, tmp_path).simulate(tensor_parallel())


def test_both_failing_is_agreement_and_the_firsts_error(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match=r"^mine$"):
        checked(Skewed(message="mine"), Skewed(message="theirs"), tmp_path).simulate(tensor_parallel())


def test_both_are_closed(tmp_path: Path) -> None:
    first, second = Skewed(), Skewed()
    checked(first, second, tmp_path).close()
    assert (first.closed, second.closed) == (True, True)
