"""Run an ASTRA-sim binary inside one container that stays up for the whole run, through the Docker SDK for Python.

The container runs `serve.sh` (any image with a POSIX shell will do) over a bind-mounted private folder; the names of
prepared folders go in by its standard input, so nothing polls inside, and it ends by itself when we are gone. It has no
network, no capabilities, a read-only root, limits on memory and processes, and our own user id (never root's).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from external.astra_sim.process import make_work_folder
from external.astra_sim.runner import Output, RunFailedError
from external.astra_sim.spool import Spool, read_output, wait_for_answer
from foundation.digits import whole_number
from foundation.errors import SimulationError, UserError

_SCRIPT = Path(__file__).with_name("serve.sh")
_MOUNT = "/spool"
_NOBODY = 65534
_START_S = 60.0
_MEMORY = "8g"
_LABEL, _CLIENT_LABEL = "orrery", "orrery.client"
_PROCESSES = 256
_IMAGE_FIX = (
    "build ours with `docker compose --profile astra-sim build astra-sim`, or name an image of yours that holds "
    "an ASTRA-sim binary with --astra_sim_image (docs/backends.md)"
)


def connect() -> Any:
    """Return a Docker client that has reached its daemon; a `UserError` says what is missing."""
    try:
        import docker
    except ImportError:
        raise UserError(
            "the Docker SDK for Python is not installed",
            field="--backend docker",
            fix="pip install 'orrery-sim[docker]'",
        ) from None
    client = None
    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        if client is not None:
            client.close()
        raise UserError(
            f"the Docker daemon does not answer: {_cause(error)}",
            field="--backend docker",
            fix="start it (or set DOCKER_HOST), and see that you may use it: `docker version`",
        ) from None
    return client


def find_image(client: Any, name: str) -> Any:
    """Return the local image called `name`. Nothing is downloaded: a `UserError` says how to get one."""
    import docker

    try:
        return client.images.get(name)
    except docker.errors.ImageNotFound:
        raise UserError(f"there is no image {name!r} here", field="--astra_sim_image", fix=_IMAGE_FIX) from None
    except docker.errors.APIError as error:
        raise UserError(f"the image {name!r} cannot be used: {_cause(error)}", field="--astra_sim_image") from None


class DockerRunner:
    """One container for the whole run, fed one folder after another.

    `timeout_s`: the longest one run may take; the container is killed when it takes longer.
    """

    def __init__(self, image: str, *, timeout_s: float, work_dir: str | None) -> None:
        self._image_name = image
        self._timeout_s = timeout_s
        self._client = connect()
        try:
            self._image = find_image(self._client, image)
            _remove_orphans(self._client)
            root = make_work_folder(work_dir)
        except BaseException:
            self._client.close()
            raise
        self._owner = (os.getuid(), os.getgid()) if os.getuid() else (_NOBODY, _NOBODY)
        if os.getuid() == 0:
            os.chown(root, *self._owner)
        self._spool = Spool(root)
        for folder in root.iterdir():
            folder.chmod(0o777)
        self._ended = threading.Event()
        self._ending = ""
        self._container: Any = None
        self._stdin: Any = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def description(self) -> str:
        """The image."""
        return f"image {self._image_name}"

    def identity(self) -> str | None:
        """Return the image's id, which is a hash of its content and settings."""
        return f"image:{self._image.id}"

    def new_folder(self, name: str) -> Path:
        """Make a folder inside the mounted one, where the container's user may write."""
        folder = self._spool.running / name
        folder.mkdir()
        folder.chmod(0o777)
        return folder

    def run(self, folder: Path, arguments: Sequence[str]) -> Output:
        """Tell the container the folder's name and wait for its answer."""
        (folder / "arguments").write_text("".join(f"{argument}\n" for argument in arguments), encoding="utf-8")
        try:
            self._stdin._sock.sendall(f"{folder.name}\n".encode())
        except OSError:
            self._ended.wait(5)
            self._check_alive(folder)
            raise RunFailedError("the container takes no more input") from None
        try:
            answer = wait_for_answer(self._spool, folder.name, self._timeout_s, self._check_alive)
        except RunFailedError:
            self._kill()
            raise
        output = read_output(answer)
        return Output(output.exit_code, output.stdout, output.stderr, self.identity())

    def command_line(self, arguments: Sequence[str]) -> str:
        """Return a docker command for the folder it is typed in."""
        return " ".join(
            ["docker run --rm --network none -v .:/case -w /case --entrypoint BINARY", self._image_name, *arguments]
        )

    def discard(self, folder: Path) -> None:
        """Remove the answer."""
        shutil.rmtree(self._spool.locate(folder.name), ignore_errors=True)

    def locate(self, folder: Path) -> Path:
        """Move the run's folder out of the container's way and return its place."""
        return self._spool.withdraw(folder.name)

    def close(self) -> None:
        """Kill and remove the container; remove the folder unless a failed run is kept in it."""
        if self._stdin is not None:
            _close_attached(self._stdin)
            self._stdin = None
        if self._container is not None:
            self._kill()
            with contextlib.suppress(Exception):
                self._container.remove(force=True)
            self._container = None
        self._client.close()
        if not any(self._spool.failed.iterdir()):
            shutil.rmtree(self._spool.root, ignore_errors=True)

    def _start(self) -> None:
        import docker

        script = _SCRIPT.read_text(encoding="utf-8")
        try:
            self._container = self._client.containers.create(
                self._image.id,
                entrypoint=["/bin/sh"],
                command=["-c", script, "serve.sh", "stdin", _MOUNT],
                environment={"ORRERY_TIMEOUT": f"{self._timeout_s:g}"},
                stdin_open=True,
                user=f"{self._owner[0]}:{self._owner[1]}",
                volumes={str(self._spool.root): {"bind": _MOUNT, "mode": "rw"}},
                working_dir=_MOUNT,
                tmpfs={"/tmp": "rw,noexec,nosuid,size=64m"},
                network_mode="none",
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                read_only=True,
                mem_limit=_MEMORY,
                memswap_limit=_MEMORY,
                pids_limit=_PROCESSES,
                labels={_LABEL: "astra-sim", _CLIENT_LABEL: str(os.getpid())},
            )
            self._stdin = self._client.api.attach_socket(self._container.id, {"stdin": 1, "stream": 1})
            self._container.start()
        except docker.errors.APIError as error:
            raise SimulationError(f"image {self._image_name}: its container cannot start: {_cause(error)}") from None
        threading.Thread(target=self._wait_for_end, daemon=True).start()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_S
        while not any(self._spool.servers.iterdir()):
            if self._ended.is_set():
                raise UserError(
                    f"the image {self._image_name!r} cannot serve: {self._ending}",
                    field="--astra_sim_image",
                    fix="it must hold /bin/sh and an ASTRA-sim analytical binary (ENV ASTRA_SIM_BINARY says where)",
                )
            if time.monotonic() > deadline:
                raise SimulationError(
                    f"image {self._image_name}: no answer from the container within {_START_S:g} s; the daemon must "
                    f"run on this machine and see {self._spool.root} (--work_dir names another place)"
                )
            time.sleep(0.005)

    def _wait_for_end(self) -> None:
        """Learn at once when the container ends, and why."""
        container = self._container
        try:
            status = container.wait()
            logs = container.logs(tail=4).decode(errors="replace")
            container.reload()
            killed = " (out of memory)" if container.attrs["State"].get("OOMKilled") else ""
            said = " | ".join(line.strip() for line in logs.splitlines())
            self._ending = f"exit code {status['StatusCode']}{killed}{': ' + said if said else ''}"
        except Exception as error:
            # Whatever goes wrong here (container removed, daemon gone) has one meaning: nobody will answer.
            self._ending = self._ending or _cause(error)
        self._ended.set()

    def _check_alive(self, running: Path) -> None:
        if self._ended.is_set():
            raise RunFailedError(f"the container ended in mid-run: {self._ending}")

    def _kill(self) -> None:
        with contextlib.suppress(Exception):
            self._container.kill()


def _close_attached(stream: Any) -> None:
    """Close what `attach_socket` gave: the SDK hangs the socket and the HTTP response on the stream it returns."""
    sock = stream._sock
    stream._response.close()
    stream.close()
    sock.close()


def _remove_orphans(client: Any) -> None:
    """Remove containers that ended by themselves because their client was killed."""
    for container in client.containers.list(filters={"label": f"{_LABEL}=astra-sim", "status": "exited"}):
        owner = container.labels.get(_CLIENT_LABEL, "")
        process = whole_number(owner, 1, 2**31 - 1)
        if process is not None and not _alive(process):
            with contextlib.suppress(Exception):
                container.remove()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _cause(error: Exception) -> str:
    explanation = getattr(error, "explanation", None)
    return " ".join(str(explanation or error).split())[:300]
