"""The binary as a process: its answers, and every way in which it can fail, really done."""

import errno
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from small_graphs import collective, compute, configuration, rank_graph, tensor_parallel
from stand_ins import FAILURES, analytical, good, runs, shell_script

from analytical.embedded import create
from converters.chakra.graph_reader import read_graph
from converters.execution_graph import ExecutionGraph
from external.astra_sim.backend import AstraSimBackend
from external.astra_sim.factories import create_process
from external.astra_sim.process import _Drain, make_work_folder
from foundation.errors import SimulationError, UserError


def backend(binary: Path, tmp_path: Path, **options: Any) -> AstraSimBackend:
    given = {"astra_sim": str(binary), "work_dir": str(tmp_path / "work"), "no_cache": "1"}
    return create_process(**configuration(), options=given | {name: str(value) for name, value in options.items()})


def test_each_step_is_a_run_and_its_cycles_are_the_answer(tmp_path: Path) -> None:
    binary = good(tmp_path / "binary")
    used = backend(binary, tmp_path)
    answer = used.simulate(tensor_parallel(steps=5))
    assert answer.by_rank() == {0: (1000, 0), 1: (1001, 1)}
    assert answer.finish_ns.shape == (5, 2)
    assert runs(binary) == 5
    assert used.statistics() == {"steps": 5, "cache_hits": 0, "runs": 5}
    used.close()
    assert list((tmp_path / "work").iterdir()) == []


def test_steps_run_side_by_side_come_back_in_order(tmp_path: Path) -> None:
    graph, binary = tensor_parallel(steps=3), analytical(tmp_path / "binary")
    answers = []
    for jobs in (1, 3):
        used = backend(binary, tmp_path, backend_jobs=jobs)
        answers.append(used.simulate(graph).finish_ns.tolist())
        used.close()
    assert answers[0] == answers[1]
    assert sorted(answers[0]) == answers[0]
    assert len({tuple(step) for step in answers[0]}) == 3


def test_the_earliest_end_that_can_be_is_taken(tmp_path: Path) -> None:
    """1 ns where the first node computes; 0 where it may end at once, for which the graph is given 1 ns more."""
    for cycles, first, expected in ((1, compute(1), 1), (2, compute(1), 2), (1, collective(0, 64), 0)):
        line = f'echo "sys[$r] finished, {cycles} cycles, exposed communication 0 cycles."'
        used = backend(shell_script(tmp_path / f"b{cycles}", f"for r in 0 1; do {line}; done"), tmp_path)
        graph = ExecutionGraph([rank_graph((0, 1), [first])])
        assert used.simulate(graph).finish_ns.tolist() == [[expected]]
        used.close()


def test_communicator_groups_reach_the_binary(tmp_path: Path) -> None:
    """Two pairs of four ranks reduce among themselves, one later than the other."""
    pairs = [
        rank_graph(ranks, [compute(ns), collective(0, 1 << 16, comm_group=group), compute(5)])
        for group, (ranks, ns) in enumerate((((0, 1), 700), ((2, 3), 900)), 1)
    ]
    graph = ExecutionGraph(pairs, {1: (0, 1), 2: (2, 3)})
    files = {**configuration(4)}
    binary = analytical(tmp_path / "binary")
    used = create_process(**files, options={"astra_sim": str(binary), "work_dir": str(tmp_path), "no_cache": "1"})
    found = used.simulate(graph).by_rank()
    used.close()
    assert found == create(**files, options={}).simulate(graph).by_rank()
    assert found[2][0] - found[0][0] == 200


def test_no_worker_outlives_its_backend(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    used = backend(good(tmp_path / "binary"), tmp_path, backend_jobs=3)
    used.simulate(tensor_parallel(steps=4))
    assert set(threading.enumerate()) - before
    used.close()
    assert not set(threading.enumerate()) - before


@pytest.mark.parametrize("kind", FAILURES)
def test_failures_name_the_iteration_and_keep_the_inputs(kind: str, tmp_path: Path) -> None:
    body, message = FAILURES[kind]
    used = backend(shell_script(tmp_path / "binary", body), tmp_path, backend_timeout=0.5 if kind == "hangs" else 60)
    started = time.monotonic()
    with pytest.raises(
        SimulationError, match=rf"^iteration 1: .*binary: .*({message}).*; its inputs are kept in "
    ) as info:
        used.simulate(tensor_parallel())
    assert time.monotonic() - started < 30
    used.close()
    kept = Path(str(info.value).rpartition(" kept in ")[2])
    assert read_graph(kept / "graph").num_ranks == 2
    assert {"network.yml", "system.json", "memory.json", "command"} <= {path.name for path in kept.iterdir()}


def test_the_kept_folder_repeats_the_failure_by_hand(tmp_path: Path) -> None:
    used = backend(shell_script(tmp_path / "binary", 'echo "$@" > seen; exit 9'), tmp_path)
    with pytest.raises(SimulationError) as info:
        used.simulate(tensor_parallel())
    used.close()
    kept = Path(str(info.value).rpartition(" kept in ")[2])
    first = (kept / "seen").read_text()
    (kept / "seen").unlink()
    assert subprocess.run(["sh", "./command"], cwd=kept, check=False).returncode == 9
    assert (kept / "seen").read_text() == first


def test_the_iteration_counts_over_graphs_and_steps(tmp_path: Path) -> None:
    fine = good(tmp_path / "g").read_text()
    binary = shell_script(tmp_path / "binary", f"[ -e {tmp_path}/broken ] && exit 1\n{fine}")
    used = backend(binary, tmp_path, backend_jobs=1)
    used.simulate(tensor_parallel(steps=3))
    used.simulate(tensor_parallel())
    (tmp_path / "broken").touch()
    with pytest.raises(SimulationError, match=r"^iteration 5: "):
        used.simulate(tensor_parallel(steps=2))
    used.close()


def test_a_hanging_binary_is_ended_with_its_children(tmp_path: Path) -> None:
    binary = shell_script(tmp_path / "binary", f"sleep 61 & echo $! > {tmp_path}/child; wait")
    used = backend(binary, tmp_path, backend_timeout=0.5)
    with pytest.raises(SimulationError, match=r"it hung"):
        used.simulate(tensor_parallel())
    used.close()
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    deadline = time.monotonic() + 10
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"


def test_both_streams_are_drained(tmp_path: Path) -> None:
    loud = "head -c 200000 /dev/zero | tr '\\0' x"
    fine = good(tmp_path / "g").read_text()
    binary = shell_script(tmp_path / "binary", f"{loud}\n{loud} >&2\necho\n{fine}")
    used = backend(binary, tmp_path, backend_timeout=60)
    assert used.simulate(tensor_parallel()).by_rank()[0] == (1000, 0)
    used.close()


def test_a_missing_binary_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORRERY_ASTRA_SIM", raising=False)
    with pytest.raises(UserError, match=r"no ASTRA-sim binary is named; .*--astra_sim PATH or ORRERY_ASTRA_SIM"):
        create_process(**configuration(), options={})
    with pytest.raises(UserError, match=r"--astra_sim: the ASTRA-sim binary /nowhere/x does not exist"):
        create_process(**configuration(), options={"astra_sim": "/nowhere/x"})
    monkeypatch.setenv("ORRERY_ASTRA_SIM", "/nowhere/y")
    with pytest.raises(UserError, match=r"ORRERY_ASTRA_SIM: the ASTRA-sim binary /nowhere/y does not exist"):
        create_process(**configuration(), options={})


def test_a_file_that_cannot_be_executed(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    with pytest.raises(UserError, match=rf"cannot be executed; chmod \+x {plain}"):
        backend(plain, tmp_path)
    with pytest.raises(UserError, match=r"is not a file; name the binary itself"):
        backend(tmp_path, tmp_path)
    plain.chmod(0o755)  # executable by its mode, but nothing the system can start
    plain.write_bytes(b"\x7fELF nonsense")
    used = backend(plain, tmp_path)
    with pytest.raises(SimulationError, match=r"iteration 1: .*it cannot be started: Exec format error"):
        used.simulate(tensor_parallel())
    used.close()


def test_a_folder_of_a_build_is_enough(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    good(tmp_path / "bin" / "AstraSim_Analytical_Congestion_Unaware")
    used = backend(tmp_path, tmp_path)
    assert used.description.endswith("bin/AstraSim_Analytical_Congestion_Unaware")
    used.close()


def test_an_unwritable_folder_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--work_dir: cannot make a folder for the graphs: .*name a folder"):
        backend(good(tmp_path / "binary"), tmp_path, work_dir=tmp_path / "file" / "inside")


def test_a_full_disk_is_loud(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", small], check=False).returncode:
        pytest.skip("only root can mount a file system of 16 KiB")
    try:
        used = backend(good(tmp_path / "binary"), tmp_path, work_dir=small)
        big = ExecutionGraph([rank_graph((0, 1), [{"type": 4, "ns": 5}] * 2000)])
        with pytest.raises(SimulationError, match=r"iteration 1: .*cannot be written: No space left on device .*"):
            used.simulate(big)
        used.close()
    finally:
        subprocess.run(["umount", small], check=True)


def test_options_are_checked(tmp_path: Path) -> None:
    binary = good(tmp_path / "binary")
    wrong = {
        "backend_timeout": ("soon", "-1", "0", "1_0", "1e300", "inf"),
        "backend_jobs": ("0", "-1", "1.5", "²", "1025"),
    }
    for name, value in [(name, value) for name, values in wrong.items() for value in values]:
        with pytest.raises(UserError, match=rf"--{name}"):
            backend(binary, tmp_path, **{name: value})
    assert not (tmp_path / "work").exists()
    backend(binary, tmp_path, backend_timeout="1e6", backend_jobs="1024").close()


def test_the_binarys_own_flags_reach_it(tmp_path: Path) -> None:
    fine = good(tmp_path / "g").read_text()
    binary = shell_script(tmp_path / "binary", f'printf "%s\\n" "$@" > {tmp_path}/seen\n{fine}')
    used = backend(binary, tmp_path, num_queues_per_dim=2, rendezvous_protocol="true")
    used.simulate(tensor_parallel())
    used.close()
    seen = (tmp_path / "seen").read_text().splitlines()
    assert {"--num-queues-per-dim=2", "--rendezvous-protocol=true", "--workload-configuration=graph"} <= set(seen)
    assert not any("empty" in argument for argument in seen)


@pytest.mark.parametrize("given", [None, "own"])
def test_where_no_folder_can_be_made_is_named(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    parent = str(tmp_path / given) if given else None
    with pytest.raises(UserError, match="cannot make a folder for the graphs: No space left on device") as caught:
        make_work_folder(parent)
    assert str(caught.value.path) == (parent or tempfile.gettempdir())


def test_what_a_program_prints_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    drain = _Drain(os.fdopen(reading, "rb"), lambda: None)

    def speak() -> None:
        for words in (b"first ", b"then ", b"at last"):
            time.sleep(0.1)
            os.write(writing, words)
        os.close(writing)

    threading.Thread(target=speak).start()
    assert drain.text() == "first then at last"
