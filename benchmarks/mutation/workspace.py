"""A copy of the tree in which changes are tried: the tree itself is never touched."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.mutation import plugin
from benchmarks.mutation.changes import Change

HELPER = "orrery_mutation"
"""The name under which pytest loads `plugin`."""
_OF_AN_OUTER_RUN = ("ORRERY_MUTATION_", "COVERAGE_PROCESS_START")
_FOUND_NOTHING = 5
"""Pytest's exit code when no test was collected."""
_LEFT_OUT = (".git", ".venv", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis")
_RESULTS = "output"
"""The folder of a user's results at the top of the tree; packages may have rooms of that name."""


class Workspace:
    """A copy of `source` at `folder`/tree, with a home and a temporary folder of its own beside it."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.root, self._source, self._folder = folder / "tree", source, folder
        self._clock = 0
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("home", "tmp", "helpers"):
            (folder / name).mkdir(parents=True)
        shutil.copytree(source, self.root, ignore=self._left_out, symlinks=True)
        shutil.copy(plugin.__file__, folder / "helpers" / f"{HELPER}.py")

    def _left_out(self, folder: str, names: list[str]) -> set[str]:
        """Return which of the `names` in `folder` are not copied."""
        return shutil.ignore_patterns(*_LEFT_OUT, *([_RESULTS] if Path(folder) == self._source else []))(folder, names)

    def environment(self) -> dict[str, str]:
        """Return the environment of everything that runs here: it finds the copy before any installed code."""
        paths = [str(self.root), str(self._folder / "helpers")]
        own = {"PYTHONPATH": os.pathsep.join(paths), "HOME": str(self._folder / "home")}
        own |= {"TMPDIR": str(self._folder / "tmp"), "XDG_CACHE_HOME": str(self._folder / "home" / "cache")}
        own["ORRERY_SHARED"] = os.environ.get("ORRERY_SHARED", str(self._source.parent / "shared"))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OF_AN_OUTER_RUN)}
        return {**inherited, **own}

    def passes(self, change: Change | None, tests: list[str], limit_s: float) -> bool:
        """Whether `tests`, in this order up to the first failure, pass with `change` within `limit_s` seconds."""
        if change is None:
            return self._run(tests, limit_s)
        path = self.root / change.file
        before = path.read_bytes()
        try:
            self._write(path, change.apply(before))
            return self._run(tests, limit_s)
        finally:
            self._write(path, before)

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file with a time that it never had: Python takes compiled code by time and size."""
        self._clock += 1
        path.write_bytes(content)
        os.utime(path, (self._clock, self._clock))

    def _run(self, tests: list[str], limit_s: float) -> bool:
        chosen = self._folder / "chosen.json"
        chosen.write_text(json.dumps(tests))
        files = list(dict.fromkeys(name.split("::")[0] for name in tests))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", HELPER, *files]
        log = self._folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=self.environment() | {plugin.CHOSEN: str(chosen)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code = _wait(process, limit_s)
        shutil.rmtree(self._folder / "tmp", ignore_errors=True)
        (self._folder / "tmp").mkdir(exist_ok=True)
        if code == _FOUND_NOTHING:
            raise RuntimeError(f"pytest found none of {tests[:3]}: {log.read_text(errors='replace')[-500:]}")
        return code == 0


def _wait(process: subprocess.Popen[bytes], limit_s: float) -> int:
    """Return the exit code; a run that hangs is killed with whatever it started."""
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return -1
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
