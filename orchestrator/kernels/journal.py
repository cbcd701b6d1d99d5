"""Prices as they become known: a line a job, so that what is killed goes on where it was.

    {"job": 17, "times": [5312, 5401]}

The file's name has the fingerprint of what is priced, so that other settings never meet what was left of these. A line
that a kill cut off is not one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundation.files import read_text
from foundation.part_files import SUFFIX, PartFile
from trace_gen.kernels.grid import Job

_LIMIT = 1 << 30


class Journal:
    """The prices (ns) of `jobs` in `folder`, by the number of the job: `times`; see the module's docstring.

    A folder that cannot be written, or that another program writes to, is a `UserError`.
    """

    def __init__(self, folder: Path, fingerprint: str, jobs: Sequence[Job]) -> None:
        self.times: dict[int, list[int]] = {}
        self._jobs = jobs
        path = folder / f".kernels-{fingerprint}.jsonl"
        begun = path.with_name(f"{path.name}{SUFFIX}")
        text = read_text(begun, "unfinished kernel table", _LIMIT) if begun.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        for line in whole.splitlines():
            self._take(line)
        self._part = PartFile(path, resume_at=len(whole.encode()) if begun.exists() else None)

    def _take(self, line: str) -> None:
        """Keep the job of a line, unless something else has written there."""
        try:
            found: Any = json.loads(line)
            job, times = found["job"], found["times"]
        except (ValueError, TypeError, KeyError):
            return
        if job in range(len(self._jobs)) and isinstance(times, list) and len(times) == len(self._jobs[job].sizes):
            self.times[job] = [int(time) for time in times]

    def keep(self, job: int, times: Sequence[int]) -> None:
        """Keep the prices of a job; they are on file when this returns."""
        self._part.write(json.dumps({"job": job, "times": [*times]}) + "\n")
        self._part.flush()
        self.times[job] = [*times]

    def close(self, *, done: bool) -> None:
        """Close the file, which stays unless all is `done`."""
        self._part.close()
        if done:
            self._part.part.unlink(missing_ok=True)
