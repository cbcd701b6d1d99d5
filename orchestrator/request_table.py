"""Requests as columns: a workload of millions costs bytes, not objects, and is made into objects as they arrive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from orchestrator.requests.request import Request

IntArray = NDArray[np.int64]
_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class RequestTable:
    """Columns ``[n]``: id, prompt and output tokens, arrival (ns), and the line of the workload file (0: none).

    `adapter` is the number of the LoRA adapter that a request is served with, from 1 on (0: with none); None: nobody
    has one.
    """

    id: IntArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    arrival_ns: IntArray
    line: IntArray
    adapter: IntArray | None = None

    @classmethod
    def of(cls, requests: Iterable[Request]) -> RequestTable:
        """Return a table of requests."""
        rows = [(r.id, r.prompt_tokens, r.output_tokens, r.arrival_ns, r.source_line or 0) for r in requests]
        return cls(*np.array(rows, dtype=np.int64).reshape(-1, 5).T)

    def __len__(self) -> int:
        return len(self.id)

    def __iter__(self) -> Iterator[Request]:
        columns = (self.id, self.arrival_ns, self.prompt_tokens, self.output_tokens, self.line)
        for begin in range(0, len(self), _AT_ONCE):
            rows = zip(*(column[begin : begin + _AT_ONCE].tolist() for column in columns), strict=True)
            served = repeat(0) if self.adapter is None else self.adapter[begin : begin + _AT_ONCE].tolist()
            for (identity, arrival, prompt, output, line), adapter in zip(rows, served, strict=False):
                name = f"adapter {adapter}" if adapter else None
                yield Request(identity, arrival, prompt, output, source_line=line or None, adapter=name)

    def at(self, places: IntArray | NDArray[np.bool_]) -> RequestTable:
        """Return the rows at `places`, in that order, or those where a mask is true."""
        return RequestTable(
            self.id[places],
            self.prompt_tokens[places],
            self.output_tokens[places],
            self.arrival_ns[places],
            self.line[places],
            None if self.adapter is None else self.adapter[places],
        )

    def in_arrival_order(self) -> RequestTable:
        """Return the rows in order of arrival; equal arrivals keep their order."""
        if bool((np.diff(self.arrival_ns) >= 0).all()):
            return self
        return self.at(np.argsort(self.arrival_ns, kind="stable"))

    def longest(self) -> Request:
        """Return a request as long as the longest prompt with the longest output."""
        return Request(-1, 0, int(self.prompt_tokens.max()), int(self.output_tokens.max()))
