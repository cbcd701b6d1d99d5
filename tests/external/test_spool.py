"""The spool folder, served by our Python server and by the shell one: answers, failures, and who may be confused."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from small_graphs import configuration, tensor_parallel
from stand_ins import FAILURES, FINISHED, ROOT, good, runs, shell_script

from external.astra_sim.adapt import adapt_configuration
from external.astra_sim.backend import AstraSimBackend
from external.astra_sim.factories import create_spool
from external.astra_sim.spool import SpoolRunner
from foundation.errors import SimulationError, UserError

Serve = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(params=["python", "shell"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """Start servers of both kinds around a binary; all are stopped at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(binary: Path, timeout_s: str = "60") -> subprocess.Popen[bytes]:
        folder = tmp_path / "spool"
        folder.mkdir(exist_ok=True)
        python = [sys.executable, "-m", "external.astra_sim", "serve", "--spool_dir", folder, "--astra_sim", binary]
        shell = ["sh", ROOT / "external" / "astra_sim" / "serve.sh", "poll", folder, binary]
        command = [*python, "--backend_timeout", timeout_s] if request.param == "python" else shell
        environment = {**os.environ, "ORRERY_TIMEOUT": timeout_s}
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
        started.append(server)
        until(lambda: any((folder / "servers").glob("*[0-9]")) if (folder / "servers").is_dir() else False)
        return server

    yield start
    for server in started:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def client(tmp_path: Path, timeout_s: float = 60, silence_s: float = 10) -> AstraSimBackend:
    runner = SpoolRunner(tmp_path / "spool", timeout_s=timeout_s, silence_s=silence_s)
    return AstraSimBackend(runner, adapt_configuration(**configuration()), flags={}, cache=None, jobs=2)


def left(tmp_path: Path) -> list[str]:
    return [path.name for name in ("requests", "running", "answers") for path in (tmp_path / "spool" / name).iterdir()]


def test_graphs_are_answered_in_order_and_nothing_stays(serve: Serve, tmp_path: Path) -> None:
    binary = good(tmp_path / "binary")
    server = serve(binary)
    used = client(tmp_path)
    answer = used.simulate(tensor_parallel(steps=6))
    assert answer.by_rank() == {0: (1000, 0), 1: (1001, 1)}
    assert runs(binary) == 6
    used.close()
    assert left(tmp_path) == []
    server.terminate()
    assert server.wait(20) == 0
    assert list((tmp_path / "spool" / "servers").iterdir()) == []


def test_several_clients_and_servers_share_a_folder(serve: Serve, tmp_path: Path) -> None:
    which = 'case $(grep -o "latency: .*" network.yml) in *501*) n=7;; *) n=5;; esac\n'
    binary = shell_script(tmp_path / "binary", which + FINISHED.replace("1000 + rank", "1000 * n + rank"))
    for _ in range(2):
        serve(binary)
    answers: dict[int, list[int]] = {}

    def simulate(number: int) -> None:
        files = configuration()
        files["network"] = files["network"].replace("500", str(500 + number))
        used = create_spool(**files, options={"spool_dir": str(tmp_path / "spool"), "no_cache": "1"})
        answers[number] = used.simulate(tensor_parallel(steps=8)).finish_ns[:, 0].tolist()
        used.close()

    threads = [Thread(target=simulate, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {0: [5000] * 8, 1: [7000] * 8, 2: [5000] * 8}
    assert left(tmp_path) == []


@pytest.mark.parametrize("kind", [kind for kind in FAILURES if kind != "hangs"])
def test_failures_reach_the_client_with_the_inputs_kept(serve: Serve, kind: str, tmp_path: Path) -> None:
    body, message = FAILURES[kind]
    serve(shell_script(tmp_path / "binary", body))
    used = client(tmp_path)
    with pytest.raises(SimulationError, match=rf"^iteration 1: spool folder .*({message}).*kept in ") as info:
        used.simulate(tensor_parallel())
    used.close()
    kept = Path(str(info.value).rpartition(" kept in ")[2])
    assert kept.parent.name == "failed"
    assert {"graph.0.et", "graph.1.et", "network.yml", "arguments", "stdout"} <= {path.name for path in kept.iterdir()}
    assert left(tmp_path) == []


def test_a_hang_is_noticed_by_the_client_and_outlived_by_the_server(serve: Serve, tmp_path: Path) -> None:
    """The binary waits for as long as `slow` is there, which is until the client has given up."""
    wait = f"while [ -e {tmp_path}/slow ]; do sleep 0.05; done"
    serve(shell_script(tmp_path / "binary", f"{wait}\n{good(tmp_path / 'g').read_text()}"))
    (tmp_path / "slow").touch()
    impatient = client(tmp_path, timeout_s=0.5)
    with pytest.raises(SimulationError, match=r"it hung: no answer 0.5 s after it began"):
        impatient.simulate(tensor_parallel())
    impatient.close()
    (tmp_path / "slow").unlink()
    patient = client(tmp_path)
    assert patient.simulate(tensor_parallel()).by_rank()[0] == (1000, 0)
    patient.close()


def test_a_hang_is_ended_by_the_server_which_serves_on(serve: Serve, tmp_path: Path) -> None:
    """Every run is slow to begin with on a busy machine: one that the server ended too is asked for again."""
    serve(shell_script(tmp_path / "binary", f"[ -e {tmp_path}/slow ] && sleep 1000\n{FINISHED}"), timeout_s="1")
    (tmp_path / "slow").touch()
    used = client(tmp_path)
    with pytest.raises(SimulationError, match=r"it hung: no end after 1 s|exit code 137 \(SIGKILL\)"):
        used.simulate(tensor_parallel())
    (tmp_path / "slow").unlink()

    def answered() -> bool:
        with contextlib.suppress(SimulationError):
            return used.simulate(tensor_parallel()).by_rank()[0] == (1000, 0)
        return False

    until(answered)
    used.close()


def test_a_server_killed_in_mid_run_is_noticed(serve: Serve, tmp_path: Path) -> None:
    server = serve(shell_script(tmp_path / "binary", f"touch {tmp_path}/began; sleep 1000"))
    used = client(tmp_path, silence_s=2.5)
    failure: list[str] = []

    def simulate() -> None:
        try:
            used.simulate(tensor_parallel())
        except SimulationError as error:
            failure.append(str(error))

    thread = Thread(target=simulate)
    thread.start()
    until((tmp_path / "began").exists)
    os.killpg(server.pid, signal.SIGKILL)
    thread.join()
    used.close()
    assert "nobody serves" in failure[0] or "took the run and then stopped" in failure[0]
    assert failure[0].startswith("iteration 1: ")


def test_stale_answers_are_neither_believed_nor_kept(serve: Serve, tmp_path: Path) -> None:
    binary = good(tmp_path / "binary")
    serve(binary)
    stale = tmp_path / "spool" / "answers" / "0123456789ab-iteration-000001"
    stale.mkdir()
    (stale / "stdout").write_text("sys[0] finished, 1 cycles, exposed communication 1 cycles.")
    recent = stale.with_name("ba9876543210-iteration-000001")
    shutil.copytree(stale, recent)
    os.utime(stale, (time.time() - 7200, time.time() - 7200))
    used = client(tmp_path)
    assert used.simulate(tensor_parallel()).by_rank()[0] == (1000, 0)
    used.close()
    assert left(tmp_path) == [recent.name]


def test_the_server_says_what_it_is_so_that_answers_are_cached(serve: Serve, tmp_path: Path) -> None:
    machine_code = tmp_path / "binary"
    shutil.copy("/bin/true", machine_code)
    server = serve(machine_code)
    runner = SpoolRunner(tmp_path / "spool", timeout_s=60)
    first = runner.identity()
    assert first is not None
    assert first.startswith("sha256:")
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    shutil.rmtree(tmp_path / "spool")
    serve(good(tmp_path / "script"))
    assert SpoolRunner(tmp_path / "spool", timeout_s=60).identity() is None


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"the spool folder cannot be used: .*name a folder that both sides can write"):
        SpoolRunner(tmp_path / "file" / "spool", timeout_s=60)
    with pytest.raises(UserError, match=r"--spool_dir: the spool backend needs a folder"):
        create_spool(**configuration(), options={})


def test_what_is_made_is_as_open_as_the_folder(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    folder.chmod(0o777)
    serve(shell_script(tmp_path / "binary", "mkdir log; exit 1"))
    with pytest.raises(SimulationError) as info:
        client(tmp_path).simulate(tensor_parallel())
    kept = Path(str(info.value).rpartition(" kept in ")[2])
    assert {oct(path.stat().st_mode & 0o777) for path in (kept, kept / "log", folder / "answers")} == {"0o777"}
    # Upstream opens its graphs for appending: a server that runs as another user must be allowed to.
    assert {oct(path.stat().st_mode & 0o777) for path in kept.glob("*.et")} == {"0o666"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system of 64 KiB")
def test_a_full_disk_is_loud(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], check=False).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        server = serve(shell_script(tmp_path / "binary", f"cat /dev/zero > filler\n{FINISHED}"))
        with pytest.raises(
            SimulationError, match=r"answer is incomplete .*its disk may be full|exited 0, but ranks 0, 1"
        ):
            client(tmp_path).simulate(tensor_parallel())
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(
    ("words", "environment", "code", "said"),
    [
        ([], {}, 2, "usage: serve.sh poll|stdin DIR [COMMAND...]"),
        (["pole", "."], {}, 2, "usage: serve.sh poll|stdin DIR [COMMAND...]"),
        (["poll", "none"], {}, 2, "the spool folder 'none' does not exist; make it first"),
        (["poll", "."], {"ORRERY_TIMEOUT": "soon"}, 2, "ORRERY_TIMEOUT: 'soon' is not a number of seconds"),
        (["poll", "."], {"ORRERY_TIMEOUT": "-1"}, 2, "ORRERY_TIMEOUT: '-1' is not a number of seconds"),
        (["poll", "."], {"ASTRA_SIM_BINARY": "/none"}, 127, "ASTRA_SIM_BINARY: '/none' is no program in this image"),
    ],
)
def test_the_shell_server_says_why_it_does_not_start(
    words: list[str], environment: dict[str, str], code: int, said: str, tmp_path: Path
) -> None:
    """Whatever is named wrongly is not replaced by another program, and nothing is made."""
    stand_in = tmp_path / "bin" / "orrery-analytical"
    stand_in.parent.mkdir()
    shell_script(stand_in, "exit 0")
    (tmp_path / "here").mkdir()
    command = ["sh", ROOT / "external" / "astra_sim" / "serve.sh", *words]
    path = f"{stand_in.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=tmp_path / "here", env={"PATH": path, **environment}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"{said}\n")
    assert not list((tmp_path / "here").iterdir())
