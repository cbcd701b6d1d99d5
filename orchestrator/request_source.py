"""The requests of a run: read once, checked against the scheduler, handed out as they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from foundation.errors import UserError
from foundation.records import dataclass
from orchestrator.deployment import Unfit
from orchestrator.request_table import RequestTable
from orchestrator.requests.formats import read_requests
from orchestrator.requests.importing.reading import BadRecords, Reading
from orchestrator.requests.importing.texts import TextTokens
from orchestrator.requests.request import Request
from orchestrator.settings.run import WorkloadSettings
from orchestrator.workload import ADAPTER_COLUMN, ReadWorkload

Refuses = Callable[[Request], Unfit | None]
"""Why a request can never be served to its end; None: it can, or it is turned away at the door."""
Holds = Callable[[Request], bool]
"""Whether there is room for a request, and so for all that are no longer."""
UNTIMED = "the file has no arrival times: all requests arrive at 0"


@dataclass(frozen=True, slots=True)
class RequestSource:
    """The requests that a run serves, of those called `name`; `skipped` others can never fit.

    `rows`: as many requests there were to choose from. `read_as`: which format a file has, and where its token counts
    are from. `notes`: what a user should know of it.
    """

    name: str
    table: RequestTable
    skipped: int
    rows: int
    read_as: str = ""
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many requests are served."""
        return len(self.table)

    @property
    def described(self) -> str:
        """The workload in a few words."""
        taken = self.count + self.skipped
        of = f" in {sessions} session{'s' if sessions > 1 else ''}" if (sessions := self._sessions()) else ""
        read = f" ({self.read_as})" if self.read_as else ""
        return (
            f"{taken if taken == self.rows else f'the first {taken} of {self.rows}'} requests of {self.name}{of}{read}"
        )

    def _sessions(self) -> int:
        """Return how many sessions there are."""
        columns = self.table.sessions
        return 0 if columns is None else int(np.count_nonzero(columns.opens() & (columns.number > 0)))

    def longer_than(self, tokens: int) -> int:
        """Return how many requests grow beyond `tokens` tokens."""
        return int(np.count_nonzero(self.table.prompt_tokens + self.table.output_tokens > tokens))

    def requests(self) -> Iterator[Request]:
        """Return the requests in order of arrival."""
        return iter(self.table)


def open_source(workload: WorkloadSettings, refuses: Refuses, holds: Holds, *, retrieved: int = 0) -> RequestSource:
    """Read the workload and check it from its first row to its last; prompts get `retrieved` tokens more.

    A malformed row, and (without `skip_unfit`) a request that can never fit, is a `UserError` with its line. A session
    that has one is skipped from there on.
    """
    read = read_workload_of(workload)
    table = with_adapters(read.requests, workload).with_retrieved(retrieved)
    fits = _fitting(table, refuses, holds)
    name = name_of(workload)
    if not fits.all():
        first = next(iter(table.at(~fits)))
        unfit = refuses(first)
        if unfit is not None and not workload.skip_unfit:
            raise _unfit(workload, first, unfit)
        if unfit is not None and not fits.any():
            raise UserError(f"none of the {len(table)} requests fits", path=name, fix=unfit.fix)
    fits = table.reached(fits)
    return RequestSource(
        name, table.at(fits).in_arrival_order(), int((~fits).sum()), read.rows, read.described, _notes(read)
    )


def name_of(workload: WorkloadSettings) -> str:
    """Return what the requests are called."""
    if workload.dataset is not None:
        return str(workload.dataset)
    return f"{'the sample' if workload.is_sample else 'generated traffic'} (seed {workload.seed})"


def read_workload_of(workload: WorkloadSettings) -> ReadWorkload:
    """Read the requests that the settings name, or make them; what is wrong is a `UserError`."""
    if workload.dataset is None:
        from orchestrator.requests.generators.generating import Generator

        table = Generator(workload.mixture, workload.seed, workload.count, workload.until_ns).table()
        return ReadWorkload(table, len(table))
    texts = TextTokens(workload.tokenizer, workload.chars_per_token)
    reading = Reading(bad=BadRecords(workload.skip_bad_records), texts=texts)
    read = read_requests(workload.dataset, workload.req_num or None, named=workload.dataset_format, reading=reading)
    if workload.replaces_times:
        from orchestrator.requests.generators.generating import arrival_times

        requests = read.requests.openings()
        times = arrival_times(workload.mixture[0], workload.seed, len(requests), workload.dataset)
        read = replace(read, requests=read.requests.arriving(times), timed=True)
    return read if workload.until_ns is None else replace(read, requests=_before(read.requests, workload.until_ns))


def _before(table: RequestTable, until_ns: int) -> RequestTable:
    """Return the requests that arrive before a time; there is one at least."""
    early = table.arrival_ns < until_ns
    if not early.any():
        fix = f"give more than {int(table.arrival_ns.min()) / 1e9:g}"
        raise UserError("no request arrives so early", field="--duration", fix=fix)
    return table.at(early)


def _notes(read: ReadWorkload) -> tuple[str, ...]:
    """Return what a user should know of a file that was read."""
    return read.notes if read.timed else (*read.notes, UNTIMED)


def with_adapters(table: RequestTable, workload: WorkloadSettings) -> RequestTable:
    """Return `table` with as many adapters in turn as are asked for."""
    if workload.lora_adapters is None:
        return table
    if table.adapter is not None:
        raise UserError(
            f"--lora_adapters {workload.lora_adapters}, but every row names its own",
            path=workload.dataset,
            field=ADAPTER_COLUMN,
            fix="leave the flag or the column out",
        )
    return replace(table, adapter=table.id % workload.lora_adapters + 1)


def _fitting(table: RequestTable, refuses: Refuses, holds: Holds) -> np.typing.NDArray[np.bool_]:
    """Return which requests are not refused. Mostly there is room for the longest, and one question is enough."""
    if holds(table.longest()):
        return np.ones(len(table), dtype=np.bool_)
    return np.fromiter((refuses(request) is None for request in table), np.bool_, len(table))


def _unfit(workload: WorkloadSettings, request: Request, unfit: Unfit) -> UserError:
    what = (
        unfit.why
        if workload.dataset
        else f"request {request.id} of {name_of(workload).partition(' (')[0]}: {unfit.why}"
    )
    fix = f"{unfit.fix}, or drop such requests with --skip_unfit"
    return UserError(what, path=workload.dataset, line=request.source_line, fix=fix)
