"""A stand-in for Docker: its containers are processes of this machine that run what the container would."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

IMAGE = "orrery-test-image"


class Container:
    """A container that was created; `options` is what it was asked for beside what is used here."""

    def __init__(self, client: Client, entrypoint: list[str], command: list[str], **options: Any) -> None:
        self.options, self.labels, self.id = options, options["labels"], "c0ffee"
        self.attrs: dict[str, Any] = {"State": {"OOMKilled": client.out_of_memory}}
        self.process: subprocess.Popen[bytes] | None = None
        self.killed = self.removed = False
        [(host, mounted)] = options["volumes"].items()
        self._folder = Path(host)
        self._command = [*entrypoint, *(host if word == mounted["bind"] else word for word in command)]
        self._client = client
        self._said = client.folder / "said"

    def start(self) -> None:
        binary = {"ASTRA_SIM_BINARY": str(self._client.binary or "")}
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**os.environ, **self.options["environment"], **binary},
                stdin=self._client.inside.fileno(),
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self._client.inside.close()

    def wait(self) -> dict[str, int]:
        assert self.process is not None
        code = self.process.wait()
        return {"StatusCode": 128 - code if code < 0 else code}

    def logs(self, tail: int) -> bytes:
        return b"\n".join(self._said.read_bytes().splitlines()[-tail:])

    def reload(self) -> None:
        """What `attrs` says is fresh already."""

    def kill(self) -> None:
        assert self.process is not None
        self.killed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def remove(self, force: bool = False) -> None:
        self.removed = True


class Response:
    """The HTTP response that a stream came with."""

    closed = False

    def close(self) -> None:
        self.closed = True


class Stream:
    """What `attach_socket` gives: the SDK hangs its socket and its response on the stream."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._response = Response()
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Orphan:
    """A container of an earlier client."""

    def __init__(self, owner: str) -> None:
        self.labels = {"orrery.client": owner} if owner else {}
        self.removed = False

    def remove(self) -> None:
        self.removed = True


class Client:
    """The SDK's client: its `images`, `containers` and `api` are its own methods here.

    `binary`: what the image holds; None for nothing. `refuses`: an error that the daemon answers with.
    """

    def __init__(self, folder: Path, binary: Path | None, **changes: Any) -> None:
        self.folder, self.binary = folder, binary
        self.out_of_memory = False
        self.orphans: list[Orphan] = []
        self.asked: list[str] = []
        self.refuses: Exception | None = None
        self.created: list[Container] = []
        self.closed = False
        self.id = "sha256:0ddba11"
        vars(self).update(changes)
        self.images = self.containers = self.api = self
        outside, self.inside = socket.socketpair()
        self.stream = Stream(outside)

    def ping(self) -> None:
        """The daemon is there."""

    def get(self, name: str) -> Client:
        import docker

        self.asked.append(name)
        if self.refuses is not None:
            raise self.refuses
        if name != IMAGE and not name.startswith("orrery-astra-sim"):
            raise docker.errors.ImageNotFound("no such image")
        return self

    def list(self, filters: dict[str, str]) -> list[Orphan]:
        assert filters == {"label": "orrery=astra-sim", "status": "exited"}
        return self.orphans

    def create(self, image: str, entrypoint: list[str], command: list[str], **options: Any) -> Container:
        assert image == self.id
        self.created.append(Container(self, entrypoint, command, **options))
        return self.created[-1]

    def attach_socket(self, container: str, params: dict[str, int]) -> Stream:
        assert params == {"stdin": 1, "stream": 1}
        return self.stream

    def close(self) -> None:
        self.closed = True
        self.stream._sock.close()
        self.inside.close()
