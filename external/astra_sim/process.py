"""Run an ASTRA-sim binary as a child process, one process a graph."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from external.astra_sim.runner import Output, RunFailedError
from foundation.errors import UserError

ENVIRONMENT_VARIABLE = "ORRERY_ASTRA_SIM"
BINARY_NAMES = ("AstraSim_Analytical_Congestion_Unaware", "AstraSim_Analytical_Congestion_Aware")
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
    with path.open("rb") as stream:
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
    """Run `command` in `folder` and return its output. Raises `RunFailedError` when it cannot start or hangs."""
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise RunFailedError(f"it cannot be started: {error.strerror} ({command[0]})") from error
    with process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except BaseException as error:
            _end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise RunFailedError(
                    f"it hung: no end after {timeout_s:g} s (--backend_timeout sets the limit)"
                ) from None
            raise
    return Output(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"), identity)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started: they are a session of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
