"""Which tests reach which lines, and how long they take: recorded once for a state of the code, by coverage.py.

Programs that tests start are measured too: every Python process below the recording one finds `sitecustomize` on its
path, which starts coverage under the name of the test that is running.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mutation import plugin
from benchmarks.mutation.workspace import HELPER, Workspace

_START = "import coverage\n\ncoverage.process_startup()\n"
_SETTINGS = """\
[run]
data_file = {folder}/lines
parallel = true
sigterm = true
context = ${{{test}-}}
source = {root}
omit = {root}/tests/*
"""


@dataclass(frozen=True, slots=True)
class Recording:
    """Tests with their seconds, and the lines they reach (in a database of coverage.py, by file below `root`)."""

    seconds: dict[str, float]
    database: Path
    root: Path

    def tests_of(self, file: str, first: int = 1, last: int = sys.maxsize) -> set[str] | None:
        """Return the tests that reach any of the lines `first` to `last` of `file`; None where nothing runs them.

        The set is empty for lines that run while modules are imported, before any test.
        """
        from coverage.numbits import numbits_to_nums

        found: set[str] | None = None
        with closing(sqlite3.connect(self.database)) as connection:
            rows = connection.execute(
                "SELECT context.context, line_bits.numbits FROM line_bits JOIN context ON context.id = context_id "
                "JOIN file ON file.id = file_id WHERE file.path = ?",
                (str(self.root / file),),
            )
            for context, numbits in rows:
                if any(first <= line <= last for line in numbits_to_nums(numbits)):
                    found = (found or set()) | self._named(context)
        return found

    def _named(self, context: str) -> set[str]:
        """Return the tests that a context stands for: of a set-up, all tests of its file."""
        if not context.endswith(plugin.SETUP):
            return {context} & self.seconds.keys()
        file = context.split("::")[0]
        return {test for test in self.seconds if test.split("::")[0] == file}


def record(workspace: Workspace, folder: Path, arguments: list[str], jobs: int) -> Recording:
    """Run the whole suite once in `workspace`; keep what is found in `folder`, and reuse it when it is there."""
    database, tests = folder / "lines.sqlite", folder / "tests.json"
    if not tests.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run(workspace, folder, arguments, jobs)
        _check_collected(folder)
        _combine(folder, database)
        found: dict[str, tuple[float, bool]] = {}
        for path in folder.glob("tests-*.json"):
            found |= json.loads(path.read_text())
            path.unlink()
        broken = sorted(name for name, (_, passed) in found.items() if not passed)
        for name in broken:
            print(f"not used, it fails or is skipped without any change: {name}", file=sys.stderr)
        passing = {name: seconds for name, (seconds, passed) in found.items() if passed}
        tests.write_text(json.dumps({"root": str(workspace.root), "seconds": passing}))
    known = json.loads(tests.read_text())
    return Recording(known["seconds"], database, Path(known["root"]))


def _run(workspace: Workspace, folder: Path, arguments: list[str], jobs: int) -> None:
    helpers = workspace.root.parent / "recording-helpers"
    helpers.mkdir(exist_ok=True)
    (helpers / "sitecustomize.py").write_text(_START)
    settings = helpers / "coverage.ini"
    settings.write_text(_SETTINGS.format(folder=folder, root=workspace.root, test=plugin.TEST))
    environment = workspace.environment()
    environment |= {"COVERAGE_PROCESS_START": str(settings), plugin.RECORD: str(folder)}
    environment["PYTHONPATH"] = os.pathsep.join([str(helpers), environment["PYTHONPATH"]])
    command = [sys.executable, "-m", "pytest", "-q", "-p", HELPER, *arguments]
    command += ["-n", str(jobs)] if jobs > 1 else []
    subprocess.run(command, cwd=workspace.root, env=environment, check=False, stdout=sys.stderr)


def _check_collected(folder: Path) -> None:
    """Raise where a file of tests could not be imported: runs with it fail whatever is changed."""
    uncollected = {name for path in folder.glob("uncollected-*.json") for name in json.loads(path.read_text())}
    if uncollected:
        raise RuntimeError(f"pytest cannot collect {', '.join(sorted(uncollected))}")


def _combine(folder: Path, database: Path) -> None:
    from coverage import CoverageData

    data = CoverageData(basename=str(database))
    for path in sorted(folder.glob("lines.*")):
        if path != database:
            part = CoverageData(basename=str(path))
            part.read()
            data.update(part)
            path.unlink()
    data.write()
    data.close()
