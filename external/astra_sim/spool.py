"""A spool folder: requests and answers as folders that are renamed into place, so that no socket is needed.

::

    DIR/requests/NAME   a graph with its files and `arguments` (one a line), complete because it was renamed to here
    DIR/running/NAME    the same, claimed by a server (a rename succeeds for one server only); `server` says by which
    DIR/answers/NAME    the same with `stdout`, `stderr`, `exit_code` and `identity`, complete because renamed
    DIR/failed/NAME     withdrawn by its client: no answer came, or not the right one
    DIR/servers/NAME    one file a server, touched every second: line 1 its identity (may be empty), line 2 its command

NAME begins with a random word of the client's, so several clients share a folder and none takes a stale answer for
its own. Whatever is made in DIR is open to exactly those to whom DIR is open, so that a server may run as another user.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from external.astra_sim.guarded_folder import GuardedFolder
from external.astra_sim.runner import Output, RunFailedError
from external.astra_sim.timer import SYSTEM, Timer
from foundation.digits import whole_number
from foundation.errors import UserError

SILENCE_S = 10.0
"""A server that has not touched its file for this long is taken for dead."""
_STALE_S = 3600.0
_QUICK_POLL_S, _SLOW_POLL_S, _QUICK_FOR_S, _CHECK_EVERY_S = 0.001, 0.01, 2.0, 0.05
_FRESH_NS = 3_000_000_000
_SERVE = "python -m external.astra_sim serve --spool_dir"


class Spool:
    """The folders of a spool and what both sides do with them."""

    def __init__(self, folder: str | Path) -> None:
        self.root = Path(folder).absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._mode = self.root.stat().st_mode & 0o777
            for name in ("requests", "running", "answers", "failed", "servers"):
                self.make(self.root / name, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"the spool folder cannot be used: {error.strerror}",
                path=folder,
                field="--spool_dir",
                fix="name a folder that both sides can write",
            ) from error
        self.requests, self.running = self.root / "requests", self.root / "running"
        self.answers, self.failed, self.servers = self.root / "answers", self.root / "failed", self.root / "servers"

    def make(self, folder: Path, *, exist_ok: bool = False) -> None:
        """Make `folder` as open as the spool itself."""
        if exist_ok and folder.is_dir():
            return
        folder.mkdir(exist_ok=exist_ok)
        folder.chmod(self._mode)

    @property
    def umask(self) -> int:
        """The umask under which files made in the spool are as open as the spool itself."""
        return 0o777 & ~self._mode

    def locate(self, name: str) -> Path:
        """Return where the request called `name` is now; `requests` hides it while it is written."""
        places = [folder / name for folder in (self.answers, self.running, self.requests, self.failed)]
        return next((place for place in places if place.exists()), self.requests / f".{name}")

    def withdraw(self, name: str) -> Path:
        """Move a request that failed to where no server and no clean-up finds it; return its place."""
        place = self.locate(name)
        try:
            return place.rename(self.failed / name)
        except OSError:
            return place

    def remove_stale(self) -> None:
        """Remove answers nobody fetched for an hour: their clients are gone."""
        for answer in self.answers.iterdir():
            try:
                if answer.lstat().st_mtime < time.time() - _STALE_S:
                    remove(answer)
            except OSError:
                continue


def remove(place: Path) -> None:
    """Remove a folder with all that is in it, or whatever else has taken its name; nothing is followed."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def read_output(answer: Path) -> Output:
    """Read what a server left in an answer's folder. Raises `RunFailedError` when it is not all there."""
    try:
        with GuardedFolder(answer) as folder:
            exit_code = whole_number(folder.read("exit_code").decode().strip(), -(1 << 31), (1 << 31) - 1)
            stdout, stderr = (folder.read(name).decode(errors="replace") for name in ("stdout", "stderr"))
            identity = folder.read("identity").decode(errors="replace").strip()
    except (OSError, ValueError) as error:
        raise RunFailedError(f"the server's answer is incomplete ({error}): its disk may be full") from error
    if exit_code is None:
        raise RunFailedError("the server's answer is incomplete (no exit code): its disk may be full")
    return Output(exit_code, stdout, stderr, identity or None)


def wait_for_answer(
    spool: Spool, name: str, timeout_s: float, check_alive: Callable[[Path], None], clock: Timer = SYSTEM
) -> Path:
    """Wait until the answer called `name` is there and return its folder.

    `check_alive` is called again and again with the folder a server runs the request in, and raises when nobody can
    answer any more. Raises `RunFailedError` when the run itself takes longer than `timeout_s`.
    """
    answer, running = spool.answers / name, spool.running / name
    start = checked = clock.monotonic()
    claimed: float | None = None
    while not answer.exists():
        now = clock.monotonic()
        if now - checked > _CHECK_EVERY_S:
            checked = now
            if claimed is None and running.exists():
                claimed = now
            if claimed is not None and now - claimed > timeout_s:
                raise RunFailedError(
                    f"it hung: no answer {timeout_s:g} s after it began (--backend_timeout sets the limit)"
                )
            check_alive(running)
        clock.sleep(_QUICK_POLL_S if now - start < _QUICK_FOR_S else _SLOW_POLL_S)
    return answer


class SpoolRunner:
    """Hands each run to whoever serves the spool folder; notices within `silence_s` when nobody does.

    `timeout_s` counts from the moment a server takes the run: waiting for other clients' runs does not count.
    """

    def __init__(
        self, folder: str | Path, *, timeout_s: float, silence_s: float = SILENCE_S, clock: Timer = SYSTEM
    ) -> None:
        self._spool = Spool(folder)
        self._spool.remove_stale()
        self._client = secrets.token_hex(6)
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._clock = clock
        self._pulse = Pulse(self._spool.servers, clock)

    @property
    def description(self) -> str:
        """The folder."""
        return f"spool folder {self._spool.root}"

    def identity(self) -> str | None:
        """Return the identity of the living servers if they agree on one. Waits for a server to be there."""
        deadline = self._clock.monotonic() + self._silence_s
        while not (alive := self._pulse.alive(self._silence_s)) and self._clock.monotonic() < deadline:
            self._clock.sleep(_SLOW_POLL_S)
        identities = {self._read_identity(server) for server in alive}
        return identities.pop() if len(identities) == 1 else None

    def new_folder(self, name: str) -> Path:
        """Make a folder that servers do not see yet."""
        folder = self._spool.requests / f".{self._client}-{name}"
        self._spool.make(folder)
        return folder

    def run(self, folder: Path, arguments: Sequence[str]) -> Output:
        """Publish the request, wait for the answer and read it."""
        (folder / "arguments").write_text("".join(f"{argument}\n" for argument in arguments), encoding="utf-8")
        name = folder.name.removeprefix(".")
        folder.rename(self._spool.requests / name)
        return read_output(wait_for_answer(self._spool, name, self._timeout_s, self._check_alive, self._clock))

    def command_line(self, arguments: Sequence[str]) -> str:
        """Return the arguments after a name that stands for the server's binary."""
        return " ".join(["AstraSim_Analytical_Congestion_Unaware", *arguments])

    def discard(self, folder: Path) -> None:
        """Remove the answer."""
        remove(self._spool.locate(folder.name.removeprefix(".")))

    def locate(self, folder: Path) -> Path:
        """Withdraw the request and return where it is kept."""
        return self._spool.withdraw(folder.name.removeprefix("."))

    def close(self) -> None:
        """Nothing to stop: the server is not ours."""

    def _check_alive(self, running: Path) -> None:
        alive = self._pulse.alive(self._silence_s)
        if not alive and self._pulse.watched_s() > self._silence_s:
            raise RunFailedError(
                f"nobody serves {self._spool.root}: no sign of a server for {self._silence_s:g} s; start one with "
                f"`{_SERVE} {self._spool.root}` or `docker compose --profile astra-sim up -d astra-sim`"
            )
        try:
            with GuardedFolder(running) as folder:
                server = folder.read("server").decode(errors="replace").strip()
        except OSError:
            return
        if server and self._pulse.watched_s() > self._silence_s and server not in alive:
            raise RunFailedError(f"the server {server} took the run and then stopped: killed in mid-run?")

    def _read_identity(self, server: str) -> str | None:
        try:
            with GuardedFolder(self._spool.servers) as folder:
                return folder.read(server).decode().splitlines()[0] or None
        except (OSError, ValueError, IndexError):
            return None


class Pulse:
    """Which servers' files were touched lately, by our own clock or the file system's: the two sides' may differ."""

    def __init__(self, folder: Path, clock: Timer = SYSTEM) -> None:
        self._folder, self._clock = folder, clock
        self._since = clock.monotonic()
        self._seen: dict[str, tuple[int, float | None]] = {}
        self._looked = -1.0

    def watched_s(self) -> float:
        """How long this has been watching, in seconds."""
        return self._clock.monotonic() - self._since

    def alive(self, silence_s: float) -> list[str]:
        """Return the servers whose file appeared or changed under our eyes in the last `silence_s` seconds."""
        now = self._clock.monotonic()
        if now - self._looked > 0.1:
            self._look(now)
        return sorted(
            name for name, (_, changed) in self._seen.items() if changed is not None and now - changed < silence_s
        )

    def _look(self, now: float) -> None:
        """Note every change. What lies there at the first look counts if it was touched in the last seconds."""
        fresh_after = self._folder_time_ns() - _FRESH_NS if self._looked < 0 else 0
        found: dict[str, tuple[int, float | None]] = {}
        for entry in os.scandir(self._folder):
            if entry.name.startswith(".") or entry.name.endswith(".new"):
                continue
            try:
                stamp = entry.stat(follow_symlinks=False).st_mtime_ns
            except FileNotFoundError:
                continue
            old = self._seen.get(entry.name)
            if old is None:
                found[entry.name] = (stamp, now if stamp > fresh_after else None)
            else:
                found[entry.name] = old if old[0] == stamp else (stamp, now)
        self._seen, self._looked = found, now

    def _folder_time_ns(self) -> int:
        """The time as the folder's file system stamps it."""
        probe = self._folder / f".probe-{secrets.token_hex(6)}"
        probe.touch()
        stamp = probe.stat().st_mtime_ns
        probe.unlink()
        return stamp
