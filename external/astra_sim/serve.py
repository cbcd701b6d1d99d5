"""Serve a spool folder: run a binary on every request that appears in it, until stopped."""

from __future__ import annotations

import contextlib
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

from external.astra_sim.process import run_command
from external.astra_sim.runner import Output, RunFailedError
from external.astra_sim.spool import Spool

HEARTBEAT_S = 1.0
_POLL_S, _IDLE_POLL_S, _IDLE_AFTER_S = 0.001, 0.02, 2.0
_FAILED_EXIT = 125


class _Stopped(Exception):
    """The server was told to stop."""


def serve(folder: str | Path, command: Sequence[str], identity: str | None, timeout_s: float) -> None:
    """Answer requests in `folder` with `command`, one at a time, until SIGTERM or SIGINT.

    `identity` says by content what the command is (None: its answers are not cached). A run longer than `timeout_s` is
    ended. Several servers may share a folder. Raises `UserError` for a folder that cannot be used.
    """
    spool = Spool(folder)
    os.umask(spool.umask)
    name = f"{socket.gethostname()}-{os.getpid()}"
    print(f"serving {spool.root} with {shlex.join(command)}", file=sys.stderr, flush=True)
    with _stop_on_signals(), _presence(spool.servers / name, f"{identity or ''}\n{shlex.join(command)}\n"):
        idle_since = time.monotonic()
        while True:
            if _serve_waiting(spool, name, command, identity, timeout_s):
                idle_since = time.monotonic()
            idle = time.monotonic() - idle_since
            time.sleep(_POLL_S if idle < _IDLE_AFTER_S else _IDLE_POLL_S)


def _serve_waiting(spool: Spool, server: str, command: Sequence[str], identity: str | None, timeout_s: float) -> bool:
    """Answer the requests that wait now, in the order of their names; return whether there were any."""
    names = sorted(entry.name for entry in os.scandir(spool.requests) if not entry.name.startswith("."))
    for name in names:
        running = spool.running / name
        # A request that vanishes was claimed by a quicker server, or withdrawn by a client that waited long enough.
        with contextlib.suppress(FileNotFoundError):
            (spool.requests / name).rename(running)
            (running / "server").write_text(f"{server}\n")
            _answer(running, command, identity, timeout_s)
            running.rename(spool.answers / name)
    return bool(names)


def _answer(running: Path, command: Sequence[str], identity: str | None, timeout_s: float) -> None:
    arguments = (running / "arguments").read_text(encoding="utf-8").splitlines()
    try:
        output = run_command([*command, *arguments], running, timeout_s, identity)
    except RunFailedError as error:
        output = Output(_FAILED_EXIT, "", f"{shlex.join(command)}: {error}\n", None)
    _write_answer(running, output)


def _write_answer(running: Path, output: Output) -> None:
    """Leave the output in the folder; on a full disk less than all of it, which the client notices and reports."""
    try:
        (running / "stdout").write_text(output.stdout)
        (running / "stderr").write_text(output.stderr)
        (running / "exit_code").write_text(f"{output.exit_code}\n")
        (running / "identity").write_text(f"{output.identity or ''}\n")
    except OSError as error:
        print(f"error: {running.name}: the answer cannot be written: {error.strerror}", file=sys.stderr, flush=True)


@contextmanager
def _presence(path: Path, content: str) -> Iterator[None]:
    """Keep `path` there and touch it every second while the block runs."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(content)
    new.rename(path)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_S):
            os.utime(path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        path.unlink(missing_ok=True)


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
