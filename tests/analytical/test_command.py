"""The command line: what it prints, writes and imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import analytical_cases as cases
import pytest
from analytical_cases import COMPUTE, files, healthy

from analytical import __main__ as command
from analytical.output.timeline import timeline


def test_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(files(healthy(), tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    result = cases.backend(healthy()).simulate(cases.graph(healthy())).by_rank()
    for rank, (cycles, exposed) in result.items():
        assert (
            f"[workload] [info] sys[{rank}] finished, {cycles} cycles, exposed communication {exposed} cycles." in lines
        )
        assert f"[statistics] [info] sys[{rank}], Wall time: {cycles}" in lines
        assert f"[statistics] [info] sys[{rank}], GPU time: 5" in lines
        assert f"[statistics] [info] sys[{rank}], Comm time: {exposed}" in lines
    # Two chunks; each rank sends 6 messages of a quarter of a chunk each.
    sent = 2 * 4 * 6 * (4096 // 2 // 4)
    share = sent / (50 * 2**30 / 1e9 * 4 * result[0][0]) * 100
    assert lines[-1] == f"[network] [info] dimension 0 (Switch, 4 NPUs): {sent} bytes sent, utilisation {share:.3f}%"


def test_timeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The Chrome trace holds every node; loads in microseconds, exact ns in the arguments."""
    target = tmp_path / "timeline.json"
    assert command.main([*files(healthy(), tmp_path), "--timeline", str(target)]) == 0
    capsys.readouterr()
    events = [event for event in json.loads(target.read_text())["traceEvents"] if event["ph"] == "X"]
    expected = list(timeline(cases.backend(healthy()).events.run_step(cases.graph(healthy()))))
    assert len(events) == 8
    assert [
        (event["pid"], event["args"]["node"], event["args"]["start_ns"], event["args"]["end_ns"]) for event in events
    ] == [(one.rank, one.node_id, one.start_ns, one.end_ns) for one in expected]
    assert {one.track for one in expected} == {"comp", "comm"}
    assert all(event["dur"] * 1000 == event["args"]["end_ns"] - event["args"]["start_ns"] for event in events)


def test_a_stuck_rank_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    case = healthy()
    case["ranks"][3] = [dict(COMPUTE)]
    process = subprocess.run(
        [sys.executable, "-m", "analytical", *files(case, tmp_path)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 1
    assert process.stdout == ""
    assert process.stderr.startswith("error: deadlock: rank 0 waits in node 1 (COMM_COLL) over all ranks")
    assert process.stderr.count("\n") == 1


def test_flags_in_both_spellings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = files(healthy(), tmp_path)
    assert command.main([*arguments, "--num-queues-per-dim=2", "--rendezvous-protocol"]) == 0
    hyphens = capsys.readouterr().out
    assert command.main([*arguments, "--num_queues_per_dim=2", "--rendezvous_protocol=true"]) == 0
    assert capsys.readouterr().out == hyphens
    assert command.main(arguments) == 0
    assert capsys.readouterr().out != hyphens


def test_help_imports_nothing_heavy() -> None:
    """`--help` answers before numpy, YAML or protobuf are imported."""
    code = (
        "import sys\nfrom analytical.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'numpy', 'yaml', 'google.protobuf'} & set(sys.modules), sorted(sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "--rendezvous-protocol" in process.stdout
