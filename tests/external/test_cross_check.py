"""Two backends on every graph: equal answers pass through, the first difference stops with both and the files."""

import resource
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
    """The embedded backend, off by one in one of the two times of some ranks from one step on; or failing."""

    def __init__(
        self, *ranks: int, time: str = "exposed", step: int = 0, message: str | None = None, npus: int = 2
    ) -> None:
        self.inner = create(**configuration(npus), options={})
        self.ranks, self.time, self.step, self.message, self.closed = ranks, time, step, message, False

    def simulate(self, graph: ExecutionGraph) -> IterationResult:
        if self.message is not None:
            raise SimulationError(self.message)
        answer = self.inner.simulate(graph)
        sets = tuple((rank,) for ranks in answer.rank_sets for rank in ranks)
        sizes = [len(ranks) for ranks in answer.rank_sets]
        finish, exposed = (np.repeat(table, sizes, axis=1) for table in (answer.finish_ns, answer.exposed_ns))
        for rank in self.ranks:
            {"finish": finish, "exposed": exposed}[self.time][self.step :, sets.index((rank,))] += 1
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


@pytest.mark.parametrize("time", ["finish", "exposed"])
def test_the_first_difference_stops_it(time: str, tmp_path: Path) -> None:
    """Either of the two times alone is a difference."""
    used = checked(Skewed(), Skewed(1, time=time, step=2), tmp_path / "made when needed")
    used.simulate(pipeline_without_difference())
    graph = tensor_parallel(steps=4)
    right = Skewed().simulate(graph)
    finish, exposed = int(right.finish_ns[2, 0]), int(right.exposed_ns[2, 0])
    with pytest.raises(SimulationError) as info:
        used.simulate(graph)
    kept = Path(str(info.value).rpartition(" kept in ")[2])
    assert str(info.value) == (
        f"cross-check: iteration 4 differs: rank 1: one finished after {finish} ns (exposed {exposed}), two after "
        f"{finish + (time == 'finish')} ns (exposed {exposed + (time == 'exposed')}); inputs kept in {kept}"
    )
    assert kept.parent == tmp_path / "made when needed"
    assert read_graph(kept / "graph").rank_graphs[0].num_ops[0, 0] == 1000 * 1002 + 500
    assert (kept / "network.yml").read_text() == configuration()["network"]


@pytest.mark.parametrize(("differ", "rest"), [(4, ""), (6, " and 2 more ranks")])
def test_of_many_ranks_that_differ_some_are_shown(differ: int, rest: str, tmp_path: Path) -> None:
    used = checked(Skewed(npus=8), Skewed(*range(differ), time="finish", npus=8), tmp_path)
    with pytest.raises(
        SimulationError, match=r"differs: rank 0: .*, rank 3: one [^,]*, two [^,]*\(exposed \d+\)" + rest + ";"
    ):
        used.simulate(tensor_parallel(ranks=8))


def test_a_full_disk_takes_nothing_from_the_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SimulationError, match=r"differs: rank 1: .*; inputs kept in no folder \(.+\)$"):
        checked(Skewed(), Skewed(1), tmp_path / "file" / "folder").simulate(tensor_parallel())


def test_a_disk_that_fills_up_takes_nothing_from_it_either(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        with pytest.raises(
            SimulationError, match=r"differs: rank 1: .*; inputs kept in no folder \(cannot write: .+\)$"
        ):
            checked(Skewed(), Skewed(1), tmp_path).simulate(tensor_parallel())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_rank_that_only_one_answers_is_a_difference(tmp_path: Path) -> None:
    class Partial(Skewed):
        def simulate(self, graph: ExecutionGraph) -> IterationResult:
            answer = super().simulate(graph)
            return IterationResult(answer.rank_sets[:1], answer.finish_ns[:, :1], answer.exposed_ns[:, :1])

    with pytest.raises(SimulationError, match=r"differs: rank 1: one finished after \d+ ns .*, two after -1 ns"):
        checked(Skewed(), Partial(), tmp_path).simulate(tensor_parallel())


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
