"""Run an ASTRA-sim binary as a child process, one process a graph."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from external.astra_sim.runner import Output, RunFailedError
from foundation.errors import UserError
from foundation.files import open_input, reason

ENVIRONMENT_VARIABLE = "ORRERY_ASTRA_SIM"
BINARY_NAMES = ("AstraSim_Analytical_Congestion_Unaware", "AstraSim_Analytical_Congestion_Aware")
MOST_OUTPUT_BYTES = 1 << 28
"""What a run may print (256 MiB); upstream prints a line a rank, and a debug line a node where logging is on."""
_FIX = (
    f"name the binary with --astra_sim PATH or {ENVIRONMENT_VARIABLE}; ASTRA-sim's own documentation says how to "
    "build it (docs/backends.md), and --backend embedded needs none"
)


def find_binary(path: str | None) -> Path:
    """Return the absolute path of the binary that `path`, else `ORRERY_ASTRA_SIM`, names (a folder, a build or a file).

    Raises `UserError` when none is named, or it is missing or cannot be executed.
    """
    field = "--astra_sim" if path else ENVIRONMENT_VARIABLE
    named = path or os.environ.get(ENVIRONMENT_VARIABLE)
    if not named:
        raise UserError("no ASTRA-sim binary is named", field="--astra_sim", fix=_FIX)
    binary = Path(named).expanduser().absolute()
    if not binary.exists():
        raise UserError(f"the ASTRA-sim binary {named} does not exist", field=field, fix=_FIX)
    if binary.is_dir():
        inside = [binary / folder / name for folder in (".", "bin") for name in BINARY_NAMES]
        binary = next((candidate for candidate in inside if candidate.is_file()), binary)
    if not binary.is_file():
        raise UserError(f"{named} is not a file", field=field, fix=f"name the binary itself, {BINARY_NAMES[0]}")
    if not os.access(binary, os.X_OK):
        raise UserError(f"the ASTRA-sim binary {named} cannot be executed", field=field, fix=f"chmod +x {binary}")
    return binary


def make_work_folder(parent: str | None) -> Path:
    """Make a private folder of this run under `parent` (default: the system's temporary folder)."""
    try:
        if parent is not None:
            Path(parent).mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="orrery-astra-sim-", dir=parent))
    except OSError as error:
        where = parent or tempfile.gettempdir()
        raise UserError(
            f"cannot make a folder for the graphs: {error.strerror}",
            path=where,
            field="--work_dir",
            fix="name a folder that can be written and has room",
        ) from error


def remove_work_folder(folder: Path) -> None:
    """Remove a run's folder if no failed iteration is kept in it."""
    try:
        folder.rmdir()
    except OSError:
        return


def file_identity(path: Path) -> str | None:
    """Return the hash of an executable, or None for a script: what a script runs, its content does not say."""
    with open_input(path, "ASTRA-sim binary") as stream:
        if stream.read(2) == b"#!":
            return None
        stream.seek(0)
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


class ProcessRunner:
    """Runs `command` plus the arguments in each folder; both output streams are drained while it runs.

    `timeout_s`: the longest one run may take. `identity` is taken once, when the runner is made.
    """

    def __init__(self, command: Sequence[str], *, identity: str | None, timeout_s: float, work_dir: str | None) -> None:
        self._command = list(command)
        self._identity = identity
        self._timeout_s = timeout_s
        self._root = make_work_folder(work_dir)

    @property
    def description(self) -> str:
        """The command."""
        return shlex.join(self._command)

    def identity(self) -> str | None:
        """Return the binary's hash."""
        return self._identity

    def new_folder(self, name: str) -> Path:
        """Make a folder under this run's own."""
        folder = self._root / name
        folder.mkdir()
        return folder

    def run(self, folder: Path, arguments: Sequence[str]) -> Output:
        """Start the process, wait for it, and end it with its children when it takes longer than `timeout_s`."""
        return run_command([*self._command, *arguments], folder, self._timeout_s, self._identity)

    def command_line(self, arguments: Sequence[str]) -> str:
        """Return the command."""
        return shlex.join([*self._command, *arguments])

    def discard(self, folder: Path) -> None:
        """Remove the folder."""
        shutil.rmtree(folder, ignore_errors=True)

    def locate(self, folder: Path) -> Path:
        """Return the folder: it stays where it was made."""
        return folder

    def close(self) -> None:
        """Remove this run's folder unless a failed run is kept in it."""
        remove_work_folder(self._root)


def run_command(command: Sequence[str], folder: Path, timeout_s: float, identity: str | None) -> Output:
    """Run `command` in `folder` and return its output.

    Raises `RunFailedError` when it cannot start, hangs, or prints without end.
    """
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise RunFailedError(f"it cannot be started: {reason(error)} ({command[0]})") from error
    drains = [_Drain(stream, partial(end, process)) for stream in (process.stdout, process.stderr)]
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise RunFailedError(f"it hung: no end after {timeout_s:g} s (--backend_timeout sets the limit)") from None
    finally:
        end(process)
        process.wait()
        stdout, stderr = (drain.text() for drain in drains)
    if any(drain.overflowed for drain in drains):
        raise RunFailedError(f"it printed more than {MOST_OUTPUT_BYTES} bytes and was ended")
    return Output(process.returncode, stdout, stderr, identity)


class _Drain:
    """Reads one output stream while the process runs, up to a limit at which it ends the process."""

    def __init__(self, stream: IO[bytes] | None, end: Callable[[], None]) -> None:
        assert stream is not None
        self.overflowed = False
        self._stream, self._end = stream, end
        self._content = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Return what was read, once the stream has ended."""
        self._thread.join()
        self._stream.close()
        return self._content.decode(errors="replace")

    def _read(self) -> None:
        while piece := self._stream.read1(1 << 16):  # type: ignore[attr-defined]
            self._content += piece
            if len(self._content) > MOST_OUTPUT_BYTES:
                self.overflowed = True
                self._end()
                return


def end(process: subprocess.Popen[Any]) -> None:
    """End the process and what it started: they are a session of their own."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
