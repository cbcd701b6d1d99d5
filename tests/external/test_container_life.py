"""The docker backend against a stand-in for Docker, whose containers are processes here: no daemon is needed."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from small_graphs import configuration, tensor_parallel
from stand_in_docker import IMAGE, Client, Container, Orphan
from stand_ins import good, runs, shell_script

from external.astra_sim.backend import AstraSimBackend
from external.astra_sim.factories import DEFAULT_IMAGE, create_docker
from foundation.errors import SimulationError, UserError

docker = pytest.importorskip("docker", reason="the Docker SDK for Python is not installed")


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A daemon with an image that holds a good binary."""
    made = Client(tmp_path, good(tmp_path / "binary"))
    monkeypatch.setattr(docker, "from_env", lambda: made)
    return made


def backend(tmp_path: Path, image: str = IMAGE, **options: Any) -> AstraSimBackend:
    given = {"astra_sim_image": image, "work_dir": str(tmp_path / "work"), "no_cache": "1", **options}
    return create_docker(**configuration(), options={name: str(value) for name, value in given.items() if value})


def test_one_container_for_a_whole_run(client: Client, tmp_path: Path) -> None:
    used = backend(tmp_path)
    for _ in range(2):
        assert used.simulate(tensor_parallel(steps=2)).finish_ns.tolist() == [[1000, 1001]] * 2
    [container] = client.created
    assert runs(tmp_path / "binary") == 4 and used.identity() == "image:sha256:0ddba11"
    assert used.description == f"image {IMAGE}"
    sock = client.stream._sock
    assert sock.fileno() >= 0 and not client.stream.closed
    used.close()
    assert container.killed and container.removed and client.closed
    assert sock.fileno() < 0 and client.stream.closed and client.stream._response.closed
    assert list((tmp_path / "work").iterdir()) == []


def test_it_may_do_nothing_that_it_need_not(client: Client, tmp_path: Path) -> None:
    backend(tmp_path).close()
    options = client.created[0].options
    assert options["network_mode"] == "none" and options["cap_drop"] == ["ALL"] and options["read_only"] is True
    assert options["mem_limit"] == options["memswap_limit"] == "8g" and options["pids_limit"] == 256
    assert options["security_opt"] == ["no-new-privileges:true"] and options["stdin_open"] is True
    assert options["user"].split(":")[0] == str(os.getuid() or 65534)
    assert options["environment"] == {"ORRERY_TIMEOUT": "600"} and options["labels"]["orrery.client"] == str(
        os.getpid()
    )


@pytest.mark.parametrize(
    ("out_of_memory", "said"), [(False, "exit code 137; "), (True, r"exit code 137 \(out of memory\); ")]
)
def test_a_container_that_is_killed_in_mid_run(out_of_memory: bool, said: str, client: Client, tmp_path: Path) -> None:
    client.out_of_memory = out_of_memory
    client.binary = shell_script(tmp_path / "slow", "touch began; sleep 60")
    used = backend(tmp_path)

    def kill() -> None:
        while not list((tmp_path / "work").rglob("began")):
            time.sleep(0.005)
        client.created[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(SimulationError, match=rf"iteration 1: .*the container ended in mid-run: {said}"):
        used.simulate(tensor_parallel())
    killer.join()
    with pytest.raises(SimulationError, match=rf"iteration 2: .*the container ended in mid-run: {said}"):
        used.simulate(tensor_parallel())
    used.close()
    assert len(list((tmp_path / "work").rglob("graph.0.et"))) == 2, "inputs of runs that failed are kept"


def test_a_run_that_hangs_ends_the_container(client: Client, tmp_path: Path) -> None:
    client.binary = shell_script(tmp_path / "slow", "exec sleep 60")
    used = backend(tmp_path, backend_timeout=0.3)
    with pytest.raises(SimulationError, match=r"(it hung: no answer 0.3 s|SIGKILL)"):
        used.simulate(tensor_parallel())
    used.close()


def test_an_image_without_a_binary(client: Client, tmp_path: Path) -> None:
    client.binary = None
    if shutil.which("orrery-analytical"):
        pytest.skip("a binary is in the PATH")
    with pytest.raises(
        UserError, match=r"the image 'orrery-test-image' cannot serve: exit code 127: no ASTRA-sim binary"
    ):
        backend(tmp_path)
    assert client.created[0].removed and client.closed
    assert list((tmp_path / "work").iterdir()) == []


def test_images_that_cannot_be_had(client: Client, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no image 'none' here; build ours with"):
        backend(tmp_path, "none")
    client.refuses = docker.errors.APIError("no", explanation="not\n now")
    with pytest.raises(UserError, match=r"--astra_sim_image: the image 'orrery-test-image' cannot be used: not now"):
        backend(tmp_path)
    assert client.closed and not client.created


def test_a_container_that_cannot_start(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise docker.errors.APIError("no", explanation="no room")

    monkeypatch.setattr(Client, "create", refuse)
    with pytest.raises(SimulationError, match=r"image orrery-test-image: its container cannot start: no room"):
        backend(tmp_path)
    assert client.closed and list((tmp_path / "work").iterdir()) == []


def test_a_daemon_that_does_not_answer(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise docker.errors.APIError("no", explanation="not  today")

    monkeypatch.setattr(client, "ping", refuse)
    with pytest.raises(UserError, match=r"--backend docker: the Docker daemon does not answer: not today; start it"):
        backend(tmp_path)
    assert client.closed and not client.created


def test_a_container_that_never_serves(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("external.astra_sim.container._START_S", 0.2)
    monkeypatch.setattr("external.astra_sim.container._SCRIPT", tmp_path / "script")
    (tmp_path / "script").write_text("sleep 60")
    with pytest.raises(SimulationError, match=r"no answer from the container within 0\.2 s; the daemon must run on"):
        backend(tmp_path)
    assert client.created[0].killed and client.created[0].removed and client.closed


def test_a_daemon_that_is_lost_ends_the_run(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = threading.Event()

    def wait(container: Container) -> None:
        lost.wait()
        raise OSError("the daemon went away")

    monkeypatch.setattr(Container, "wait", wait)
    client.binary = shell_script(tmp_path / "slow", "sleep 60")
    used = backend(tmp_path)
    threading.Timer(0.2, lost.set).start()
    with pytest.raises(SimulationError, match=r"the container ended in mid-run: the daemon went away; its inputs"):
        used.simulate(tensor_parallel())
    used.close()
    process = client.created[0].process
    assert process is not None and process.wait() == -signal.SIGKILL


def test_which_image_is_used(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag's, else the environment's, else ours."""
    monkeypatch.delenv("ASTRA_SIM_IMAGE", raising=False)
    client.refuses = docker.errors.APIError("asked is enough")
    for flag, variable, expected in (
        (IMAGE, "orrery-astra-sim:2", IMAGE),
        ("", "orrery-astra-sim:2", "orrery-astra-sim:2"),
        ("", "", DEFAULT_IMAGE),
    ):
        monkeypatch.setenv("ASTRA_SIM_IMAGE", variable)
        with pytest.raises(UserError):
            backend(tmp_path, flag)
        assert client.asked.pop() == expected


def test_containers_of_clients_that_are_gone_are_removed(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living, gone, anothers = str(os.getpid()), "4000000", "1"
    client.orphans = [Orphan(owner) for owner in (gone, living, anothers, "", "x")]
    kill = os.kill

    def refuse(process: int, number: int) -> None:
        if process == int(anothers):
            raise PermissionError
        kill(process, number)

    monkeypatch.setattr(os, "kill", refuse)
    backend(tmp_path).close()
    assert [orphan.removed for orphan in client.orphans] == [True, False, False, False, False]
