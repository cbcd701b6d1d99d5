"""Our own files: tab-separated columns (see `orchestrator.workload`). What no format recognises is read as one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.requests.formats import OWN, RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.reading import Reading
    from orchestrator.workload import ReadWorkload


def read(path: Path, reading: Reading) -> ReadWorkload:
    """Read a file of `input_toks  output_toks  arrival_time_ns`."""
    from orchestrator.workload import read_workload

    return read_workload(path, reading.limit, reading.bad)


request_formats.register(OWN)(RequestFormat(None, read))
