"""Attention is apart for every request, or one row that lists its requests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trace_gen.trace import NO_REQUEST, Trace
from trace_test.operators import ATTENTION, blocks, members, mesh_of, rows_named
from trace_test.rule import Rule, Subject, Violation

EITHER = -1
"""As an operator: latent attention of either form."""


def check(subject: Subject) -> Iterator[Violation]:
    """Compare the attention rows of each block, operator and sub-batch with the batch."""
    trace = subject.trace
    assert trace is not None
    rows = rows_named(trace, ATTENTION)
    block = blocks(trace)
    member = members(trace)[trace.rank_set]
    latent = "latent_attention" in trace.op_names
    sections: dict[tuple[int, ...], list[int]] = {}
    for row in rows.tolist():
        # Requests are divided over the two forms of latent attention; each of them has a row for the whole batch.
        operator = EITHER if latent and trace.request[row] != NO_REQUEST else int(trace.op[row])
        place = (int(block[row]), operator, int(trace.sub_batch[row]), int(member[row]))
        sections.setdefault(place, []).append(row)
    whole = not member.any()
    for section in sections.values():
        yield from _section(subject, trace, np.array(section), whole)


def _section(subject: Subject, trace: Trace, rows: NDArray[np.int64], whole: bool) -> Iterator[Violation]:
    """Check the rows of one block and member; `whole` says that there is only one member, whose batch is listed."""
    own = trace.request[rows]
    where = subject.row(int(rows[0]))
    split = bool((trace.sub_batch > 0).any())
    silent = "origin" in trace.attributes  # LLMServingSim's later texts cannot name a request
    if mesh_of(trace).context > 1 and subject.model is not None:
        return  # the rows of divided sequences are another rule's
    if (own == NO_REQUEST).all():
        if rows.size > 1 and not split and not silent:
            yield Violation(where, f"{rows.size} rows of attention in a block, none of which says its request")
        elif whole and trace.batch_requests.size == 0 and not silent:
            yield Violation(where, "attention of a whole batch whose requests the trace does not list")
        return
    if (own == NO_REQUEST).any():
        yield Violation(where, "attention partly for the whole batch and partly by request")
    named, counts = np.unique(own[own != NO_REQUEST], return_counts=True)
    if (counts > 1).any():
        twice = int(named[counts > 1][0])
        yield Violation(where, f"request {twice} has {int(counts.max())} rows of attention in a block")
    expected = set(trace.batch_requests.tolist())
    if whole and expected and not split and set(named.tolist()) != expected:
        missing = sorted(expected.symmetric_difference(named.tolist()))
        yield Violation(where, f"attention and the batch differ in request {missing[0]}")


RULE = Rule(
    name="attention-separated",
    about="In each block every request has its own attention row, or one row stands for the batch and the trace lists "
    "its requests: attention depends on each request's context, the other operators only on the number of tokens.",
    cause="a loop over requests that skips, repeats or merges one, or a batch row without batch_requests",
    needs="trace",
    check=check,
)
