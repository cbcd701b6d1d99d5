"""The docker backend: one container for the whole run, and every way in which it can fail.

ORRERY_TEST_IMAGE names an image with our `analytical` command (containers/Dockerfile, target astra-sim).
"""

import gc
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_graphs import MEMORY, configuration, network, pipeline, rank_graph, system, tensor_parallel
from stand_ins import FAILURES, FINISHED, ROOT

from analytical.embedded import create
from converters.execution_graph import ExecutionGraph
from external.astra_sim.backend import AstraSimBackend
from external.astra_sim.factories import create_docker
from foundation.errors import SimulationError, UserError

docker = pytest.importorskip("docker", reason="the Docker SDK for Python is not installed")
IMAGE = os.environ.get("ORRERY_TEST_IMAGE", "")
needs_image = pytest.mark.skipif(not IMAGE, reason="ORRERY_TEST_IMAGE names no image to test with")
Derive = Callable[..., str]


def backend(image: str, tmp_path: Path, **options: Any) -> AstraSimBackend:
    given = {"astra_sim_image": image, "work_dir": str(tmp_path / "work"), "no_cache": "1"}
    return create_docker(**configuration(), options=given | {name: str(value) for name, value in options.items()})


def containers(client: Any, **filters: Any) -> list[Any]:
    found: list[Any] = client.containers.list(all=True, filters={"label": "orrery=astra-sim", **filters})
    return found


@pytest.fixture
def client() -> Iterator[Any]:
    connected = docker.from_env()
    yield connected
    connected.close()


@pytest.fixture(autouse=True)
def no_container_outlives_its_test() -> Iterator[None]:
    yield
    if IMAGE:
        connected = docker.from_env()
        for container in containers(connected):
            container.remove(force=True)
        connected.close()


@pytest.fixture
def derive(client: Any) -> Iterator[Derive]:
    """Make an image from the tested one whose binary is a shell script; all are removed at the end."""
    tags: list[str] = []

    def make(body: str, settings: str = "") -> str:
        recipe = f"FROM {IMAGE}\nUSER root\nCOPY binary /binary\nENV ASTRA_SIM_BINARY=/binary\n{settings}\n"
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for name, text in (("Dockerfile", recipe), ("binary", f"#!/bin/sh\n{body}\n")):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(text), 0o755
                archive.addfile(entry, io.BytesIO(text.encode()))
        context.seek(0)
        tags.append(f"orrery-test-{os.getpid()}-{len(tags)}")
        client.images.build(fileobj=context, custom_context=True, tag=tags[-1], rm=True, forcerm=True)
        return tags[-1]

    yield make
    for tag in tags:
        client.images.remove(tag, force=True)


@needs_image
def test_it_answers_as_the_embedded_backend(client: Any, tmp_path: Path) -> None:
    used = backend(IMAGE, tmp_path)
    ours = create(**configuration(), options={})
    for graph in (tensor_parallel(steps=3), pipeline()):
        theirs = used.simulate(graph)
        assert np.array_equal(expand(theirs, graph), expand(ours.simulate(graph), graph))
    assert len(containers(client)) == 1
    used.close()
    assert containers(client) == []
    assert list((tmp_path / "work").iterdir()) == []


def expand(answer: Any, graph: ExecutionGraph) -> np.ndarray:
    table = np.zeros((2, graph.steps, graph.num_ranks), np.int64)
    for column, ranks in enumerate(answer.rank_sets):
        table[0][:, list(ranks)] = answer.finish_ns[:, column, None]
        table[1][:, list(ranks)] = answer.exposed_ns[:, column, None]
    return table


@needs_image
def test_one_npu(tmp_path: Path) -> None:
    options = {"astra_sim_image": IMAGE, "work_dir": str(tmp_path), "no_cache": "1"}
    used = create_docker(network=network(1), system=system(), memory=MEMORY, options=options)
    graph = ExecutionGraph([rank_graph((0,), [{"type": 4, "ns": 1234}])])
    assert used.simulate(graph).by_rank() == {0: (1234, 0)}
    used.close()


@needs_image
def test_the_container_may_do_nothing_it_need_not(client: Any, tmp_path: Path) -> None:
    used = backend(IMAGE, tmp_path)
    [container] = containers(client)
    host = container.attrs["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert 0 < host["Memory"] == host["MemorySwap"]
    assert 0 < host["PidsLimit"] <= 1024
    user = container.attrs["Config"]["User"]
    assert user == (f"{os.getuid()}:{os.getgid()}" if os.getuid() else "65534:65534")
    used.close()


@needs_image
def test_it_is_known_by_its_image_and_cached(tmp_path: Path) -> None:
    for hits in (0, 2):
        used = backend(IMAGE, tmp_path, no_cache="", cache_dir=tmp_path / "cache")
        used.simulate(tensor_parallel(steps=2))
        assert used.statistics() == {"steps": 2, "cache_hits": hits, "runs": 2 - hits}
        used.close()


@needs_image
@pytest.mark.parametrize("kind", FAILURES)
def test_failures_are_loud_and_keep_the_inputs(kind: str, derive: Derive, client: Any, tmp_path: Path) -> None:
    body, message = FAILURES[kind]
    used = backend(derive(body), tmp_path, backend_timeout=0.5 if kind == "hangs" else 60)
    with pytest.raises(
        SimulationError, match=rf"^iteration 1: image orrery-test.*({message}|SIGKILL).*kept in "
    ) as info:
        used.simulate(tensor_parallel())
    used.close()
    kept = Path(str(info.value).rpartition(" kept in ")[2])
    assert {"graph.0.et", "graph.1.et", "system.json", "command"} <= {path.name for path in kept.iterdir()}
    assert containers(client) == []


@needs_image
def test_a_container_killed_in_mid_run_is_noticed_at_once(derive: Derive, client: Any, tmp_path: Path) -> None:
    used = backend(derive("touch began; sleep 60"), tmp_path)
    [container] = containers(client)

    def kill() -> None:
        while not list((tmp_path / "work").rglob("began")):
            time.sleep(0.01)
        container.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    started = time.monotonic()
    with pytest.raises(
        SimulationError, match=r"iteration 1: .*the container ended in mid-run: exit code 137.*kept in "
    ):
        used.simulate(tensor_parallel())
    assert time.monotonic() - started < 30
    killer.join()
    with pytest.raises(SimulationError, match=r"iteration 2: .*the container ended in mid-run"):
        used.simulate(tensor_parallel())
    used.close()


@needs_image
def test_the_container_ends_when_its_client_is_killed(derive: Derive, client: Any, tmp_path: Path) -> None:
    image = derive(FINISHED)
    code = f"""
import os, signal, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from small_graphs import configuration, tensor_parallel
from external.astra_sim.factories import create_docker
options = {{"astra_sim_image": {image!r}, "work_dir": {str(tmp_path)!r}, "no_cache": "1"}}
used = create_docker(**configuration(), options=options)
used.simulate(tensor_parallel())
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    [container] = containers(client)
    assert container.wait(timeout=20)["StatusCode"] == 0
    backend(image, tmp_path).close()  # the next one clears away what the killed one left
    assert containers(client) == []


@needs_image
def test_an_image_without_a_binary_says_so(derive: Derive, client: Any, tmp_path: Path) -> None:
    image = derive("", "ENV ASTRA_SIM_BINARY=\nRUN rm /usr/local/bin/orrery-analytical")
    with pytest.raises(UserError, match=r"cannot serve: exit code 127: no ASTRA-sim binary in this image"):
        backend(image, tmp_path)
    assert containers(client) == []
    assert list((tmp_path / "work").iterdir()) == []


@needs_image
def test_a_missing_image_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"there is no image 'orrery-no-such-image' here; build ours with `docker compose"
    ):
        backend("orrery-no-such-image", tmp_path)


def test_a_missing_daemon_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-daemon.sock")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the SDK leaves the socket that failed to the collector
        with pytest.raises(UserError, match=r"the Docker daemon does not answer: .*; start it"):
            backend("any", tmp_path)
        gc.collect()


def test_a_missing_sdk_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(
        UserError, match=r"the Docker SDK for Python is not installed; pip install 'orrery-sim\[docker\]'"
    ):
        backend("any", tmp_path)
