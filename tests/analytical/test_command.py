"""The command line: what it prints, writes and imports."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import analytical_cases as cases
import pytest
from analytical_cases import COMPUTE, files, healthy

from analytical import __main__ as command
from analytical.command import Simulator, read_machine
from analytical.command_line import read_command
from analytical.machine.options import Options
from analytical.output.timeline import timeline
from foundation.commands import run_command


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


def test_a_run_looks_for_no_garbage_in_cycles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes none, and the process ends with it."""
    collects = []
    monkeypatch.setattr(Simulator, "run", lambda *_: collects.append(gc.isenabled()))
    try:
        assert command.main(files(healthy(), tmp_path)) == 0
    finally:
        gc.enable()
    assert collects == [False]


def wrong(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a wrong command line: one line, exit code 2, nothing on standard output."""
    assert run_command(lambda: command.main(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err.removeprefix("error: ").rstrip("\n")


def test_all_missing_files_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("workload", "system", "remote_memory", "network")
    told = "; ".join(f"--{name}_configuration: is missing; name the file" for name in names)
    assert wrong([], capsys) == told
    assert wrong(["--network-configuration=x"], capsys) == told.rpartition("; --network")[0]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--conjestion=aware"], "--conjestion: unknown flag; did you mean --congestion"),
        (["--congestion=some"], '--congestion: unknown "some"; known: aware, unaware'),
        (["--num-queues-per-dim=0"], "--num-queues-per-dim: '0' is not a whole number from 1 to 1024"),
        (["--num-queues-per-dim"], "--num-queues-per-dim: its value is missing; give a whole number from 1 to 1024"),
        (["--injection-scale=-1"], "--injection-scale: "),
        (["--injection-scale=nan"], "--injection-scale: "),
        (["--rendezvous-protocol=perhaps"], '--rendezvous-protocol: unknown "perhaps"; known: 0, 1, f, false, t, true'),
        (["--metadata=keep"], '--metadata: unknown "keep"; did you mean skip?'),
        (["trace"], '"trace" belongs to no flag; flags begin with --; see --help'),
    ],
)
def test_wrong_flags_are_one_line(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wrong([*files(healthy(), tmp_path), *flags], capsys).startswith(said)


def test_wrong_files_are_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, where a simulation that cannot be completed has 1; a pipe is not waited for."""
    arguments = files(healthy(), tmp_path)
    (tmp_path / "network.yml").unlink()
    os.mkfifo(tmp_path / "network.yml")
    path = tmp_path / "network.yml"
    assert (
        wrong(arguments, capsys)
        == f"{path}: the network configuration cannot be read: it is a pipe; name an ordinary file"
    )
    zero = [argument.replace(str(tmp_path / "system.json"), "/dev/zero") for argument in arguments]
    assert wrong(zero, capsys).startswith("/dev/zero: the system configuration cannot be read: it is a device")


@pytest.mark.parametrize(
    ("flags", "on"),
    [
        ([], False),
        (["--rendezvous-protocol"], True),
        (["--rendezvous-protocol", "false"], False),
        (["--rendezvous-protocol", "false", "--congestion=aware"], False),
        (["--rendezvous_protocol", "True"], True),
        (["--rendezvous-protocol=1"], True),
        (["--rendezvous-protocol=f"], False),
        (["--rendezvous-protocol", "--congestion=aware"], True),
    ],
)
def test_a_switch_as_astra_sim_takes_it(flags: list[str], on: bool, tmp_path: Path) -> None:
    assert read_machine(read_command([*files(healthy(), tmp_path), *flags])).options.rendezvous_protocol is on


def test_every_option_is_read(tmp_path: Path) -> None:
    flags = ["--congestion=aware", "--num-queues-per-dim=3", "--injection-scale=2.5", "--metadata=skip"]
    ignored = ["--logging-configuration=x", "--logging-folder=y", "--comm-scale=2", "--compute-scale=3"]
    machine = read_machine(read_command([*files(healthy(), tmp_path), *flags, *ignored]))
    assert machine.options == Options(True, 3, 2.5, False, True)
    assert read_machine(read_command(files(healthy(), tmp_path))).options == Options(False, 1, 1.0, False, False)


def test_help_imports_nothing_heavy() -> None:
    """`--help` answers before numpy, YAML or protobuf are imported."""
    code = (
        "import sys\nfrom analytical.__main__ import main\n"
        "main(['--help'])\n"
        "assert not {'numpy', 'yaml', 'google.protobuf'} & set(sys.modules), sorted(sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "--rendezvous_protocol" in process.stdout
