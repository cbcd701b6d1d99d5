"""What observers make of iterations that are told in columns is what they make of the same batches, one by one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.reached import Reached, reaches
from hypothesis import strategies as st

from orchestrator import Observer, RunSpec, Simulation, Stop
from orchestrator.engine.iterations import Iterations
from orchestrator.engine.records import CompletedBatch
from orchestrator.observers.account import TimeRecorder
from orchestrator.observers.console import IntervalLines, IterationLines
from orchestrator.observers.files import ResultFiles
from orchestrator.observers.history import History
from orchestrator.observers.interface import FinishedRows, hears_iterations
from orchestrator.observers.intervals import Intervals
from orchestrator.observers.overload import OverloadWatch
from orchestrator.observers.progress import ProgressShown
from orchestrator.observers.requests import RequestRecorder
from orchestrator.request_source import RequestSource
from orchestrator.request_table import RequestTable
from orchestrator.requests.request import Request
from tests.orchestrator.as_iterations import RetellingCluster, Retold
from tests.orchestrator.serving import Run, requests, scheduler
from tests.orchestrator.test_stretches import again


class Everyone:
    """All that listens to a run, told to stop after some of it."""

    def __init__(self, arriving: Sequence[Request], classes: tuple[str, ...], interval_ns: int, most: int) -> None:
        table = RequestTable.of(sorted(arriving, key=lambda one: one.arrival_ns))
        self.recorder, self.time = RequestRecorder(keep_itl=True), TimeRecorder([classes])
        self.intervals, self.history = Intervals(interval_ns), History(most=most)
        self.overload = OverloadWatch(RequestSource("w", table, 0, len(table)))
        self.progress = ProgressShown(io.StringIO())
        self.all: tuple[Observer, ...] = (
            self.recorder, self.time, self.intervals, self.history, self.overload, self.progress,
        )  # fmt: skip

    def state(self) -> tuple[Any, ...]:
        """Return all that they found, once everything has been told."""
        rows, totals = self.recorder.hand_on(None), self.recorder.totals
        lists = [] if rows is None else [gaps.tolist() for gaps in rows.itl or ()]
        engines = self.history.engines
        history = {name: values.tolist() for one in engines.values() for name, values in one.columns().items()}
        spans = [[side.tolist() for side in span] for one in engines.values() for span in one.stage_spans()]
        unfinished = {name: values.tolist() for name, values in self.recorder.unfinished().items()}
        return (
            {name: values.tolist() for name, values in self.recorder.columns().items()}, lists, unfinished, totals,
            self.recorder.itl.distribution(), (self.recorder.kv_blocks, self.recorder.peak_kv_blocks),
            self.time.account(totals.end_ns), self.intervals.complete(), history, spans, self.history.kinds,
            self.history.batches, vars(self.overload), self.progress._state, self.progress._usage,
        )  # fmt: skip


POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("vllm", {}),
    ("vllm", {"max_num_batched_tokens": 16, "max_num_seqs": 4}),
    ("vllm", {"pipeline": 3, "max_num_batched_tokens": 32, "max_num_seqs": 6}),
    ("vllm", {"async_scheduling": "on"}),
    ("orca", {"max_batch": 4}),
    ("orca", {"max_batch": 4, "pipeline": 2}),
]
ROWS = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 60), st.sampled_from([0, 1, 3000, 20_000, 90_000])),
    min_size=1,
    max_size=14,
)


@pytest.mark.parametrize(("policy", "options"), POLICIES)
def test_columns_and_batches_say_the_same(policy: str, options: dict[str, Any]) -> None:
    @reaches(
        0.4, examples=40, rows=ROWS, blocks=st.integers(24, 80), interval=st.sampled_from([300, 5000, 100_000]),
        most=st.sampled_from([7, 10_000]), part=st.sampled_from([0.6, 1.0]), every=st.integers(1, 9),
    )  # fmt: skip
    def compare(
        reached: Reached, rows: list[tuple[int, int, int]], blocks: int, interval: int, most: int, part: float,
        every: int,
    ) -> None:  # fmt: skip
        arriving = requests(sorted(rows, key=lambda row: row[2]))
        stages = options.get("pipeline", 1)

        def batches_of(max_steps: int) -> list[CompletedBatch]:
            policies = scheduler(policy, blocks if policy == "vllm" else 4 * blocks, **options)
            return Run(policies, again(arriving), stages=stages, max_steps=max_steps).batches

        batches = batches_of(512)
        batches = batches[: int(part * len(batches))]
        steps = batches
        if stages > 1:  # what a pipeline tells late is in no order of which the first could be kept
            batches, steps, most = batches_of(512), batches_of(1), 10_000
        if any(done.batch.kv_loads or done.batch.kv_evictions for done in batches):
            return  # columns tell nothing of what is moved
        one, many = (Everyone(arriving, ("compute", "attention"), interval, most) for _ in range(2))
        for observer in one.all:
            for done in steps if observer is one.history else batches:
                observer.batch(done)
        retold = Retold(batches, itl=True)
        for told in retold.told(retold.cuts()[::every]):
            for observer in many.all:
                observer.iterations(told)
        expected = one.state()
        assert many.state() == expected
        if len(retold.steps) > 20 and len(retold.cuts()) > 5:
            reached()

    compare()


LINES = [(100, 8, 0), (40, 15, 1_000_000), (300, 6, 2_000_000), (7, 1, 30_000_000), (64, 16, 31_000_000)]
SPECS: list[dict[str, Any]] = [
    {},
    {"scheduling": "vllm", "num_gpu_blocks": 24, "block_size": 16},
    {"npu_num": 2, "npu_group": 2, "npu_mem": 80},
    {"instances": 2},
    {"itl": "none"},
]


def files(folder: Path, dataset: Path, given: dict[str, Any]) -> dict[str, bytes]:
    """Run, and return the files but for those with wall-clock times."""
    given = dict(given)
    itl = given.pop("itl", "list")
    spec = RunSpec.of(
        model_name="openai-community/gpt2", dataset=str(dataset), log_interval=0.005, backend="embedded", **given
    )
    output = folder / "out.csv"
    Simulation(spec, [ResultFiles(output, itl=itl, report=True)]).run()
    return {path.name: path.read_bytes() for path in folder.iterdir() if "simulation-time" not in path.name}


@pytest.mark.parametrize("given", SPECS)
def test_files_are_the_same_to_the_byte(given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = tmp_path / "few.tsv"
    dataset.write_text("".join("\t".join(map(str, row)) + "\n" for row in LINES * 3))
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    one = files(tmp_path / "one", dataset, given)
    monkeypatch.setattr("orchestrator.simulation.Cluster", RetellingCluster)
    monkeypatch.setattr(RetellingCluster, "itl", given.get("itl") != "none")
    many = files(tmp_path / "many", dataset, given)
    assert set(one) == set(many) and len(one) == 6
    assert [name for name in one if one[name] != many[name]] == []


def test_who_overrides_batches_only_cannot_be_told_of_iterations() -> None:
    class Batches(Observer):
        def batch(self, done: CompletedBatch) -> None:
            """Hear."""

    class Both(Batches):
        def iterations(self, told: Iterations) -> None:
            """Hear."""

    class Own(Both):
        def batch(self, done: CompletedBatch) -> None:
            """Hear something else."""

    files = ResultFiles(Path("out.csv"), itl=None, report=True)
    for heard in (Observer(), Both(), files, IntervalLines(io.StringIO()), ProgressShown(io.StringIO())):
        assert hears_iterations([heard])
    for deaf in (Batches(), Own(), IterationLines(io.StringIO(), several=False)):
        assert not hears_iterations([Both(), deaf])
    assert hears_iterations([])


def test_a_run_that_is_stopped_keeps_what_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Once(Observer):
        def finished(self, rows: FinishedRows) -> None:
            raise Stop("enough")

    dataset = tmp_path / "few.tsv"
    dataset.write_text("".join("\t".join(map(str, row)) + "\n" for row in [(10, 9, 0), (20, 30, 1000), (9, 60, 0)]))
    spec = RunSpec.of(model_name="openai-community/gpt2", dataset=str(dataset), log_interval=0.001)
    monkeypatch.setattr("orchestrator.simulation.Cluster", RetellingCluster)
    monkeypatch.setattr(RetellingCluster, "every", 1)
    result = Simulation(spec, [Once()]).run()
    done, left = result.columns["id"].tolist(), result.unfinished["id"].tolist()
    assert result.stopped == "enough" and done and left and not set(done) & set(left)
    assert (result.unfinished["end"] == -1).all() and (result.unfinished["output"] < 60).all()
