"""Serve a spool folder: run a binary on every request that appears in it, until stopped.

Requests are others': whatever stands in `requests` or in a request's folder is answered, if need be with an error, and
never ends the server. Files in a request's folder are read and written without following links (`GuardedFolder`).
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from external.astra_sim.guarded_folder import GuardedFolder
from external.astra_sim.process import run_command
from external.astra_sim.runner import Output, RunFailedError
from external.astra_sim.spool import Spool, remove
from foundation.printable import printable

HEARTBEAT_S = 1.0
_POLL_S, _IDLE_POLL_S, _IDLE_AFTER_S = 0.001, 0.02, 2.0
_FAILED_EXIT = 125


class Answerer(Protocol):
    """What runs the requests."""

    @property
    def description(self) -> str:
        """What runs, for people."""

    @property
    def identity(self) -> str | None:
        """What runs, by content; None where that proves nothing, and answers are then not cached."""

    def run(self, folder: Path, arguments: Sequence[str]) -> Output:
        """Run one request in `folder`. Raises `RunFailedError`."""

    def close(self) -> None:
        """Stop what runs."""


class CommandAnswerer:
    """Runs a command with the request's arguments, a process a request; one longer than `timeout_s` is ended."""

    def __init__(self, command: Sequence[str], identity: str | None, timeout_s: float) -> None:
        self._command, self.identity, self._timeout_s = list(command), identity, timeout_s
        self.description = shlex.join(command)

    def run(self, folder: Path, arguments: Sequence[str]) -> Output:
        """See `Answerer.run`."""
        return run_command([*self._command, *arguments], folder, self._timeout_s, self.identity)

    def close(self) -> None:
        """Nothing runs between requests."""


class _Stopped(Exception):
    """The server was told to stop."""


def serve(folder: str | Path, answerer: Answerer) -> None:
    """Answer requests in `folder`, one at a time, until SIGTERM or SIGINT; close `answerer` then.

    Several servers may share a folder. Raises `UserError` for a folder that cannot be used.
    """
    spool = Spool(folder)
    os.umask(spool.umask)
    server = _Server(spool, f"{socket.gethostname()}-{os.getpid()}", answerer)
    print(f"serving {printable(str(spool.root))} with {answerer.description}", file=sys.stderr, flush=True)
    try:
        with _stop_on_signals(), server.presence():
            idle_since = time.monotonic()
            while True:
                if server.serve_waiting():
                    idle_since = time.monotonic()
                idle = time.monotonic() - idle_since
                time.sleep(_POLL_S if idle < _IDLE_AFTER_S else _IDLE_POLL_S)
    finally:
        answerer.close()


class _Server:
    """One server of a spool folder, under its `name` there."""

    def __init__(self, spool: Spool, name: str, answerer: Answerer) -> None:
        self._spool, self._name, self._answerer = spool, name, answerer

    def serve_waiting(self) -> bool:
        """Answer the requests that wait now, in the order of their names; return whether there were any."""
        names = sorted(entry.name for entry in os.scandir(self._spool.requests) if not entry.name.startswith("."))
        for name in names:
            try:
                (self._spool.requests / name).rename(self._spool.running / name)
            except OSError:
                continue  # claimed by a quicker server, or withdrawn by a client that waited long enough
            self._serve(name)
        return bool(names)

    def _serve(self, name: str) -> None:
        """Answer one request, which is ours now."""
        running = self._spool.running / name
        try:
            with GuardedFolder(running) as folder:
                self._answer(folder)
        except OSError as error:
            self._report(name, f"not answered as it should be: {error.strerror or error}")
            self._refuse(name, f"the request is not a folder that can be served: {error.strerror or error}\n")
            return
        try:
            running.rename(self._spool.answers / name)
        except OSError as error:
            self._report(name, f"its answer cannot be put in place: {error.strerror}")

    def _answer(self, folder: GuardedFolder) -> None:
        """Run the request and leave its output in the folder."""
        folder.write("server", f"{self._name}\n")
        try:
            arguments = folder.read("arguments").decode("utf-8").removesuffix("\n").split("\n")
            output = self._answerer.run(Path(folder.working_folder), arguments)
        except (OSError, ValueError, RunFailedError) as error:
            said = f"{self._answerer.description}: {printable(str(error))}\n"
            output = Output(_FAILED_EXIT, "", said, None)
        _write_output(folder, output)

    def _refuse(self, name: str, reason: str) -> None:
        """Put an answer in place of a request whose own folder cannot hold it; what was there goes."""
        running = self._spool.running / name
        try:
            remove(running)
            self._spool.make(running)
            with GuardedFolder(running) as folder:
                _write_output(folder, Output(_FAILED_EXIT, "", reason, None))
            running.rename(self._spool.answers / name)
        except OSError as error:
            self._report(name, f"cannot be answered: {error.strerror or error}")

    def _report(self, name: str, what: str) -> None:
        print(f"error: {printable(name)}: {what}", file=sys.stderr, flush=True)

    @contextmanager
    def presence(self) -> Iterator[None]:
        """Keep a file of this server in the spool, and touch it every second, while the block runs."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(HEARTBEAT_S):
                try:
                    os.utime(self._spool.servers / self._name, follow_symlinks=False)
                except OSError:
                    self._sign_in()  # somebody cleared the folder: we are still here

        self._sign_in()
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            (self._spool.servers / self._name).unlink(missing_ok=True)

    def _sign_in(self) -> None:
        content = f"{self._answerer.identity or ''}\n{self._answerer.description}\n"
        try:
            with GuardedFolder(self._spool.servers) as folder:
                folder.write(f"{self._name}.new", content)
            (self._spool.servers / f"{self._name}.new").rename(self._spool.servers / self._name)
        except OSError as error:
            self._report(self._name, f"its sign of life cannot be written: {error.strerror or error}")


def _write_output(folder: GuardedFolder, output: Output) -> None:
    """Leave the output in the folder; on a full disk less than all of it, which the client notices and reports."""
    texts = {"stdout": output.stdout, "stderr": output.stderr}
    texts |= {"exit_code": f"{output.exit_code}\n", "identity": f"{output.identity or ''}\n"}
    try:
        for name, text in texts.items():
            folder.write(name, text)
    except OSError as error:
        print(f"error: an answer cannot be written: {error.strerror or error}", file=sys.stderr, flush=True)


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Leave the block quietly on SIGTERM or SIGINT."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stopped

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except _Stopped:
        print("stopped", file=sys.stderr)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
