"""The commands as a user runs them: check, serve, and the main job on a backend that breaks in mid-run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from stand_ins import FINISHED, ROOT, analytical, good, shell_script

from converters.execution_graph import ExecutionGraph, IterationResult
from external.astra_sim import check

JOB = ["main.py", "--npu_num", "1", "--backend", "astra-sim", "--no_cache", "--backend_jobs", "1"]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "ORRERY_ASTRA_SIM"} | environment
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, check=False
    )


def test_check_finds_the_binary_and_its_variant(tmp_path: Path) -> None:
    binary = analytical(tmp_path / "binary")
    done = run("-m", "external.astra_sim", "check", ORRERY_ASTRA_SIM=str(binary))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"found: {binary}" in done.stdout
    assert "variant: congestion-unaware: the embedded backend gives the same" in done.stdout


def test_check_tells_the_congestion_aware_variant(tmp_path: Path) -> None:
    aware = f'PYTHONPATH={ROOT} exec {sys.executable} -m analytical --congestion aware "$@"'
    done = run("-m", "external.astra_sim", "check", "--astra_sim", shell_script(tmp_path / "binary", aware))
    assert (done.returncode, done.stderr) == (0, "")
    assert "variant: congestion-aware" in done.stdout


def test_a_folder_is_served_with_our_own_command_unless_told_otherwise(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    command = [sys.executable, "-m", "external.astra_sim", "serve", "--spool_dir", spool]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    done = run("-m", "external.astra_sim", "check", "--spool_dir", spool)
    server.terminate()
    said = server.communicate(timeout=20)[1]
    assert (done.returncode, done.stderr) == (0, "")
    assert f"found: spool folder {spool}" in done.stdout
    assert "variant: congestion-unaware" in done.stdout
    assert said.endswith("-m analytical --serve\nstopped\n")


def test_check_says_when_the_answer_is_another(tmp_path: Path) -> None:
    done = run("-m", "external.astra_sim", "check", "--astra_sim", good(tmp_path / "binary"))
    assert done.returncode == 1
    assert "answer: rank 0 1000 ns (exposed 0 ns), rank 1 1001 ns (exposed 1 ns)" in done.stdout
    assert "embedded, congestion-unaware: rank 0 58183 ns" in done.stdout
    assert "it gives neither" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "error: --astra_sim: no ASTRA-sim binary is named; name the binary with --astra_sim PATH or"),
        (["check", "--spool_dir", "SPOOL", "--backend_timeout", "x"], "error: --backend_timeout: 'x' is no time limit"),
        (["serve", "--spool_dir", "SPOOL", "--astra_sim", "/nowhere"], "binary /nowhere does not exist"),
        (["serve", "--spool_dir", "/dev/null/x"], "the spool folder cannot be used: Not a directory"),
        (["serve", "--spool_dir", "SPOOL", "--command", "'"], "is no command: No closing quotation"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    given = [str(tmp_path / "spool") if text == "SPOOL" else text for text in arguments]
    done = run("-m", "external.astra_sim", *given)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import runpy, sys; sys.argv = ['x', 'serve', '--help']\n"
        "try: runpy.run_module('external.astra_sim', run_name='__main__')\n"
        "except SystemExit: assert not {'numpy', 'pydantic', 'google.protobuf', 'yaml', 'docker'} & set(sys.modules)"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert "--spool_dir" in done.stdout


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("echo out of luck >&2; exit 7", "exit code 7: out of luck"),
        ("kill -KILL $$", "signal SIGKILL"),
        ("exit 0", "rank 0 printed no finished line"),
        ("sleep 60", "it hung: no end after 2 s"),
    ],
    ids=["fails", "is killed", "says nothing", "hangs"],
)
def test_a_run_whose_backend_breaks_loses_nothing(end: str, message: str, tmp_path: Path) -> None:
    """The first request is done after 3 iterations, the fifth iteration breaks."""
    (tmp_path / "work.tsv").write_text("8\t3\t0\n8\t30\t0\n")
    count = (
        f'n=$(cat {tmp_path}/n 2>/dev/null || echo 0); echo $((n + 1)) > {tmp_path}/n\n[ "$n" -ge 4 ] && {{ {end}; }}\n'
    )
    binary = shell_script(tmp_path / "binary", count + FINISHED)
    flags = ["--astra_sim", binary, "--work_dir", tmp_path / "work", "--backend_timeout", "2"]
    done = run(*JOB, *flags, "--dataset", tmp_path / "work.tsv", "--output", tmp_path / "out.csv")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in error
    found = re.search(r"iteration (\d+): .*; its inputs are kept in (\S+)", error)
    assert found is not None
    assert found[1] == "5"
    assert {"graph.0.et", "network.yml", "command"} <= {path.name for path in Path(found[2]).iterdir()}
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["request id", "0"]


def test_check_asks_the_program_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Never the cache, whatever it is told about one."""
    asked: list[dict[str, str]] = []

    class Backend:
        description = "a stand-in"

        def __init__(self, options: dict[str, str]) -> None:
            asked.append(options)

        def identity(self) -> None:
            """None: it is no file."""

        def simulate(self, graph: ExecutionGraph) -> IterationResult:
            return check.embedded_answer("aware")

        def close(self) -> None:
            asked.append({"closed": "1"})

    monkeypatch.setattr(check, "_backend", Backend)
    assert check.check({"cache_dir": "somewhere"}) == 0
    assert asked == [{"cache_dir": "somewhere", "no_cache": "1"}, {"closed": "1"}]
    assert "variant: congestion-" in capsys.readouterr().out
