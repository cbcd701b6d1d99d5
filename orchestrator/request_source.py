"""The requests of a run: read once, checked against the scheduler, handed out as they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from foundation.errors import UserError
from orchestrator.request_table import RequestTable
from orchestrator.requests.request import Request
from orchestrator.settings.run import WorkloadSettings
from orchestrator.workload import ReadWorkload, read_workload

Refuses = Callable[[Request], str | None]
"""Why a request can never be served to its end; None: it can."""
SAMPLE_PROFILE = "sharegpt-like"
SAMPLE_RATE = 10.0
SAMPLE_REQUESTS = 100


@dataclass(frozen=True, slots=True)
class RequestSource:
    """The requests that a run serves, of those called `name`; `skipped` others can never fit.

    `rows`: as many requests there were to choose from.
    """

    name: str
    table: RequestTable
    skipped: int
    rows: int

    @property
    def count(self) -> int:
        """How many requests are served."""
        return len(self.table)

    @property
    def described(self) -> str:
        """The workload in a few words."""
        taken = self.count + self.skipped
        return f"{taken if taken == self.rows else f'the first {taken} of {self.rows}'} requests of {self.name}"

    def longer_than(self, tokens: int) -> int:
        """Return how many requests grow beyond `tokens` tokens."""
        return int(np.count_nonzero(self.table.prompt_tokens + self.table.output_tokens > tokens))

    def requests(self) -> Iterator[Request]:
        """Return the requests in order of arrival."""
        return iter(self.table)


def open_source(workload: WorkloadSettings, refuses: Refuses) -> RequestSource:
    """Read the workload and check it from its first row to its last.

    A malformed row, and (without `skip_unfit`) a request that can never fit, is a `UserError` with its line.
    """
    read = _read(workload)
    table = read.requests
    fits = _fitting(table, refuses)
    if not workload.skip_unfit and not fits.all():
        request = next(iter(table.at(~fits)))
        raise _unfit(workload, request, str(refuses(request)))
    name = str(workload.dataset) if workload.dataset else f"the sample (seed {workload.seed})"
    if not fits.any():
        what = f"none of the {len(table)} requests fits"
        raise UserError(what, path=name, fix="give more memory (--npu_mem, --npu_num)")
    return RequestSource(name, table.at(fits).in_arrival_order(), int((~fits).sum()), read.rows)


def _read(workload: WorkloadSettings) -> ReadWorkload:
    if workload.dataset is not None:
        return read_workload(workload.dataset, workload.req_num or None)
    from orchestrator.workload_generator import generate

    count = workload.req_num or SAMPLE_REQUESTS
    table = RequestTable.of(islice(generate(SAMPLE_PROFILE, SAMPLE_RATE, workload.seed), count))
    return ReadWorkload(table, count)


def _fitting(table: RequestTable, refuses: Refuses) -> np.typing.NDArray[np.bool_]:
    """Return which requests may fit. Where one does, all that are no longer do, so mostly one question is enough."""
    if refuses(table.longest()) is None:
        return np.ones(len(table), dtype=np.bool_)
    return np.fromiter((refuses(request) is None for request in table), np.bool_, len(table))


def _unfit(workload: WorkloadSettings, request: Request, why: str) -> UserError:
    what = why if workload.dataset else f"request {request.id} of the sample: {why}"
    fix = "give more memory (--npu_mem, --npu_num), or drop such requests with --skip_unfit"
    return UserError(what, path=workload.dataset, line=request.source_line, fix=fix)
