"""Our own command behind a spool folder: one process for all graphs, and what a request can do to it."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_graphs import configuration, tensor_parallel
from stand_ins import ROOT, shell_script

from analytical.embedded import create
from external.astra_sim.adapt import adapt_configuration
from external.astra_sim.answering_process import COMMAND, AnsweringProcess
from external.astra_sim.backend import AstraSimBackend
from external.astra_sim.runner import RunFailedError
from external.astra_sim.spool import SpoolRunner


def starts_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Path]:
    """Our command, which notes each of its starts."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    starts = tmp_path / "starts"
    script = shell_script(tmp_path / "analytical", f"echo >> {starts}\nexec {shlex.join(COMMAND)}")
    return [str(script)], starts


def test_one_process_answers_request_after_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, starts = starts_counted(tmp_path, monkeypatch)
    used = AnsweringProcess(60, command)
    for _ in range(3):
        assert used.run(tmp_path, ["--help"]).stdout.startswith("usage: python -m analytical")
        wrong = used.run(tmp_path, ["--bogus"])
        assert (wrong.exit_code, wrong.stdout) == (2, "") and wrong.stderr.startswith("error: ")
        missing = used.run(tmp_path / "absent", [])
        assert missing.exit_code == 2 and "cannot be entered" in missing.stderr
    assert starts.read_text() == "\n"
    used.close()
    used.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("exit 3", r"it ended in mid-run: its answer is no line of at most 268435456 characters"),
        ("echo nonsense", r"it ended in mid-run: .*not valid JSON"),
        ("echo '{\"exit_code\": 0}'", r"it ended in mid-run: .*stdout is missing.*stderr is missing"),
        ("sleep 60", r"it hung: no end after 0\.5 s \(--backend_timeout sets the limit\)"),
    ],
)
def test_what_ends_it_costs_one_request(tmp_path: Path, answer: str, said: str) -> None:
    """The first process fails; the one after it answers."""
    once = tmp_path / "once"
    good = '{"exit_code": 0, "stdout": "out", "stderr": ""}'
    body = f"read -r line\nif mkdir {once} 2>/dev/null; then {answer}; exit; fi\necho '{good}'\nread -r line"
    used = AnsweringProcess(0.5, [str(shell_script(tmp_path / "command", body))])
    with pytest.raises(RunFailedError, match=said):
        used.run(tmp_path, [])
    assert used.run(tmp_path, []).stdout == "out"
    used.close()


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="it cannot be started: No such file or directory"):
        AnsweringProcess(1, [str(tmp_path / "absent")]).run(tmp_path, [])


@pytest.mark.parametrize("way", ["python", "shell"])
def test_a_spool_is_served_with_it(tmp_path: Path, way: str) -> None:
    """By default, and by the script where an image has no other command."""
    spool = tmp_path / "spool"
    command = [sys.executable, "-m", "external.astra_sim", "serve", "--spool_dir", str(spool)]
    folder, environment = ROOT, dict(os.environ)
    if way == "shell":
        spool.mkdir()
        bin_folder = tmp_path / "bin"
        bin_folder.mkdir()
        shell_script(bin_folder / "orrery-analytical", "exit 9")
        shell_script(bin_folder / "orrery-serve", f'exec {shlex.join(command[:-1])} "$1"')
        environment |= {"PATH": f"{bin_folder}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        environment.pop("ASTRA_SIM_BINARY", None)
        command, folder = ["sh", str(ROOT / "external" / "astra_sim" / "serve.sh"), "poll", str(spool)], tmp_path
    server = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    try:
        runner = SpoolRunner(spool, timeout_s=60, silence_s=60)
        used = AstraSimBackend(runner, adapt_configuration(**configuration()), flags={}, cache=None, jobs=1)
        graph = tensor_parallel(steps=5)
        assert used.simulate(graph).by_rank() == create(**configuration(), options={}).simulate(graph).by_rank()
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        assert len(children) == 1, "the process goes on"
        used.close()
    finally:
        server.terminate()
        server.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{children[0]}").exists():
        assert time.monotonic() < deadline, "it ends with the server"
        time.sleep(0.01)
