"""The requests of a file as they are read, one after another, and as a table when all are there."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from foundation.errors import UserError
from orchestrator.request_table import BlockHashes, RequestTable, SessionColumns, TokenIds
from orchestrator.requests.importing.beginning import WHAT
from orchestrator.requests.importing.reading import Reading
from orchestrator.workload import LATEST_ARRIVAL_NS, ReadWorkload

_FIELDS = 7


class Rows:
    """Collects requests until there are as many as `reading` asks for; those beyond are counted."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self._path = path
        self._reading = reading
        self._fields = array("q")
        self._prompt_ids, self._prompt_ends = array("i"), array("q")
        self._output_ids, self._output_ends = array("i"), array("q")
        self._hashes, self._hash_ends = array("q"), array("q")
        self._sessions = 0
        self._beyond = 0

    def __len__(self) -> int:
        return len(self._prompt_ends)

    @property
    def full(self) -> bool:
        """Whether there are as many as asked for."""
        return self._reading.limit is not None and len(self) >= self._reading.limit

    def pass_over(self, requests: int = 1) -> None:
        """Count requests that are not taken any more."""
        self._beyond += requests

    def add(
        self,
        prompt: int,
        output: int,
        arrival_ns: int = 0,
        line: int | None = None,
        *,
        session: int = 0,
        pause_ns: int = 0,
        prompt_ids: Sequence[int] = (),
        output_ids: Sequence[int] = (),
        hashes: Iterable[int] = (),
        priority: int = 0,
    ) -> None:
        """Take a request, or count it if there are enough; ids and hashes are empty where they are not known."""
        if self.full:
            self.pass_over()
            return
        self._fields.extend((prompt, output, arrival_ns, line or 0, session, pause_ns, priority))
        self._prompt_ids.extend(prompt_ids)
        self._output_ids.extend(output_ids)
        self._hashes.extend(hashes)
        self._prompt_ends.append(len(self._prompt_ids))
        self._output_ends.append(len(self._output_ids))
        self._hash_ends.append(len(self._hashes))

    def new_session(self) -> int:
        """Return the number of a session that begins."""
        self._sessions += 1
        return self._sessions

    @contextmanager
    def record(self) -> Iterator[None]:
        """Read one record in the block: where it is malformed, nothing of it stays."""
        rows, beyond, sessions = len(self), self._beyond, self._sessions
        try:
            yield
        except UserError as error:
            self._reading.bad.take(error)
            self._cut(rows)
            self._beyond, self._sessions = beyond, sessions

    def result(self, *, block: int = 0, from_first: bool = False, timed: bool = True) -> ReadWorkload:
        """Return what was read; a file without requests is a `UserError`.

        `block`: tokens of a block that a hash stands for. `from_first`: arrivals count from the earliest.
        """
        if not len(self):
            raise UserError(f"the {WHAT} holds no requests", path=self._path, fix="give at least one")
        columns = np.array(self._fields, dtype=np.int64).reshape(-1, _FIELDS).T
        prompts, outputs, arrivals, lines, sessions, pauses, priorities = map(np.ascontiguousarray, columns)
        table = RequestTable(
            np.arange(len(prompts)),
            prompts,
            outputs,
            counted_from_first(arrivals, lines, self._path) if from_first else arrivals,
            lines,
            sessions=SessionColumns(sessions, pauses) if self._sessions else None,
            prompt_ids=self._known(prompts, block),
            output_ids=_ids(self._output_ids, self._output_ends) if self._output_ids else None,
            priority=priorities if priorities.any() else None,
        )
        return ReadWorkload(table, len(self) + self._beyond, timed=timed)

    def _known(self, prompts: np.typing.NDArray[np.int64], block: int) -> TokenIds | BlockHashes | None:
        if self._hashes:
            begins, ends = _bounds(self._hash_ends)
            return BlockHashes(self._hashes, begins, ends, prompts, block)
        return _ids(self._prompt_ids, self._prompt_ends) if self._prompt_ids else None

    def _cut(self, rows: int) -> None:
        """Forget all requests after the first so many."""
        del self._fields[rows * _FIELDS :]
        for values, ends in (
            (self._prompt_ids, self._prompt_ends),
            (self._output_ids, self._output_ends),
            (self._hashes, self._hash_ends),
        ):
            del ends[rows:]
            del values[ends[-1] if ends else 0 :]


def counted_from_first(
    arrivals: np.typing.NDArray[np.int64], lines: np.typing.NDArray[np.int64], path: Path, field: str | None = None
) -> np.typing.NDArray[np.int64]:
    """Return arrivals (ns, from any beginning) counted from the earliest; beyond what a clock holds, a `UserError`."""
    first, last = int(arrivals.min()), int(arrivals.max())
    if last - first > LATEST_ARRIVAL_NS:
        line = int(lines[int(arrivals.argmax())])
        what = f"{(last - first) / 1e9:.0f} s after the first"
        raise UserError(what, path=path, line=line or None, field=field, fix="give times within 146 years")
    return arrivals - first


def _bounds(ends: array[int]) -> tuple[np.typing.NDArray[np.int64], np.typing.NDArray[np.int64]]:
    bounds = np.zeros(len(ends) + 1, dtype=np.int64)
    bounds[1:] = ends
    return bounds[:-1], bounds[1:]


def _ids(values: array[int], ends: array[int]) -> TokenIds:
    return TokenIds(values, *_bounds(ends))
