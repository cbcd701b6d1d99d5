"""What a simulation says: ASTRA-sim's lines and statistics worked out by hand, the network's, and timelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import analytical_cases as cases
import pytest
from analytical_cases import COMPUTE, Node, files, healthy
from changes import add_all, both, change, dimensions, every

from analytical import __main__ as command
from analytical import command as doing
from analytical.output.report import network_lines, report
from analytical.output.timeline import timeline
from astra_files.network import NetworkConfig
from converters.trace_events import write_timeline


def lines(case: cases.Description) -> list[str]:
    """The report of a case, run message by message."""
    return list(report(cases.backend(case).events.run_step(cases.graph(case), solve=False)))


def alone(nodes: list[Node], **system: Any) -> cases.Description:
    """One NPU and its nodes."""
    case = healthy()
    case["network"]["npus_count"] = [1]
    case["system"] |= {name.replace("_", "-"): value for name, value in system.items()}
    case["ranks"] = [nodes]
    return case


def test_the_averages_of_the_roofline() -> None:
    """Two nodes: 2 us at the compute peak, and 4 us at the memory's bandwidth with half the peak's work."""
    nodes: list[Node] = [
        {"id": 0, "type": "COMP", "num_ops": 2_000_000, "tensor_size": 100_000},
        {"id": 1, "type": "COMP", "num_ops": 2_000_000, "tensor_size": 800_000, "deps": [0]},
    ]
    total = 2_000 + 4_000 + 1
    intensity = (20 * 2_000 + 2.5 * 4_000) / total
    assert lines(alone(nodes, peak_perf=1, local_mem_bw=200)) == [
        "[workload] [info] sys[0] finished, 6000 cycles, exposed communication 0 cycles.",
        "[statistics] [info] sys[0], Wall time: 6000",
        "[statistics] [info] sys[0], GPU time: 6000",
        f"[statistics] [info] sys[0], Compute bound percentage: {2_000 / total * 100:.3f}%",
        f"[statistics] [info] sys[0], Average compute utilization: {(2_000 + 4_000 / 2) / total * 100:.3f}%",
        f"[statistics] [info] sys[0], Average memory utilization: {(2_000 / 4 + 4_000) / total * 100:.3f}%",
        f"[statistics] [info] sys[0], Average operation intensity: {intensity:.3f}",
    ]


def test_times_by_type_are_unions_of_intervals() -> None:
    """A rank of all types: GPU 0 to 5 us and 9 to 11, CPU 5 to 9, memory 0 to 3.1 and 11 to 14.1."""
    nodes: list[Node] = [
        {"id": 0, "type": "COMP", "duration_us": 5},
        {"id": 1, "type": "MEM_LOAD", "tensor_size": 75_000},
        {"id": 2, "type": "COMP", "is_cpu_op": True, "duration_us": 4, "deps": [0]},
        {"id": 3, "type": "COMP", "duration_us": 2, "deps": [2]},
        {"id": 4, "type": "MEM_STORE", "tensor_size": 75_000, "deps": [3]},
        {"id": 5, "type": "INVALID", "deps": [0]},
    ]
    assert lines(alone(nodes, roofline_enabled=0)) == [
        "[workload] [info] sys[0] finished, 14100 cycles, exposed communication 7100 cycles.",
        "[statistics] [info] sys[0], Wall time: 14100",
        "[statistics] [info] sys[0], GPU time: 7000",
        "[statistics] [info] sys[0], CPU time: 4000",
        "[statistics] [info] sys[0], Remote mem time: 6200",
        "[statistics] [info] sys[0], Invalid time: 0",
    ]


def test_compute_overlaps_communication() -> None:
    """20 us of compute beside an all-reduce: what is under both counts as overlap."""
    case = healthy()
    every({**COMPUTE, "num_ops": 20_000_500}, {**case["ranks"][0][1], "deps": []})(case)
    time = cases.backend(case).simulate(cases.graph(case)).by_rank()[0][0]
    assert time == 20_000
    comm = next(line for line in lines(case) if "sys[2], Comm time" in line).rpartition(" ")[2]
    assert 0 < int(comm) < time
    assert f"[statistics] [info] sys[2], Total compute-communication overlap: {comm}" in lines(case)


def test_nothing_overlaps_in_a_chain() -> None:
    assert not any("overlap" in line for line in lines(healthy()))


def test_replayed_nodes_of_all_slots_count_as_gpu_time() -> None:
    """More than the cycles: ASTRA-sim prints the difference as 64 bits unsigned; in Python it is below zero."""
    nodes: list[Node] = [
        {"id": 0, "type": "COMP", "duration_us": 3},
        {"id": 1, "type": "MEM_LOAD", "duration_us": 2},
    ]
    case = alone(nodes, replay_only=1)
    assert cases.backend(case).simulate(cases.graph(case)).by_rank() == {0: (3000, -2000)}
    assert f"finished, 3000 cycles, exposed communication {2**64 - 2000} cycles." in lines(case)[0]


def test_every_dimension_says_what_it_carried() -> None:
    case = healthy()
    both(dimensions(2, 4), change("system/collective-optimization", "baseline"))(case)
    case["network"]["bandwidth"] = [50, 25]
    case["network"]["topology"] = ["Ring", "FullyConnected"]
    said = lines(case)
    wall = cases.backend(case).simulate(cases.graph(case)).makespan_ns[0]
    # 2 chunks of 2048 bytes: on each dimension of n NPUs 2(n - 1) messages of an n-th, from each of 8 ranks.
    first, second = 8 * 2 * 2 * 1024, 8 * 2 * 6 * 512
    share = [100 * sent / (gb * 2**30 / 1e9 * 8 * wall) for sent, gb in ((first, 50), (second, 25))]
    assert said[-2:] == [
        f"[network] [info] dimension 0 (Ring, 2 NPUs): {first} bytes sent, utilisation {share[0]:.3f}%",
        f"[network] [info] dimension 1 (FullyConnected, 4 NPUs): {second} bytes sent, utilisation {share[1]:.3f}%",
    ]


def test_no_time_is_no_utilisation() -> None:
    network = NetworkConfig(("Ring",), (4,), (50.0,), (1.0,))
    said = "[network] [info] dimension 0 (Ring, 4 NPUs): 7 bytes sent, utilisation 0.000%"
    assert list(network_lines(network, [7], 0)) == [said]


def test_ranks_stand_in_the_order_in_which_they_finish() -> None:
    case = healthy()
    for rank, nodes in enumerate(case["ranks"]):
        nodes.append({**COMPUTE, "id": 5, "deps": [1], "num_ops": 1000 * (10 - rank) + 500})
    finished = [line for line in lines(case) if " finished, " in line]
    assert [line.split("]")[2].removeprefix(" sys[") for line in finished] == ["3", "2", "1", "0"]


def test_a_timeline_is_a_chrome_trace(tmp_path: Path) -> None:
    """A process a rank, a thread a slot, times in microseconds and exact ns in the arguments."""
    nodes: list[Node] = [
        {"id": 4, "type": "COMP", "duration_us": 2, "name": "first"},
        {"id": 2, "type": "COMP", "is_cpu_op": True, "duration_us": 3},
        {"id": 7, "type": "MEM_LOAD", "tensor_size": 60, "deps": [2, 4]},
    ]
    case = alone(nodes, roofline_enabled=0)
    simulation = cases.backend(case).events.run_step(cases.graph(case))
    write_timeline(tmp_path / "out.json", len(simulation.rank_runs), timeline(simulation))
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["displayTimeUnit"] == "ns"

    def label(kind: str, thread: int, name: str) -> dict[str, Any]:
        return {"ph": "M", "name": kind, "pid": 0, "tid": thread, "args": {"name": name}}

    def event(thread: int, track: str, name: str, node: int, start: int, end: int) -> dict[str, Any]:
        exact = {"node": node, "start_ns": start, "end_ns": end}
        times = {"ts": start / 1000, "dur": (end - start) / 1000}
        return {"ph": "X", "name": name, "cat": track, "pid": 0, "tid": thread, **times, "args": exact}

    assert written["traceEvents"] == [
        label("process_name", 0, "rank 0"),
        label("thread_name", 0, "cpu"),
        label("thread_name", 1, "comp"),
        label("thread_name", 2, "comm"),
        label("thread_name", 3, "recv"),
        event(0, "cpu", "COMP", 2, 0, 3000),
        event(1, "comp", "first", 4, 0, 2000),
        event(2, "comm", "MEM_LOAD", 7, 3000, 3102),
    ]
    assert (tmp_path / "out.json").read_text().count("\n") == 2 + 8 + 1
    assert [one.track for one in timeline(simulation)] == ["cpu", "comp", "comm"]


@pytest.fixture
def by_chains(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the command reported a graph as chains, a call each."""
    taken: list[bool] = []
    ask = doing._by_chains

    def watch(*arguments: Any) -> Any:
        found = ask(*arguments)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(doing, "_by_chains", watch)
    return taken


def test_large_graphs_are_reported_as_chains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, by_chains: list[bool]
) -> None:
    """From one node more than the limit on, unless a timeline is asked for; the lines are the same."""
    arguments = files(healthy(), tmp_path)
    monkeypatch.setattr(doing, "NODES_WORTH_IT", 8)
    assert command.main(arguments) == 0
    usual = capsys.readouterr().out
    assert by_chains == []
    monkeypatch.setattr(doing, "NODES_WORTH_IT", 7)
    assert command.main([*arguments, "--timeline", str(tmp_path / "t.json")]) == 0
    assert by_chains == [] and capsys.readouterr().out == usual
    assert command.main(arguments) == 0
    assert by_chains == [True]
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(usual.splitlines())


def test_large_graphs_that_are_no_chains_are_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, by_chains: list[bool]
) -> None:
    case = healthy()
    add_all({**COMPUTE, "id": 6, "deps": []})(case)
    arguments = files(case, tmp_path)
    assert command.main(arguments) == 0
    usual = capsys.readouterr().out
    monkeypatch.setattr(doing, "NODES_WORTH_IT", 0)
    assert command.main(arguments) == 0
    assert by_chains == [False] and capsys.readouterr().out == usual


@pytest.mark.parametrize(("worth_it", "bus", "expected"), [(140, 0, [False]), (139, 1, [None]), (139, 0, [])])
def test_many_messages_are_solved_as_phases_or_by_actors(
    worth_it: int, bus: int, expected: list[bool | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 ranks of 3 nodes, of which two are collectives in 2 chunks over 4 members: about 4 * (3 + 2 * 2 * 4 * 2).

    A shared bus is not for actors.
    """
    case = healthy()
    case["system"]["model-shared-bus"] = bus
    case["groups"] = {"1": [0, 1, 2, 3]}
    add_all({**case["ranks"][0][1], "id": 5, "group": 1})(case)
    arguments = files(case, tmp_path)
    asked: list[bool | None] = []
    run = doing.EventRunner.run_step

    def watch(self: doing.EventRunner, graph: Any, step: int = 0, *, solve: bool | None = None) -> Any:
        asked.append(solve)
        return run(self, graph, step, solve=solve)

    monkeypatch.setattr(doing.EventRunner, "run_step", watch)
    monkeypatch.setattr(doing, "MESSAGES_WORTH_IT", worth_it)
    groups = tmp_path / "groups.json"
    groups.write_text('{"1": [0, 1, 2, 3]}')
    assert command.main([*arguments, f"--comm-group-configuration={groups}"]) == 0
    assert asked == expected
