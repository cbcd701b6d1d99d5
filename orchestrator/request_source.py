"""The requests of a run: checked against the scheduler once, then read again as they arrive, never held at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from foundation.errors import UserError
from orchestrator.request import Request
from orchestrator.schedulers.interface import Scheduler
from orchestrator.settings.run import WorkloadSettings
from orchestrator.workload import in_arrival_order, read_workload

SAMPLE_PROFILE = "sharegpt-like"
SAMPLE_RATE = 10.0
SAMPLE_REQUESTS = 100


@dataclass(frozen=True, slots=True)
class RequestSource:
    """`count` requests called `name`; `skipped` others can never fit."""

    name: str
    count: int
    skipped: int
    open: Callable[[], Iterator[Request]]

    def requests(self) -> Iterator[Request]:
        """Return the requests that fit, in order of arrival."""
        return self.open()


def open_source(workload: WorkloadSettings, scheduler: Scheduler) -> RequestSource:
    """Check the workload from its first row to its last.

    A malformed row, and (without `skip_unfit`) a request that can never fit, is a `UserError` with its line.
    """
    name = str(workload.dataset) if workload.dataset else f"the sample (seed {workload.seed})"
    count, skipped, previous, ordered = 0, 0, 0, True
    for request in _read(workload):
        reason = scheduler.unfit(request)
        if reason is not None:
            if not workload.skip_unfit:
                raise _unfit(workload, request, reason)
            skipped += 1
            continue
        count += 1
        ordered = ordered and previous <= request.arrival_ns
        previous = request.arrival_ns
    if count == 0:
        raise UserError(
            f"none of the {skipped} requests fits", path=name, fix="give more memory (--npu_mem, --npu_num)"
        )

    def fitting() -> Iterator[Request]:
        return (request for request in _read(workload) if not skipped or scheduler.unfit(request) is None)

    def reopen() -> Iterator[Request]:
        return fitting() if ordered else iter(in_arrival_order(fitting()))

    return RequestSource(name, count, skipped, reopen)


def _read(workload: WorkloadSettings) -> Iterator[Request]:
    if workload.dataset is not None:
        return read_workload(workload.dataset, workload.req_num)
    from orchestrator.workload_generator import generate

    return islice(generate(SAMPLE_PROFILE, SAMPLE_RATE, workload.seed), workload.req_num or SAMPLE_REQUESTS)


def _unfit(workload: WorkloadSettings, request: Request, reason: str) -> UserError:
    what = reason if workload.dataset else f"request {request.id} of the sample: {reason}"
    fix = "give more memory (--npu_mem, --npu_num), or drop such requests with --skip_unfit"
    return UserError(what, path=workload.dataset, line=request.source_line, fix=fix)
